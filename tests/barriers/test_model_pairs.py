"""A model is two files: killed while one is saved over another, there is the old model or the new one."""

import os

import pytest

from ase_kinoson.barriers import model_file
from ase_kinoson.barriers.model_file import read_model, write_model
from ase_kinoson.errors import ModelError
from ase_kinoson.whole_files import replace_file

OLD, NEW = (
    ({"format": "some", "version": 2, "name": "old"}, b"old weights"),
    (
        {"format": "some", "version": 2, "name": "new"},
        b"the new weights",
    ),
)


class Killed(BaseException):
    pass


def killed_at(monkeypatch, step):
    """``os.replace`` ends the process at its ``step``-th call."""
    calls, real = [], os.replace

    def replace(source, target):
        calls.append(target)
        if len(calls) == step:
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def found(path):
    about, weights = read_model(path, "some", 2)
    return about["name"], weights


def two_steps(path, about, weights):
    """The twin: each file in one step, one after the other."""
    from ase_kinoson.barriers.model_file import _files, seal

    digest = model_file.hashlib.sha256(weights).hexdigest()
    text = model_file.json.dumps(seal({**about, "weights_sha256": digest}))
    for file, content in zip(_files(path), (text.encode(), weights), strict=True):
        with replace_file(file) as temporary:
            temporary.write_bytes(content)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_model_saved_over_another(tmp_path, monkeypatch, step):
    write_model(tmp_path / "model", *OLD)
    assert found(tmp_path / "model") == ("old", OLD[1])
    with monkeypatch.context() as patch:
        killed_at(patch, step)
        if step < 4:
            with pytest.raises(Killed):
                write_model(tmp_path / "model", *NEW)
        else:
            write_model(tmp_path / "model", *NEW)
    assert found(tmp_path / "model") == (("old", OLD[1]) if step <= 2 else ("new", NEW[1]))
    write_model(tmp_path / "model", *NEW)  # and again, whatever was left behind
    assert found(tmp_path / "model") == ("new", NEW[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_the_first_model_of_a_folder(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(Killed):
            write_model(tmp_path / "model", *NEW)
    assert found(tmp_path / "model") == ("new", NEW[1])


def test_one_file_after_the_other_loses_both(tmp_path, monkeypatch):
    two_steps(tmp_path / "model", *OLD)
    with monkeypatch.context() as patch:
        killed_at(patch, 2)
        with pytest.raises(Killed):
            two_steps(tmp_path / "model", *NEW)
    with pytest.raises(ModelError, match="does not match"):
        found(tmp_path / "model")


def test_weights_behind_a_link_stay_behind_it(tmp_path):
    (tmp_path / "far").mkdir()
    write_model(tmp_path / "model", *OLD)
    os.rename(tmp_path / "model.safetensors", tmp_path / "far" / "weights")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "far" / "weights")
    write_model(tmp_path / "model", *NEW)
    assert (tmp_path / "model.safetensors").is_symlink()
    assert found(tmp_path / "model") == ("new", NEW[1])
