"""Hostile text files: a few hundred seeded cases of each kind, and every defect that was found, with its smallest file.

``KINOSON_FUZZ=10000`` makes it that many cases of each kind.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import ase.io
import ase.io.lammpsdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.cli import main
from ase_kinoson.crystal.structure_files import FORMATS, read_images, structure_format
from ase_kinoson.errors import BarrierError, KinosonError, StatesError, StructureError, StudyError
from ase_kinoson.given_files import given_bytes, given_text, unpacked
from ase_kinoson.settings import parse_settings, read_toml
from ase_kinoson.study import Study, load_calculator
from tests.fuzz import text_files
from tests.fuzz.running import run

CASES = int(os.environ.get("KINOSON_FUZZ", "0"))
SHORT = {"study": 200, "cif": 20, "extxyz": 150, "structures": 120, "tables": 200, "states": 100, "bands": 80}
SHORT["arguments"] = 60


@pytest.mark.parametrize("target", text_files.ALL, ids=lambda t: t.name)
def test_hostile_files_are_refused_in_one_sentence(target, tmp_path):
    n = CASES or SHORT[target.name]
    found = run(target, n, seed=1, keep=tmp_path)
    assert found.dirty == 0, str(found)
    assert found.accepted + found.refused == n
    assert found.beyond > n / 20  # the parser is not all that is tried


# -- what was found ---------------------------------------------------------------------------------------------------


def refused(error: type[Exception], call, *words: str) -> str:
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable() and "expected" in text and ";" in text and len(text) < 1300, text
    for word in words:
        assert word in text, text
    return text


@pytest.fixture
def file(tmp_path):
    def make(text: str | bytes, name: str = "study.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


GOOD = '[alloy]\nfile = "alloy.extxyz"\n[transport]\ntemperatures_K = [900]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 5000, ("no valid TOML", "recursion")),
        ("a" + ".a" * 50_000 + " = 1", ("more than 20 parts",)),
        ("a = " + "9" * 5000, ("4300 digits",)),
        (b"a = 1\x00", ("NUL",)),
        (b"a = '\xff'", ("0xff", "UTF-8")),
        ("a = 1".encode("utf-16"), ("UTF-16",)),
        (b"", ("empty",)),
        ("#" * 300_000, ("more than 256 KiB",)),
    ],
)
def test_study_files_that_are_no_toml(file, text, words):
    refused(StudyError, lambda: read_toml(file(text)), *words)


def test_a_byte_order_mark_and_line_ends_of_windows_are_taken(file):
    assert read_toml(file(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[cell]\nsize = [10000, 10000, 10000]", ("supercell of", "sites")),
        ("[cell]\nsize = [300, 300, 300]", ("[cell] size", "108000000 sites")),
        ("[cell]\nsize = 1000000000000000000000000000000", ("supercell size",)),
        ("[cell]\nsize = 0x" + "f" * 5000, ("supercell size",)),
        ("[cell]\nsize = [[1, 0, 0], [0, 1, 0], [0, 0, 0]]", ("non-singular",)),
        ("[states]\ntraining = 1000000000000", ("[states] training", "1000000")),
        ("[states]\ntraining = 0x" + "f" * 5000, ("[states] training",)),
        ("[jumps]\ncutoff = 1e300", ("[jumps] cutoff", "100")),
        ("[jumps]\ncutoff = 99.0", ("pairs",)),
        ("[vacancies]\nformation_energy_eV = nan", ("formation_energy_eV", "finite")),
        ("[calculator]\nparameters = {day = 1979-05-27}", ("[calculator] parameters",)),
        ("[vacancies]\ntable = '" + "A" * 5000 + "'", ("[vacancies] table", "too long")),
        ("[vacancies]\ntable = '..'", ("a folder",)),
        ("[vacancies]\ntable = '/dev/zero'", ("a device",)),
    ],
)
def test_settings_that_would_take_all_memory_or_mean_nothing(file, tmp_path, more, words, monkeypatch):
    monkeypatch.setattr("ase_kinoson.study.Pipeline", lambda *args: pytest.fail("the study began"))
    ase.io.write(tmp_path / "alloy.extxyz", bulk("Cu", cubic=True, a=3.6))
    study = file(f"{GOOD}{more}\n")
    before = sorted(tmp_path.iterdir())
    refused(KinosonError, lambda: Study.from_toml(study).run(), *words)
    assert sorted(tmp_path.iterdir()) == before  # no output folder


@pytest.mark.parametrize("temperature", ["1e-300", "1e300", "0.001"])
def test_temperatures_of_no_alloy(file, temperature):
    refused(StudyError, lambda: Study.from_toml(file(GOOD.replace("900", temperature))), "1 to 100000 K")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "locked"])
def test_what_is_no_plain_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "study.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.write_text(GOOD)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("the user may read everything")
    refused(StudyError, lambda: read_toml(path), "cannot read")
    for name in ("POSCAR", "a.cif", "a.traj", "a.db"):
        link = tmp_path / name
        link.symlink_to(path)
        refused(StructureError, lambda link=link: ak.Alloy.from_file(link), "cannot read")
    link = tmp_path / "a.toml"
    link.symlink_to(tmp_path / "b.toml")
    (tmp_path / "b.toml").write_text(GOOD)
    assert read_toml(link)["alloy"]  # a link to a plain file is one


def test_names_that_are_no_names(tmp_path):
    for name in ("a\0b.cif", "A" * 5000 + ".cif", "\x1b[31m.cif", "postgresql://x/y.cif", "a.cif@0"):
        refused(StructureError, lambda name=name: ak.Alloy.from_file(tmp_path / name))
        refused(StudyError, lambda name=name: read_toml(name))


def test_a_file_of_the_kernel_has_an_end():
    """Its size is said to be 0."""
    if Path("/proc/self/status").is_file():
        assert b"Name:" in given_bytes("/proc/self/status", expected="words")
    refused(KinosonError, lambda: given_bytes("/proc/self/pagemap", expected="words", most=2**20))


CIF = text_files.CIFS[0].decode()


@pytest.mark.parametrize("length", ["Infinity", "nan", "1e300", "1e-9", "0"])
def test_a_cif_cell_that_ended_the_process(file, length):
    """spglib ended the whole process over an infinite length."""
    path = file(CIF.replace("_length_c 3.5841", f"_length_c {length}"), "a.cif")
    refused(StructureError, lambda: ak.Alloy.from_file(path))


def test_an_infinite_cell_of_atoms_is_refused():
    atoms = bulk("Cu", cubic=True, a=3.6)
    for bad in (np.inf, np.nan, 1e30):
        cell = np.array(atoms.cell)
        cell[2, 2] = bad
        broken = Atoms(atoms.numbers, positions=atoms.positions, cell=cell, pbc=True)
        refused(StructureError, lambda broken=broken: ak.Alloy.from_atoms(broken))
    broken = atoms.copy()
    broken.positions[0, 0] = np.nan
    refused(StructureError, lambda: ak.Alloy.from_atoms(broken), "finite numbers")
    broken = atoms.copy()
    broken.pbc = False
    refused(StructureError, lambda: ak.Alloy.from_atoms(broken), "periodic")


def test_long_and_many_cells(file):
    head, site = text_files.CIFS[2].split(b"  Ti1")[0], "  Ti%d  %.6f 0.1 0.2\n"
    many = head + b"".join((site % (i, i / 1e5)).encode() for i in range(100_000))
    refused(StructureError, lambda: ak.Alloy.from_file(file(many, "a.cif")), "lines")
    refused(StructureError, lambda: ak.Alloy.from_file(file(b"#" * 5_000_000, "a.cif")), "KiB")
    atoms = bulk("Cu", cubic=True, a=3.6) * (11, 11, 11)
    refused(StructureError, lambda: ak.Alloy.from_atoms(atoms), "5324 sites")


def test_a_cif_of_many_sites_and_operations(file, monkeypatch):
    """Each site is compared with those before it under each operation: 2,000 sites would take pymatgen ten minutes."""
    head, site = text_files.CIFS[2].decode().split("  Ti1")[0], "  Ti%d  %.6f 0.100000 0.200000\n"
    text = head.replace("  'x, y, z'\n", "".join(f"  'x+{i}/997, y, z'\n" for i in range(997)))
    assert text != head
    few = file(head + "".join(site % (i, i / 8) for i in range(8)), "few.cif")
    ak.Alloy.from_file(few)  # the same head with few is a crystal
    monkeypatch.setattr("pymatgen.io.cif.CifParser", lambda *args, **kwargs: pytest.fail("the parser began"))
    many = file(text + "".join(site % (i, i / 2e3) for i in range(2000)), "a.cif")
    refused(StructureError, lambda: ak.Alloy.from_file(many), "2000 sites and 997 symmetry operations")


def test_a_cif_with_a_name_in_latin_1_is_read(file):
    text = CIF.replace("_cell_length_a", "_publ_author_name 'Müller'\n_cell_length_a", 1)
    old, new = file(text.encode("latin-1"), "old.cif"), file(text, "new.cif")
    assert str(ak.Alloy.from_file(old)) == str(ak.Alloy.from_file(new))
    refused(StructureError, lambda: ak.Alloy.from_file(file(CIF.encode("utf-16"), "a.cif")), "UTF-16")


def test_an_input_of_quantum_espresso_is_known_by_its_contents(file):
    data = dict(text_files.other_seeds())["a.pwi"]
    assert data.startswith(b"&CONTROL")
    assert str(ak.Alloy.from_file(file(data, "pw.in"))) == str(ak.Alloy.from_file(file(data, "a.pwi")))
    refused(StructureError, lambda: ak.Alloy.from_file(file(data[8:], "other.in")), "no known format")


def test_a_long_cell_does_not_take_memory():
    """Neighbours were looked for within the longest vector of the cell."""
    atoms = bulk("Cu", "sc", a=3.0)
    atoms.cell[2, 2] = 3000.0
    alloy = ak.Alloy.from_atoms(atoms)
    jumps = ak.JumpNetwork.from_supercell(alloy.supercell((3, 3, 1)))
    assert jumps.n_jumps == 4


@pytest.mark.parametrize(
    ("first", "properties"),
    [("1000000000000", "pos:R:3"), ("-5", "pos:R:3"), ("4", "pos:R:1000000000"), ("4", "pos:R:-1"), ("x", "pos:R:3")],
)
def test_an_extxyz_that_announces_too_much(file, first, properties):
    text = text_files.extxyz_seeds()[0].decode()
    text = f"{first}\n{text.split(chr(10), 1)[1]}".replace("pos:R:3", properties)
    refused(StructureError, lambda: ak.Alloy.from_file(file(text, "a.extxyz")), "cannot read")


def test_an_element_that_is_none(file):
    text = '{"1": {"numbers": [300], "positions": [[0, 0, 0]], "cell": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], '
    text += '"pbc": [true, true, true], "unique_id": "a", "ctime": 1, "mtime": 1, "user": ""}, "ids": [1], "nextid": 2}'
    refused(StructureError, lambda: ak.Alloy.from_file(file(text, "a.json")))


@pytest.mark.parametrize("counts", ["1000000000000", "1_000_000_000", "999999 999999", "4 4"])
def test_a_poscar_that_announces_too_much(file, counts):
    data = dict(text_files.other_seeds())["POSCAR"].decode().split("\n")
    data[6] = counts
    refused(StructureError, lambda: ak.Alloy.from_file(file("\n".join(data), "POSCAR")), "cannot read")


def test_lists_nested_without_end(file):
    refused(StructureError, lambda: ak.Alloy.from_file(file("[" * 100_000, "a.json")), "nested")


@pytest.mark.parametrize("name", ["a.pckl", "a.py", "a.gpw", "a.nc", "a", "a.bundle", "castep.cell", "a.nomad-json"])
def test_formats_whose_readers_run_or_import_are_not_reached(file, tmp_path, name, monkeypatch):
    monkeypatch.setattr(ase.io, "read", lambda *args, **kwargs: pytest.fail("a reader of ASE was asked"))
    refused(StructureError, lambda: ak.Alloy.from_file(file("import os; os.mkdir('written')", name)), "no known format")
    assert structure_format(name) is None and set(FORMATS.values()).isdisjoint({"bundletrajectory", "gpw", "eon"})


def test_a_folder_is_no_bundle(tmp_path):
    (tmp_path / "a.bundle").mkdir()
    refused(StructureError, lambda: ak.Alloy.from_file(tmp_path / "a.bundle"), "a folder")


def test_packed_files_unpack_so_far_and_no_farther(file):
    good = text_files.extxyz_seeds()[0]
    assert ak.Alloy.from_file(file(gzip.compress(good), "a.xyz.gz")).n_basis == 1
    bomb = gzip.compress(bytes(2**26 + 1), 1)
    refused(StructureError, lambda: ak.Alloy.from_file(file(bomb, "b.xyz.gz")), "packed")
    for kind in ("gz", "bz2", "xz"):
        refused(KinosonError, lambda kind=kind: unpacked(b"no", kind, "a", most=100, expected="words"), "unpack")
    refused(KinosonError, lambda: unpacked(gzip.compress(good)[:-20], "gz", "a", most=10**6, expected="words"))


def test_a_database_is_not_changed_by_reading(tmp_path):
    """ASE makes its tables in a database that has none."""
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = other.read_bytes()
    refused(StructureError, lambda: ak.Alloy.from_file(other), "no database of ASE")
    assert other.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["other.db"]
    good = tmp_path / "good.db"
    ase.io.write(good, bulk("Cu", cubic=True, a=3.6))
    before = good.read_bytes()
    assert ak.Alloy.from_file(good).n_basis == 1
    assert good.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "good.db-journal").write_bytes(b"x")
    refused(StructureError, lambda: ak.Alloy.from_file(good), "journal")


@pytest.mark.parametrize("name", sorted({name for name, _ in text_files.other_seeds()}))
def test_good_files_of_the_formats_are_read(file, name):
    read = []
    for own, data in text_files.other_seeds():
        if own == name and structure_format(name) is not None:
            read.append(read_images(file(data, name))[0])
    assert {str(atoms.symbols) for atoms in read} <= {"Cu4", "NaCl"} and (read or structure_format(name) is None)


READS_LABELS = "Atom Type Labels" in Path(ase.io.lammpsdata.__file__).read_text(encoding="utf-8")
"""ASE does from 3.26 on."""

TYPES = """{title}

2 atoms
2 atom types

0.0 3.0 xlo xhi
0.0 3.0 ylo yhi
0.0 3.0 zlo zhi

{labels}{masses}Atoms # atomic

2 {second} 1.5 1.5 1.5
1 {first} 0.0 0.0 0.0
"""


def types(masses=None, labels=None, title="cell"):
    """A data file of LAMMPS with two types, by number or by name."""
    rows = {"labels": "", "masses": "", "first": "1", "second": "2"}
    if labels:
        rows["labels"] = f"Atom Type Labels\n\n1 {labels[0]}\n2 {labels[1]}\n\n"
        rows["first"], rows["second"] = labels
    if masses:
        rows["masses"] = f"Masses\n\n1 {masses[0]}\n2 {masses[1]}\n\n"
    return TYPES.format(title=title, **rows)


def test_types_of_lammps_are_elements_by_their_masses_or_names(file):
    for masses, labels, symbols in (
        ((58.69, 26.98), None, "NiAl"),
        ((59, 58.7), None, "CoNi"),
        (None, ("Ni", "Al"), "NiAl"),
        ((55.845, 51.9961), ("Fe", "Cr"), "FeCr"),
        ((63.546, 107.87), ("host", "solute"), "CuAg"),
    ):
        if labels and not READS_LABELS:
            refused(StructureError, lambda m=masses, n=labels: read_images(file(types(m, n), "a.data")), "ASE cannot")
            continue
        atoms = read_images(file(types(masses, labels), "a.data"))[0]  # in the order of the numbers of the atoms
        assert str(atoms.symbols) == symbols and atoms.positions[:, 0].tolist() == [0.0, 1.5]
    for masses, labels, words in (
        (None, None, "says of no type which element it is"),
        (None, ("host", "solute"), "says of no type which element it is"),
        ((55.845, 2.0), None, "a mass of 2 u is that of no element"),
        ((1.0, 55.845), None, "a mass of 1 u is that of no element"),  # any unit of mass
        (("nan", 55.845), None, "a mass of nan u is that of no element"),
        ((58.8, 26.98), None, "a mass of 58.8 u is that of no element, or of more than one"),
        ((58.69, 26.98), ("Co", "Al"), "a mass of 58.69 u is that of Ni, which no label names"),
    ):
        words = words if READS_LABELS or not labels else "ASE cannot read"
        refused(StructureError, lambda m=masses, n=labels: read_images(file(types(m, n), "a.data")), words)
    none = types().replace("Atoms #", "Masses\n\nAtoms #")  # a section with nothing in it
    refused(StructureError, lambda: read_images(file(none, "a.data")), "says of no type which element it is")
    swapped = types((26.98, 58.69), ("Ni", "Al")).replace("1 Ni 0.0", "1 1 0.0").replace("2 Al 1.5", "2 2 1.5")
    refused(StructureError, lambda: read_images(file(swapped, "a.data")), "which no label names")
    title = "LAMMPS data file via write_data, version 2 Aug 2023, timestep = 0, units = {}"
    for units in ("metal", "real"):
        assert len(read_images(file(types((58.69, 26.98), None, title.format(units)), "a.data"))[0]) == 2
    bohr = types((58.69, 26.98), None, title.format("electron"))
    refused(StructureError, lambda: read_images(file(bohr, "a.data")), "its units are those of the style electron")


def test_states_whose_labels_are_none(file):
    cell = text_files._network().supercell
    text = text_files._states_seeds()[0].decode()
    assert len(ak.States.read(file(text, "a.extxyz"), cell)) == 3
    for old, new in (("weight=", "weight=x"), ("group=", "group=y"), ("states=", "states=[1] other=")):
        assert old in text
        refused(StatesError, lambda old=old, new=new: ak.States.read(file(text.replace(old, new), "a.extxyz"), cell))


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_bands_in_folders_that_lead_back(tmp_path):
    jumps = text_files._network()
    (tmp_path / "bands").mkdir()
    (tmp_path / "bands" / "again").symlink_to(tmp_path / "bands")
    (tmp_path / "bands" / "once more").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "bands" / "a.traj")
    found = ak.import_bands(tmp_path / "bands", jumps)
    assert not found.bands and ["a pipe" in str(one) for one in found.refused] == [True]
    refused(BarrierError, lambda: ak.import_bands("A" * 5000, jumps))
    (tmp_path / "bands" / "²").mkdir()  # a digit that is no number
    (tmp_path / "bands" / "²" / "POSCAR").write_text("x")
    ak.import_bands(tmp_path / "bands", jumps)


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")
def test_images_that_coincide_have_no_curve(tmp_path):
    images = list(text_files._band_seeds()[0])
    assert len(ak.import_bands(images, text_files._network(), barrier="spline").bands) == 1
    found = ak.import_bands([images[0], images[1], images[1], images[2]], text_files._network(), barrier="spline")
    assert not found.bands and "no curve" in str(found.refused[0])


def test_a_message_is_short_and_printable():
    text = str(KinosonError("found \x1b[31m\u202e" + "A" * 10_000 + "; expected another; correct it"))
    assert text.isprintable() and len(text) < 1300 and text.endswith("; expected another; correct it")
    assert str(KinosonError("found Å; expected é")) == "found Å; expected é"


# -- calculators are the user's own code -----------------------------------------------------------------------------


@pytest.fixture
def own_module(tmp_path):
    """A study whose calculator is a module beside it that leaves a trace when it is imported."""
    ase.io.write(tmp_path / "alloy.extxyz", bulk("Cu", cubic=True, a=3.6))
    (tmp_path / "hostile_module.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'trace')!r}).touch()\nraise SystemExit(3)\n"
    )
    (tmp_path / "study.toml").write_text(f'{GOOD}[calculator]\nname = "hostile_module.Calculator"\n[cell]\nsize = 2\n')
    (tmp_path / "bands").mkdir()
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("hostile_module", None)


def test_only_commands_that_compute_import_the_calculator(own_module, capsys):
    study, bands = str(own_module / "study.toml"), str(own_module / "bands")
    assert main(["import", study, bands, "--out", str(own_module / "bands.npz")]) in (1, 2)
    assert main(["map", study, "--model", str(own_module / "none")]) == 2
    assert main(["report", str(own_module)]) == 2
    assert not (own_module / "trace").exists() and not (own_module / "study-map").exists()
    capsys.readouterr()
    path = list(sys.path)
    assert main(["run", study, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "in the folder of the study" in err and "SystemExit" in err and "Traceback" not in err
    assert (own_module / "trace").exists() and sys.path == path and not (own_module / "study-output").exists()


def test_a_misspelt_module_does_not_put_the_folder_on_the_path(tmp_path):
    path = list(sys.path)
    for name in ("not_there.Calculator", "..x.y", "a..b", ".EMT", "a b.c", "ase.calculators.emt.", "os\0.x"):
        refused(StudyError, lambda name=name: load_calculator(name, base=tmp_path), "[calculator] name")
    assert sys.path == path


def test_parameters_that_the_calculator_does_not_take():
    refused(
        StudyError,
        lambda: load_calculator("ase.build.bulk", {"nonsense": 1}),
        "[calculator] parameters",
    )


def test_calculators_that_run_are_not_refused(tmp_path, monkeypatch):
    """A module with a hyphen, one that imports its neighbours, and a wrapper that fills in an argument."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my-emt.py").write_text("from ase.calculators.emt import EMT as make\n")
    (tmp_path / "fuzz_package").mkdir()
    (tmp_path / "fuzz_package" / "inner.py").write_text("from .other import make\n")
    (tmp_path / "fuzz_package" / "other.py").write_text(
        "import functools\nfrom ase.calculators.emt import EMT\n\n\ndef plain(needed, **k):\n    return EMT(**k)\n\n\n"
        "@functools.wraps(plain)\ndef make(**k):\n    return plain(1, **k)\n"
    )
    for name in ("my-emt.make", "fuzz_package.inner.make"):
        assert "EMT" in type(load_calculator(name, base=tmp_path)()).__name__
    refused(StudyError, lambda: load_calculator("fuzz_package.other.plain", base=tmp_path), "'needed'")


def test_parameters_that_json_holds_are_taken():
    study = {"alloy": {"file": "a.cif"}, "transport": {"temperatures_K": [900]}}
    given = {"device": None, "cutoffs": (1.0, 2.0), "deep": {"a": [True, None]}}
    found = parse_settings({**study, "calculator": {"name": "EMT", "parameters": given}})
    assert found.calculator.parameters == given
    for bad in ({1, 2}, object(), b"x"):
        data = {**study, "calculator": {"name": "EMT", "parameters": {"x": bad}}}
        refused(StudyError, lambda data=data: parse_settings(data), "[calculator] parameters")


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"", b"\x00", b"a = [", GOOD.encode(), GOOD.encode().replace(b"extxyz", b"xyz"), b"\xff\xfe", b"x" * 400_000],
    ids=range(7),
)
def test_the_command_line_refuses_in_one_line_and_writes_nothing(tmp_path, capsys, text):
    (tmp_path / "study.toml").write_bytes(text)
    (tmp_path / "alloy.extxyz").write_bytes(b"1000000000\n\n")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for command in ("run", "barriers", "fit", "transport"):
        assert main([command, str(tmp_path / "study.toml")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and "Traceback" not in err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_good_study_is_taken(tmp_path):
    """The refusals above are not those of everything."""
    for name, data in text_files._beside().items():
        (tmp_path / name).write_bytes(data)
    for text in text_files.STUDIES:
        (tmp_path / "study.toml").write_bytes(text)
        assert Study.from_toml(tmp_path / "study.toml").jumps.n_jumps > 0
    assert not shutil.os.path.exists(tmp_path / "study-output")
    assert given_text(tmp_path / "study.toml", expected="words")
