"""Targets: text files that people give to the package, and words of the command line."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.study import Study
from tests.fuzz.mutation import HUGE, NUMBERS, mutate
from tests.fuzz.running import Target

__all__ = ["ALL", "ARGUMENTS", "BANDS", "CIF", "EXTXYZ", "OTHERS", "STATES", "STUDY", "TABLES"]

# -- good files -------------------------------------------------------------------------------------------------------

STUDIES = (
    b"""title = "short"
seed = 3
workers = 1

[alloy]
file = "alloy.extxyz"
composition = {Cu = {Cu = 0.7, Ni = 0.3}}
mobile = ["Cu"]
symprec = 1e-3

[cell]
size = 2
of = "conventional"

[calculator]
name = "ase.calculators.emt.EMT"
parameters = {asap_cutoff = false}

[barriers]
fmax_initial = 0.02
time_limit_s = 60.0
retry = ["timed-out"]

[states]
training = 8
evaluation = 4
ensemble = "quenched"
arrangements = 2

[model]
hidden = 4
dropout = 0.1

[relaxation]
form = "paths"
lookahead = 1

[correction]
n_steps = 3
seed = 5

[vacancies]
formation_energy_eV = 1.2
formation_entropy_kB = 1.5

[transport]
temperatures_K = [1200, 900.0]
attempt_frequency = 1e13
measured = "measured.csv"
n_resamples = 50
""",
    b"""[alloy]
file = "alloy.extxyz"
[cell]
size = [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
of = "conventional"
[jumps]
species = "C"
sites = "octahedral"
cutoff = 2.6
[transport]
temperatures_K = [800]
""",
    b"""[alloy]
file = "alloy.extxyz"
[cell]
size = [2, 3, 2]
[vacancies]
table = "vacancies.csv"
[transport]
temperatures_K = [800, 900]
""",
    b"""alloy = {file = "alloy.extxyz"}
transport = {temperatures_K = [1e3], vacancy_fraction = 1e-4}
correction.enabled = false
states.rounds = 2
""",
)

CIFS = (
    b"""data_CuNi
_cell_length_a 3.5841
_cell_length_b 3.5841
_cell_length_c 3.5841
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_symmetry_multiplicity
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 4 0 0 0 0.7
Ni1 Ni 4 0 0 0 0.3
""",
    b"""# B2, written with operations
data_NiAl
_cell_length_a   2.8864(2)
_cell_length_b   2.8864(2)
_cell_length_c   2.8864(2)
_cell_angle_alpha   90.0
_cell_angle_beta   90.0
_cell_angle_gamma   90.0
_cell_volume 24.05
_chemical_formula_sum 'Al1 Ni1'
_cell_formula_units_Z 1
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
  2  '-x, -y, z'
  3  '-x, y, -z'
  4  'x, -y, -z'
loop_
 _atom_type_symbol
 _atom_type_oxidation_number
  Ni0+ 0.0
  Al3+ 3.0
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
  Ni0+ Ni0 1 0.000 0.000 0.000 0.95
  Al3+ Al1 1 0.500 0.500 0.500 1
_journal_text
;
many words
;
""",
    b"""data_Ti
_symmetry_space_group_name_H-M   'P 1'
_cell_length_a   2.95
_cell_length_b   2.95
_cell_length_c   4.68
_cell_angle_alpha   90
_cell_angle_beta   90
_cell_angle_gamma   120
loop_
 _space_group_symop_operation_xyz
  'x, y, z'
loop_
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
  Ti1  0.33333333  0.66666667  0.25
  Ti2  0.66666667  0.33333333  0.75
""",
)

MEASURED = b"""# tracer diffusivities
temperature [C], diffusivity [cm2/s], error, species, source
900, 1.2e-10, 1e-11, Cu, "somebody, 1970"
1000, 9.1e-10, , Ni, somebody
"""
VACANCIES = b"""temperature [K], vacancy_fraction [ppm], error [ppm]
700, 1.0, 0.1
900, 10, 1
1300, 100, 10
"""
MEASURED = MEASURED.replace(b"error,", b"error [cm2/s],")


def _written(atoms: Any, kind: str, **options: Any) -> bytes:
    """What ASE writes, as bytes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{kind}"
        write(path, atoms, format=kind, **options)
        return path.read_bytes()


@cache
def extxyz_seeds() -> tuple[bytes, ...]:
    cubic = bulk("Cu", cubic=True, a=3.6)
    odd = bulk("Ni", "hcp", a=2.5, c=4.1)
    odd.info.update(remark='a "quoted" text', values=np.arange(3.0), flag=True, tensor=np.eye(3))
    odd.arrays["sublattice"] = np.array([0, 1])
    slab = bulk("Al", "fcc", a=4.05)
    slab.pbc = (True, True, False)
    old = b"2\nsome words\nCu 0.0 0.0 0.0\nNi 1.8 1.8 0.0\n"
    return (_written(cubic, "extxyz"), _written(odd, "extxyz"), _written([slab, cubic], "extxyz"), old)


@cache
def other_seeds() -> tuple[tuple[str, bytes], ...]:
    """Name and contents of the further formats."""
    cubic = bulk("Cu", cubic=True, a=3.6)
    odd = bulk("NaCl", "rocksalt", a=5.6)
    named = (
        *(("POSCAR", "vasp"), ("a.vasp", "vasp"), ("a.traj", "traj"), ("a.json", "json"), ("a.db", "db")),
        *(("a.xsf", "xsf"), ("a.xyz", "xyz"), ("a.data", "lammps-data"), ("a.cube", "cube")),
        *(("a.pwi", "espresso-in"), ("a.gen", "gen"), ("a.res", "res"), ("a.cfg", "cfg"), ("a.pdb", "proteindatabank")),
    )
    found = []
    for name, kind in named:
        options = {
            "espresso-in": {"pseudopotentials": {"Cu": "cu.upf", "Na": "na.upf", "Cl": "cl.upf"}},
            "lammps-data": {"masses": True},
        }.get(kind, {})
        for atoms in (cubic, odd):
            found.append((name, _written(atoms, kind, **options)))
    vectors = b"lattice_vector 3.6 0 0\nlattice_vector 0 3.6 0\nlattice_vector 0 0 3.6\n"
    found.append(("geometry.in", vectors + b"atom 0 0 0 Cu\natom_frac 0.5 0.5 0.5 Ni\n"))
    return tuple(found)


# -- making cases -----------------------------------------------------------------------------------------------------

SECTIONS = [*ak.settings.StudySettings.model_fields] if hasattr(ak, "settings") else []
VALUES = (
    *(b"0", b"-1", b"1", b"1.5", b"1e400", b"nan", b"-inf", b"true", b'""', b'"x"', b"[]", b"{}", b"[[]]", b"[1, 'a']"),
    *(b"1979-05-27T07:32:00Z", b"07:32:00", b'"../../../../etc/passwd"', b'"/dev/zero"', b'"/etc"', b'"."', b'".."'),
    *(b'"a\\u0000b"', b'"\\u001b[31m"', b'"postgresql://x"', b'"alloy.extxyz@0"', b'"-"', b'"~"', b'"$HOME"'),
    *(b"[10000, 10000, 10000]", b"[[0, 0, 0], [0, 0, 0], [0, 0, 0]]", b"[1, 1, 0]", b"-3", b"[1, 1, 1, 1]"),
    *(b"[2.0, 2, 2]",),
    *(b"{a = {b = {c = 1}}}", b"{Cu = {Cu = 0.5, Ni = 0.6}}", b"{Cu = {Zz = 1.0}}", b"{Cu = {}}", b"{Cu = {Cu = nan}}"),
    *(b'"A' + b"A" * 3000 + b'"', b"[" * 50 + b"]" * 50, b"[[0.5, 0.5, 0.5]]", b'["octahedral", "tetrahedral"]', *HUGE),
    *(b"[" + b"1, " * 1000 + b"1]", b"[1e-300]", b"[1e300]", b"[0.001]", b'"emt"', b'"kim:../x"', b'"os.mkdir"'),
)  # fmt: skip


def _study_case(rng: random.Random) -> dict[str, bytes]:
    text = rng.choice(STUDIES)
    if rng.random() < 0.6:  # a key with another value, or a new key
        for _ in range(rng.choice((1, 1, 2, 4))):
            lines = text.split(b"\n")
            rows = [i for i, line in enumerate(lines) if b" = " in line]
            i = rng.choice(rows)
            key = lines[i].split(b" = ")[0]
            if rng.random() < 0.2:
                key = rng.choice((rng.choice(_keys()), b"nonsense", b'"a b"', b"a.b.c", key.upper(), b"__class__"))
                lines.insert(i, key + b" = " + rng.choice(VALUES))
            else:
                lines[i] = key + b" = " + rng.choice((*VALUES, rng.choice(NUMBERS)))
            text = b"\n".join(lines)
    elif rng.random() < 0.03:
        text = rng.choice(_monsters())
    else:
        text = mutate(text, rng, STUDIES)
    return {"study.toml": text, **_beside()}


@cache
def _beside() -> dict[str, bytes]:
    return {"alloy.extxyz": extxyz_seeds()[0], "measured.csv": MEASURED, "vacancies.csv": VACANCIES}


@cache
def _keys() -> tuple[bytes, ...]:
    from ase_kinoson.settings import StudySettings

    found = list(StudySettings.model_fields)
    for one in StudySettings.model_fields.values():
        found += list(getattr(one.annotation, "model_fields", {}))
    return tuple(key.encode() for key in found)


@cache
def _monsters() -> tuple[bytes, ...]:
    """Valid TOML, more or less, that is much too much."""
    return (
        b"\n".join(b"k%d = 1" % i for i in range(200_000)),
        b"a = " + b"[" * 100_000 + b"]" * 100_000,
        b"a = " + b"{a = " * 5_000 + b"1" + b"}" * 5_000,
        b"a" + b".a" * 20_000 + b" = 1",
        b"[" + b".".join(b"a" for _ in range(20_000)) + b"]",
        b"\n".join(b"[[a]]" for _ in range(100_000)),
        b'title = "' + b"A" * 5_000_000 + b'"\n' + STUDIES[3],
        b"seed = " + b"9" * 5_000 + b"\n" + STUDIES[3],
        b"# " + b"c" * 20_000_000 + b"\n" + STUDIES[3],
        STUDIES[3] + b"\n[alloy]\n" * 1000,
    )


def _cif_case(rng: random.Random) -> dict[str, bytes]:
    text = rng.choice(CIFS)
    what = rng.random()
    if what < 0.02:
        text = rng.choice(_cif_monsters())
    elif what < 0.4:  # one value of one line, which is beyond the reader more often than not
        lines = text.split(b"\n")
        for _ in range(rng.choice((1, 1, 2))):
            i = rng.randrange(len(lines))
            words = lines[i].split()
            if words:
                words[rng.randrange(len(words))] = rng.choice(
                    (*NUMBERS, b"?", b".", b"'x, y, z'", b"Xx", b"D", b"Cu2+", b"0.5")
                )
                lines[i] = b" ".join(words)
        text = b"\n".join(lines)
    else:
        text = mutate(text, rng, CIFS)
    return {"alloy.cif": text}


@cache
def _cif_monsters() -> tuple[bytes, ...]:
    head, site = CIFS[2].split(b"  Ti1")[0], b"  Ti%d  %.6f  %.6f  %.6f\n"
    rng = random.Random(1)
    many = b"".join(site % (i, rng.random(), rng.random(), rng.random()) for i in range(100_000))
    operations = b"".join(b"  'x+%d/997, y, z'\n" % i for i in range(997))
    few = b"".join(site % (i, rng.random(), rng.random(), rng.random()) for i in range(2_000))
    return (
        head + many,
        head.replace(b"  'x, y, z'\n", operations) + few,
        head.replace(b"loop_", b"loop_\n" + b"\n".join(b"_column_%d" % i for i in range(50_000))),
        b"data_a\n" * 100_000 + CIFS[0],
        b"data_a\nloop_\n_atom_site_label\n" + b"Cu " * 2_000_000,
        b"'" * 1_000_000,
        b"\n;" * 500_000,
        b"data_a\n_x " + b"(" * 100_000,
        CIFS[0].replace(b"3.5841", b"3.5841e9"),
        CIFS[0].replace(b"3.5841", b"1e-9"),
    )


def _extxyz_case(rng: random.Random) -> dict[str, bytes]:
    seeds = extxyz_seeds()
    text = rng.choice(seeds)
    what = rng.random()
    if what < 0.03:
        text = rng.choice(HUGE) + b"\n" + text.split(b"\n", 1)[1]
    elif what < 0.06:
        text = text.replace(b"pos:R:3", b"pos:R:" + rng.choice(HUGE))
    elif what < 0.4:
        key = rng.choice((b"Lattice", b"Properties", b"pbc", b"a", b"occupancy", b"virial", b"stress", b"energy"))
        value = rng.choice(
            (
                *(b'"1 2 3"', b'"a b c"', b'""', b"{}", b'"[[1,2],[3"', b"[", b'{"a": [1, 2', b"T"),
                *(b'"nan ' + b"0 " * 8 + b'"',),
                *(b'"0 0 0 0 0 0 0 0 0"', b'"1e9 0 0 0 1e9 0 0 0 1e9"', b'"_JSON {\\"a\\": 1}"', b"_JSON", b"R:R:R"),
                *(b"species:S:1", b"species:S:1:pos:R:3:pos:R:3", b"species:S:1:pos:R:0"),
                *(b"species:S:1:pos:I:3", b"pos:R:-1", b"pos:Q:3"),
                *(b"species:S:1:pos:R:3:sublattice:I:1", b'"' + b"9" * 400 + b'"', *NUMBERS[:12]),
            )
        )  # fmt: skip
        lines = text.split(b"\n")
        lines[1] = rng.choice(
            (lines[1] + b" " + key + b"=" + value, key + b"=" + value, key + b"=" + value + b" " + lines[1])
        )
        text = b"\n".join(lines)
    else:
        text = mutate(text, rng, seeds)
    return {"alloy.xyz" if rng.random() < 0.5 else "alloy.extxyz": text}


def _other_case(rng: random.Random) -> dict[str, bytes]:
    seeds = other_seeds()
    name, data = rng.choice(seeds)
    if rng.random() < 0.1:
        name = rng.choice(seeds)[0]  # contents of another format
    elif rng.random() < 0.05:
        name = rng.choice(
            ("a.gz", "a.py", "a.pckl", "a.cif.gz", "a.traj.bz2", "a.in", "a", "a.txt", "a.exe", "a.nc", "a.gpw")
        )
    return {name: mutate(data, rng, [data for _, data in seeds])}


def _table_case(rng: random.Random) -> dict[str, bytes]:
    name, text = rng.choice((("measured.csv", MEASURED), ("vacancies.csv", VACANCIES)))
    return {name: mutate(text, rng, (MEASURED, VACANCIES))}


# -- using them -------------------------------------------------------------------------------------------------------

Reached = Callable[[], None]


def _beyond(error: BaseException, names: Sequence[str], reached: Reached) -> None:
    """Whether an error was raised inside one of the functions that come after the parser."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in names:
            reached()
            return
        trace = trace.tb_next


def _use_study(folder: Path, reached: Reached) -> None:
    from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction  # noqa: F401
    from ase_kinoson.measured import read_measured_diffusivity
    from ase_kinoson.vacancy_stage import check_vacancy_fraction

    try:
        study = Study.from_toml(folder / "study.toml", folder / "out")
    except KinosonError as error:
        _beyond(error, ("parse_settings",), reached)
        raise
    reached()
    _ = study.jumps
    check_vacancy_fraction(study)
    if study.settings.transport.measured is not None:
        read_measured_diffusivity(folder / study.settings.transport.measured)


def _use_structure(folder: Path, reached: Reached) -> None:
    (path,) = folder.iterdir()
    try:
        alloy = ak.Alloy.from_file(path)
    except KinosonError as error:
        _beyond(error, ("from_atoms", "from_structure"), reached)
        raise
    reached()
    ak.JumpNetwork.from_supercell(alloy.supercell(2))


def _use_table(folder: Path, reached: Reached) -> None:
    from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
    from ase_kinoson.measured import read_measured_diffusivity

    (path,) = folder.iterdir()
    if path.name == "measured.csv":
        read_measured_diffusivity(path)
        reached()
    else:
        found = VacancyFraction.from_table(path)
        reached()
        found.at(900.0)


@cache
def _network() -> ak.JumpNetwork:
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.6), {"Cu": {"Cu": 0.5, "Ni": 0.5}})
    return ak.JumpNetwork.from_supercell(alloy.supercell(2))


@cache
def _states_seeds() -> tuple[bytes, ...]:
    import tempfile

    states = ak.sample_states(_network().supercell, 3, method="random", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        states.write(Path(folder) / "states.extxyz")
        own = (Path(folder) / "states.extxyz").read_bytes()
    return own, _written(states.to_atoms(), "extxyz"), _written([a[:20] for a in states.to_atoms()], "extxyz")


def _states_case(rng: random.Random) -> dict[str, bytes]:
    seeds = _states_seeds()
    text = rng.choice(seeds)
    if rng.random() < 0.5:  # one label of one image
        lines = text.split(b"\n")
        i = rng.choice([i for i, line in enumerate(lines) if b"Lattice" in line])
        words = lines[i].split(b" ")
        j = rng.randrange(len(words))
        key, sign, _ = words[j].partition(b"=")
        words[j] = key + sign + rng.choice((*NUMBERS, *HUGE, b"T", b'"a b"', b'"1 2 3"', b"_JSON", b"{}", b"[[1]]"))
        lines[i] = b" ".join(words)
        text = b"\n".join(lines)
    else:
        text = mutate(text, rng, seeds)
    return {"states.extxyz": text}


def _use_states(folder: Path, reached: Reached) -> None:
    try:
        found = ak.States.read(folder / "states.extxyz", _network().supercell)
    except KinosonError as error:
        _beyond(error, ("_of_images",), reached)
        raise
    reached()
    assert len(found.to_atoms()) == len(found)


@cache
def _band_seeds() -> tuple[tuple[Atoms, ...], tuple[tuple[str, bytes], ...]]:
    """A band of three images with energies, and its files; and a folder of VASP."""
    cell = _network().supercell
    states = ak.sample_states(cell, 1, method="random", seed=0)
    start = cell.to_atoms(states.occupations[0], int(states.carriers[0]))
    target = int(_network().targets(states.carriers)[0, 0])
    atom = int(np.flatnonzero(start.arrays["site"] == target)[0])
    step = -_network().vectors[0, 0]
    images = []
    for i, energy in enumerate((0.0, 0.7, 0.1)):
        image = Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=True)
        image.positions[atom] += 0.5 * i * step
        image.calc = SinglePointCalculator(image, energy=energy, forces=np.zeros((len(image), 3)))
        images.append(image)
    files = tuple((f"band.{kind}", _written(images, kind)) for kind in ("traj", "extxyz"))
    return tuple(images), files


@cache
def _vasp_seeds() -> dict[str, bytes]:
    found = {}
    for i, image in enumerate(_band_seeds()[0]):
        energy = image.get_potential_energy()
        block = "\n".join("0.0 0.0 0.0 0.0 0.0 0.0" for _ in image)
        outcar = (
            f"energy  without entropy= {energy}  energy(sigma->0) = {energy}\n TOTAL-FORCE (eV/Angst)\n ---\n{block}\n"
        )
        found[f"{i:02d}/POSCAR"] = _written(image, "vasp")
        found[f"{i:02d}/OUTCAR"] = outcar.encode()
    return found


def _band_case(rng: random.Random) -> dict[str, bytes]:
    if rng.random() < 0.3:
        files = dict(_vasp_seeds())
        name = rng.choice(sorted(files))
        files[name] = mutate(files[name], rng, list(files.values()))
        if rng.random() < 0.2:
            del files[rng.choice(sorted(files))]
        return {f"bands/{name}": data for name, data in files.items()}
    files = _band_seeds()[1]
    name, data = rng.choice(files)
    return {f"bands/{name}": mutate(data, rng, [data for _, data in files])}


def _use_bands(folder: Path, reached: Reached) -> None:
    found = ak.import_bands(folder / "bands", _network())
    for refused in found.refused:  # every one a sentence
        text = str(refused)
        assert len(text) < 3000 and "Traceback" not in text and "MemoryError" not in text, text
        if "cannot be read" not in text and "cannot read" not in text:
            reached()
    if found.bands:
        reached()


# -- the command line -------------------------------------------------------------------------------------------------

WORDS = (
    *("run", "barriers", "fit", "transport", "report", "import", "map", "info", "completion", "help", "validate_"),
    *("study.toml", "alloy.extxyz", "nothing.toml", ".", "..", "/dev/zero", "/dev/null", "-", "--", "", "a\tb", "a\nb"),
    *("--out", "--workers", "--quiet", "--help", "--version", "-T", "--json", "--barrier", "--fmax", "--unwrap"),
    *("--energy-tolerance", "--step", "--limit", "--seed", "--effort", "--lattice-constants", "--model", "--force"),
    *("0", "-1", "1e400", "nan", "inf", "99999999999999999999", "1", "Cu=3.6", "n_jumps=0", "n_chains=99999999999"),
    *("bash", "zsh", "fish", "\udcff", "\x1b[31m", "A" * 5000, "../../x", "@file", "--out=/proc/x", "--out=study.toml"),
    *("é", "\u202e", "%s%n", "{0}", "$(touch written)", "--workers=0", "--workers=999999999999", "--fmax=nan"),
)  # fmt: skip


def _argument_case(rng: random.Random) -> dict[str, bytes]:
    words = rng.choice(
        (
            *(
                ["run", "study.toml"],
                ["barriers", "study.toml", "--out", "nothing/../x"],
                ["import", "study.toml", "bands"],
            ),
            *(["report", "."], ["map", "study.toml", "--model", "model"], ["info"], ["completion", "bash"], []),
        )
    )
    words = list(words)
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.randrange(len(words) + 1)
        if words and rng.random() < 0.5:
            words[min(i, len(words) - 1)] = rng.choice(WORDS)
        else:
            words.insert(i, rng.choice(WORDS))
    # a study that is read and refused: its structure is no crystal
    text = STUDIES[0].replace(b"alloy.extxyz", b"nothing.extxyz")
    return {"arguments": "\0".join(words).encode("utf-8", "surrogateescape"), "study.toml": text, **_beside()}


def _use_arguments(folder: Path, reached: Reached) -> None:
    """Exit status 2 and one line of the error stream, or what was asked for (help, versions)."""
    import os

    from ase_kinoson.cli import main

    words = (folder / "arguments").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    here = os.getcwd()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    finally:
        os.chdir(here)
    lines = [line for line in err.getvalue().splitlines() if not line.startswith(("usage:", " ", "note:"))]
    if status == 0:
        reached()
        return
    text = "\n".join(lines)
    assert status == 2, f"status {status}: {text[:300]}"
    if not ("expected" in text and ";" in text):  # argparse has its own words, and repeats what was typed
        raise KinosonError("found arguments that argparse refuses; expected others; see --help")
    assert len(lines) == 1 and lines[0] and text.isprintable(), text[:500]
    reached()
    raise KinosonError(text)


STUDY = Target("study", _study_case, _use_study)
CIF = Target("cif", _cif_case, _use_structure)
EXTXYZ = Target("extxyz", _extxyz_case, _use_structure)
OTHERS = Target("structures", _other_case, _use_structure)
TABLES = Target("tables", _table_case, _use_table)
STATES = Target("states", _states_case, _use_states)
BANDS = Target("bands", _band_case, _use_bands)
ARGUMENTS = Target("arguments", _argument_case, _use_arguments, loads_code=True)
ALL = (STUDY, CIF, EXTXYZ, OTHERS, TABLES, STATES, BANDS, ARGUMENTS)
