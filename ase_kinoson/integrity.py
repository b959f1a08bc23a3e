"""Whether the files of a study are as they were written: stores, models, archives, tables, summaries.

Nothing is written, nothing is unpickled, no calculator is imported.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.npz import DAMAGED, read_npz, unseal
from ase_kinoson.seals import newer, other_layout, read_json_file, unsealed

__all__ = ["Finding", "check_files"]

RESTORE = "restore it from a copy, or delete it and run the study again"
UNSEALED = "it was written before digests: damage inside its numbers cannot be found"
_SUFFIXES = (".db", ".json", ".npz", ".safetensors", ".stamp")


@dataclass(frozen=True)
class Finding:
    """What was found about one file.

    Attributes
    ----------
    path : str
        The file.
    what : str
        What it is: ``"store"``, ``"model"``, ``"archive of barriers"`` and so on.
    state : str
        ``"ok"``; ``"note"``, if somebody should look at it though no byte need be damaged; ``"damaged"``; or
        ``"unknown"``, if it is nothing of this package.
    text : str
        What was found.
    advice : str
        What to do; empty if nothing.
    """

    path: str
    what: str
    state: str
    text: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        mark = {"ok": "ok      ", "note": "note    ", "damaged": "DAMAGED ", "unknown": "unknown "}[self.state]
        return f"{mark} {self.path}: {self.what}: {self.text}" + (f"; {self.advice}" if self.advice else "")


def check_files(path: str | Path) -> list[Finding]:
    """Check a file, or all files of this package in a folder and those within it.

    Parameters
    ----------
    path
        A store, a model (either of its two files, or their common name), an archive of barriers, states, kinosons, a
        checkpoint, a summary, a map, any other JSON file of the package, or a folder.

    Returns
    -------
    list of Finding
        At least one.

    Raises
    ------
    KinosonError
        If there is no such file or folder.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    pair = [path.with_name(f"{path.name}{suffix}") for suffix in (".json", ".safetensors")]
    if not path.exists() and any(file.is_file() for file in pair):
        path = pair[0] if pair[0].is_file() else pair[1]
    if not path.is_file():
        raise KinosonError(f"found no file {str(path)!r}; expected a file or folder of ase-kinoson; check the path")
    found = _file(path)
    return found or [Finding(str(path), "file", "unknown", "it is nothing that this package writes")]


def _folder(folder: Path) -> list[Finding]:
    found: list[Finding] = []
    for inside, folders, names in os.walk(folder):  # links to folders are not followed
        folders.sort()
        for name in sorted(names):
            file = Path(inside) / name
            if re.fullmatch(r"\..+\.tmp(\.\w+)?", name):
                found.append(_finding(file, "leftover", [], ["a process was killed while it wrote this; it may go"]))
            elif file.suffix in _SUFFIXES and file.is_file():
                found += _file(file)
    if not found:
        found.append(Finding(str(folder), "folder", "unknown", "it holds nothing that this package writes"))
    return found


def _file(path: Path) -> list[Finding]:
    """Findings about one file; none if it is nothing of this package."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except OSError as error:
        return [_finding(path, "file", [f"it cannot be read ({error.strerror})"], advice="check its permissions")]
    if path.suffix == ".safetensors":
        partner = path.with_suffix(".json")
        if partner.is_file():
            return _model(path) if path.suffix != ".json" and not _is_model(partner) else []
        return [_finding(path, "weights", [f"its {partner.name} is missing"], advice="copy both files again")]
    if start.startswith(b"SQLite format 3\x00") or path.suffix == ".db":
        return _store(path)
    if start.startswith(b"PK") or path.suffix == ".npz":
        return _npz(path)
    if path.suffix in (".json", ".stamp") or start.lstrip().startswith(b"{"):
        return _json(path)
    return []


def _finding(
    path: Path, what: str, wrong: Iterable[str], notes: Iterable[str] = (), *, text: str = "", advice: str = RESTORE
) -> Finding:
    wrong, notes = list(wrong), list(notes)
    if wrong:
        return Finding(str(path), what, "damaged", "; ".join(_printable(w) for w in wrong), advice)
    if notes:
        return Finding(str(path), what, "note", "; ".join(_printable(n) for n in ([text] if text else []) + notes))
    return Finding(str(path), what, "ok", _printable(text) or "whole")


def _printable(text: str) -> str:
    """One line that no terminal obeys, whatever a file made of it."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


# -- stores -----------------------------------------------------------------------------------------------------------


def _store(path: Path) -> list[Finding]:
    from ase_kinoson.barriers.store_check import check_store

    if path.stat().st_size == 0:
        return [_finding(path, "store", [], ["it is empty: a process was killed before it wrote a row"])]
    found = check_store(path)
    advice = "restore it from a copy, or delete the rows named ('ase db FILE id=N --delete') and run the study again"
    text = f"{found.rows} rows, {found.verified} verified by their digests"
    return [_finding(path, "store of barriers", found.wrong, found.notes, text=text, advice=advice)]


# -- models -----------------------------------------------------------------------------------------------------------


def _is_model(path: Path) -> bool:
    try:
        about = read_json_file(path)
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("format") in _models()


def _models() -> dict[str, int]:
    from ase_kinoson.barriers import ensemble, learned
    from ase_kinoson.kinosons import relaxation_files

    return {module.FORMAT: module.VERSION for module in (learned, ensemble, relaxation_files)}


def _model(path: Path, about: Mapping[str, Any] | None = None) -> list[Finding]:
    """A pair of files; barrier models are rebuilt, relaxations need the jumps of their study for that."""
    from ase_kinoson.barriers.ensemble import BarrierEnsemble
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.barriers.model_file import read_model, read_tensors

    kind = str((about or {}).get("format", "ase_kinoson.BarrierModel"))
    what = {"ase_kinoson.Relaxation": "relaxation", "ase_kinoson.BarrierEnsemble": "ensemble of models"}
    own = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    notes = [] if about is None or "digest" in about else [f"its {path.name}: {UNSEALED}"]
    try:
        if kind == "ase_kinoson.Relaxation":
            version = _models()[kind]
            n = len(read_tensors(own, read_model(own, kind, version)[1]))
            text = f"{n} arrays of weights that match their description"
        else:
            source = BarrierEnsemble if kind == "ase_kinoson.BarrierEnsemble" else BarrierModel
            text = str(source.load(own))
    except KinosonError as error:
        return [_finding(path, what.get(kind, "model"), [str(error)], advice="")]
    if about is not None and about.get("version") != _models().get(kind):
        notes.append(f"its layout has version {about.get('version')}; it is read as it is, and saved in the new one")
    return [_finding(path, what.get(kind, "model"), [], notes, text=text)]


# -- JSON -------------------------------------------------------------------------------------------------------------


def _json(path: Path) -> list[Finding]:
    known = path.suffix == ".stamp" or path.name in ("summary.json", "kinosons.json", "map.json")
    try:
        data = read_json_file(path)
    except (OSError, ValueError) as error:
        weights = path.with_suffix(".safetensors").is_file()
        what = "stamp of a stage" if path.suffix == ".stamp" else "model" if weights else "JSON file"
        return [_finding(path, what, [f"it is no readable JSON ({error})"])]
    if not isinstance(data, dict):
        return [_finding(path, "JSON file", ["it holds no object"])] if known else []
    if path.suffix == ".stamp":
        return [_stamp(path, data)]
    kind = str(data.get("format", ""))
    if kind in _models():
        return _model(path, data)
    if path.with_suffix(".safetensors").is_file():
        return [_finding(path, "model", [f"it holds the format {kind[:60]!r}"])]
    reader = next((_READERS[name] for name in _READERS if kind.partition("/")[0] == name), None)
    if reader is None and path.name == "summary.json" and not kind and not {"seal", "digest"} & data.keys():
        return [_finding(path, "summary", [], [f"version 0 of its layout; {UNSEALED}"])]
    if reader is None and not known and "@class" not in data and "seal" not in data:
        return []
    what = reader[0] if reader else str(data.get("@class", "JSON file"))[:60]
    wrong = [text for text in [reader[1](data) if reader else ""] if text] or [w for w in [unsealed(data)] if w]
    if reader is None and known:
        wrong = wrong or [f"it holds the format {kind[:60]!r}"]
    if not wrong and reader and reader[0] == "summary":
        wrong = _files_of(path.parent, data)
    if not wrong and path.name in ("kinosons.json", "states.json") and "files" in data:
        return [_counted(path, data)]
    text = "its content is that of its digest" if "digest" in data else ""
    return [_finding(path, what, wrong, [] if "digest" in data else [UNSEALED], text=text)]


def _stamp(path: Path, data: Mapping[str, Any]) -> Finding:
    fields: dict[str, Any] = {"fingerprint": str, "wall_s": (int, float), "warnings": list}
    bad = [name for name, kind in fields.items() if not isinstance(data.get(name), kind)]
    wrong = [f"it has no {bad[0]!r}"] if bad else [w for w in [unsealed(data)] if w]
    files = data.get("sha256", {})
    for name, digest in files.items() if isinstance(files, dict) and not wrong else ():
        text = _wrong_file(path.parent.parent, str(name), digest)
        wrong += [text] if text else []
    advice = "delete the stamp and run the study again, which computes this stage again"
    return _finding(path, "stamp of a stage", wrong, advice=advice, text="whole")


def _files_of(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """Tables that belong to a summary."""
    files = summary.get("files", {})
    if not isinstance(files, dict):
        return ["it names no files"]
    return [text for text in (_wrong_file(folder, str(name), digest) for name, digest in files.items()) if text]


def _wrong_file(folder: Path, name: str, digest: Any) -> str:
    parts = name.split("/")
    if not name or name[0] == "/" or ".." in parts or "\\" in name or len(parts) > 2 or ":" in name:
        return f"it names the file {name[:60]!r}, which is none of its folder"
    place = folder / name
    if not place.is_file() or place.is_symlink():
        return f"{name} is missing"
    with open(place, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if found == digest else f"{name} is not the file that was written with it"


def _layout(known: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda data: other_layout(data, known)


_READERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "ase_kinoson.summary": ("summary", _layout("ase_kinoson.summary/1")),
    "ase_kinoson.composition_map": ("composition map", _layout("ase_kinoson.composition_map/1")),
    "ase_kinoson.kinosons": ("kinosons", _layout("ase_kinoson.kinosons/1")),
    "ase_kinoson.states": ("states", _layout("ase_kinoson.states/1")),
}


def _counted(path: Path, about: Mapping[str, Any]) -> Finding:
    """The file that says how many others there are."""
    files, wanted = sorted(path.parent.glob(f"{path.stem}-*.npz")), about.get("files")
    wrong = [] if wanted == len(files) else [f"{len(files)} files of {path.stem} are there; expected {wanted}"]
    return _finding(path, path.stem, wrong, [] if "digest" in about else [UNSEALED], text=f"{len(files)} files")


# -- arrays -----------------------------------------------------------------------------------------------------------


def _npz(path: Path) -> list[Finding]:
    try:
        members = read_npz(path)
    except DAMAGED as error:
        return [_finding(path, "NumPy archive", [f"{type(error).__name__}: {str(error)[:300]}"])]
    name = next((n for n in ("about", "head") if n in members), None)
    if name is None:
        if re.fullmatch(r"kinosons-\d{6}-\d{4}", path.stem):
            return [_finding(path, "kinosons", [], [UNSEALED])]
        return []
    what, layout = _archive_kind(path)
    try:
        about, arrays = unseal(members, name=name, layout=layout)
        wrong = _wrong_arrays(path, about, arrays)
    except DAMAGED as error:
        return [_finding(path, what(None), [str(error)[:300] or type(error).__name__])]
    notes = [] if "digest" in about else [UNSEALED]
    text = f"{len(arrays)} arrays that are those of its digest" if "digest" in about else f"{len(arrays)} arrays"
    return [_finding(path, what(about), wrong, notes, text=text)]


_ARCHIVES = {
    "ase_kinoson barriers": ("archive of barriers", 1),
    "ase_kinoson.stage": ("stage of a study", 1),
    "ase_kinoson.states/1": ("states", 0),
    "ase_kinoson.kinosons/1": ("kinosons", 0),
    "ase_kinoson.KineticMonteCarlo": ("checkpoint", 0),
}


def _archive_kind(path: Path) -> tuple[Callable[[Any], str], Callable[[dict[str, Any]], str]]:
    def what(about: Any) -> str:
        kind = about.get("format") if isinstance(about, dict) else None
        return _ARCHIVES.get(str(kind), ("stage of a study" if path.parent.name == "stages" else "archive", 0))[0]

    def layout(about: dict[str, Any]) -> str:
        kind = str(about.get("format", ""))
        if "/" in kind:
            known = next((k for k in _ARCHIVES if k.partition("/")[0] == kind.partition("/")[0]), "")
            return other_layout(about, known) if known else ""
        known_version = _ARCHIVES.get(kind, ("", 0))[1]
        version = about.get("version", 1)
        if known_version and version != known_version:
            return newer(version, known_version, about) or f"it has version {str(version)[:20]!r} of its layout"
        return ""

    return what, layout


def _wrong_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> list[str]:
    """What contradicts itself; NaN and infinities have meanings in barriers and energies, and none in these."""
    wrong = []
    for name, array in arrays.items():
        last = name.rpartition("/")[2]
        if last in ("weights", "weight", "times", "model_energies") and not np.isfinite(array).all():
            wrong.append(f"{name} holds numbers that are not finite")
        if last in ("weights", "weight") and array.size and np.isfinite(array).all() and array.min() < 0:
            wrong.append(f"{name} holds negative weights")
    if path.suffix == ".npz" and about.get("format") == "ase_kinoson barriers":
        from ase_kinoson.barriers.archive import load_barriers

        try:
            load_barriers(path)
        except KinosonError as error:
            wrong.append(str(error))
    if {"barrier", "reverse_barrier", "energy_initial", "energy_final"} <= set(arrays):
        gap = _energy_gap(arrays)
        if gap > 1e-6:
            wrong.append(f"barriers and energies of the ends contradict each other by {gap:.2g} eV")
    return wrong


def _energy_gap(arrays: Mapping[str, NDArray]) -> float:
    """Largest |(barrier − reverse) − (final − initial)| where all are known, eV."""
    with np.errstate(invalid="ignore"):
        left = arrays["barrier"] - arrays["reverse_barrier"]
        right = arrays["energy_final"] - arrays["energy_initial"][:, None]
        gap = np.abs(left - right)
    return float(gap[np.isfinite(gap)].max(initial=0.0))
