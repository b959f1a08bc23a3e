"""NEB results of others: bands made by ASE become barriers, broken ones are refused with the image and the reason."""

import gzip
import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, write
from ase.mep import NEB, interpolate
from ase.optimize import LBFGS

import ase_kinoson as ak
from ase_kinoson.barriers.bands import import_bands
from ase_kinoson.errors import BarrierError, KinosonWarning

JUMPS = {0: [0, 5, 9], 1: [2, 7], 2: [1, 4], 3: [3, 8]}
"""States and jumps with a band."""


def frozen(atoms, energy=None):
    """A copy that remembers energy and forces."""
    copy = atoms.copy()
    energy = atoms.get_potential_energy() if energy is None else energy
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=atoms.get_forces())
    return copy


def relax(atoms, fmax=0.02):
    atoms.calc = EMT()
    LBFGS(atoms, logfile=None, alpha=20).run(fmax=fmax, steps=200)
    return frozen(atoms)


def end_of(start, states, jumps, n, k):
    """The state after jump k, unrelaxed, with its atoms in the same order; and the atom that moves."""
    carrier = states.carriers[[n]]
    target = int(jumps.targets(carrier)[0, k])
    mover = int(np.flatnonzero(start.arrays["site"] == target)[0])
    end = start.copy()
    end.positions[mover] -= jumps.vectors[jumps.basis_of(carrier)[0], k]
    return end, mover


def run_neb(first, last, n_images, climb, trajectory=None):
    images = [first.copy() for _ in range(n_images + 1)] + [last.copy()]
    images[0].calc, images[-1].calc = first.calc, last.calc
    for image in images[1:-1]:
        image.calc = EMT()
    neb = NEB(images, climb=climb, method="improvedtangent")
    neb.interpolate(mic=True)
    LBFGS(neb, logfile=None, alpha=20, trajectory=trajectory).run(fmax=0.05, steps=100)
    return [frozen(image) for image in images]


@pytest.fixture(scope="module")
def study():
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell((2, 2, 2))
    return ak.sample_states(cell, len(JUMPS), seed=3), ak.JumpNetwork.from_supercell(cell)


@pytest.fixture(scope="module")
def bands(study):
    """(state, jump) → images of a band with one climbing image."""
    states, jumps = study
    made = {}
    for n, own in JUMPS.items():
        start = relax(states.to_atoms()[n])
        for k in own:
            made[n, k] = run_neb(start, relax(end_of(start, states, jumps, n, k)[0]), 1, climb=True)
    return made


@pytest.fixture(scope="module")
def folder(bands, tmp_path_factory):
    path = tmp_path_factory.mktemp("bands")
    for (n, k), images in bands.items():
        (path / f"state{n}").mkdir(exist_ok=True)
        write(path / f"state{n}" / f"jump{k}.xyz", images, format="extxyz")
    (path / "notes.txt").write_text("no band")
    return path


@pytest.fixture(scope="module")
def reference(study):
    states, jumps = study
    return ak.compute_barriers(states, jumps, EMT, jumps=JUMPS, settings=ak.SaddleSettings(verify=False))


def changed(images, energies=None):
    """Copies with the same energies and forces, or with other energies."""
    energies = [image.get_potential_energy() for image in images] if energies is None else energies
    return [frozen(image, energy) for image, energy in zip(images, energies, strict=True)]


def moved(image, new):
    """The same energy and forces at other positions."""
    copy = frozen(image)
    forces, energy = image.get_forces(), image.get_potential_energy()
    copy.positions = new
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def rebuilt(image, atoms):
    """Energy and (no) forces of an image for other atoms."""
    atoms.calc = SinglePointCalculator(atoms, energy=image.get_potential_energy())
    return atoms


def refusal(images, jumps, **options):
    """The one refusal of a band."""
    with pytest.warns(KinosonWarning, match="1 of 1 bands are refused"):
        found = import_bands({"broken": images}, jumps, **options)
    assert not found.bands and len(found.barriers) == 0
    (one,) = found.refused
    assert one.name == "broken" and one.reason.count("expected") == 1
    return one


# -- what a folder gives --------------------------------------------------------------------------------------------


def test_barriers_of_a_folder_are_those_of_the_package(study, folder, reference):
    states, jumps = study
    found = import_bands(folder, jumps)
    assert not found.refused and len(found.bands) == len(bands_of(JUMPS))
    barriers = found.barriers
    rows = barriers.rows(states.occupations, states.carriers)
    asked = np.array(bands_of(JUMPS))
    own = rows[asked[:, 0]], asked[:, 1]
    known = asked[:, 0], asked[:, 1]
    # one loosely converged climbing image lies a little above the saddle
    difference = barriers.barrier[own] - reference.barrier[known]
    assert np.abs(difference).max() < 0.004
    assert np.abs(barriers.delta_e[own] - reference.delta_e[known]).max() < 0.002
    assert np.abs(barriers.energy_initial[rows] - reference.energy_initial).max() < 0.002
    # broken twin: forward and reverse exchanged
    assert np.abs(barriers.reverse_barrier[own] - reference.barrier[known]).max() > 0.02
    assert all(band.fmax < 0.06 and abs(band.spline) < 1e-3 for band in found.bands)


def bands_of(jumps):
    return [(n, k) for n, own in jumps.items() for k in own]


def test_both_directions_of_a_band_are_entries_of_their_states(study, bands):
    states, jumps = study
    barriers = import_bands(list(bands.values()), jumps).barriers
    for n, k in bands:
        after, carrier = jumps.apply(states.occupations[[n]], states.carriers[[n]], [k])
        row, end = barriers.rows(states.occupations[[n]], states.carriers[[n]])[0], barriers.rows(after, carrier)[0]
        back = jumps.reverse[jumps.basis_of(states.carriers[[n]])[0], k]
        assert barriers.valid[row, k] and barriers.valid[end, back]
        assert barriers.barrier[row, k] == barriers.reverse_barrier[end, back]
        assert barriers.delta_e[row, k] == pytest.approx(-barriers.delta_e[end, back], abs=1e-12)
        assert barriers.states.groups[row] == barriers.states.groups[end]
    assert len(np.unique(barriers.states.groups)) == len(JUMPS)


def test_jumps_without_a_band_are_neither_rejected_nor_infinitely_high(study, folder, tmp_path):
    _, jumps = study
    barriers = import_bands(folder, jumps).barriers
    assert barriers.n_rejected == {} and barriers.n_barriers == 2 * len(bands_of(JUMPS))
    failed, absent = barriers.missing(barriers.states.occupations, barriers.states.carriers)
    assert not failed.any() and absent.sum() == barriers.barrier.size - barriers.n_barriers
    ak.save_barriers(tmp_path / "bands.npz", barriers)
    again = ak.load_barriers(tmp_path / "bands.npz")
    assert np.array_equal(again.status, barriers.status)
    assert np.abs(again.barrier[barriers.valid] - barriers.barrier[barriers.valid]).max() < 2e-6


def test_from_bands_to_a_diffusivity(study, folder, reference):
    states, jumps = study
    imported = import_bands(folder, jumps).barriers
    values = []
    for barriers in (imported, reference, shifted(imported, 0.05)):
        model = ak.BarrierModel.fit(barriers, hidden=0, test_fraction=0, validation_fraction=0.2, epochs=0, seed=0)
        sample = ak.sample_states(
            states.supercell, 12, method="monte-carlo", model=model, temperature_K=1200, seed=4, ensemble="quenched"
        )
        values.append(ak.transport(sample, jumps, model, None, temperature_K=1200).vacancy_diffusivity.value)
    assert model.report["n_barriers"] == imported.n_barriers
    assert values[0] == pytest.approx(values[1], rel=0.08, abs=0)
    assert values[2] != pytest.approx(values[1], rel=0.08, abs=0)  # broken twin: all barriers 50 meV too high


def shifted(barriers, by):
    return ak.Barriers.from_arrays(
        barriers.states,
        barriers.network,
        barriers.barrier + by,
        reverse_barrier=barriers.reverse_barrier + by,
        energy_initial=barriers.energy_initial,
        status=barriers.status,
    )


def synthetic(states, jumps, k):
    """A band on ideal sites: the first state, its jump k, energies 0, 0.4 and 0.1 eV."""
    start = states.to_atoms()[0]
    carrier = states.carriers[[0]]
    guest = jumps.mechanism == "interstitial"
    site = carrier[0] if guest else jumps.targets(carrier)[0, k]
    mover = int(np.flatnonzero(start.arrays["site"] == site)[0])
    way = (1 if guest else -1) * jumps.vectors[jumps.basis_of(carrier)[0], k]
    images = []
    for part, energy in ((0, 0.0), (0.5, 0.4), (1, 0.1)):
        image = start.copy()
        image.positions[mover] += part * way
        image.calc = SinglePointCalculator(image, energy=energy)
        images.append(image)
    return images


@pytest.mark.parametrize("lattice", ["hcp", "bcc", "interstitial", "square"])
def test_any_lattice(lattice, tiny):
    if lattice == "square":
        cell, jumps = tiny
    else:
        parent = bulk("Ti", "hcp", a=2.95, c=4.68) if lattice == "hcp" else bulk("Fe", "bcc", a=2.87, cubic=True)
        symbol = parent.symbols[0]
        alloy = ak.Alloy.from_atoms(parent, {symbol: {symbol: 0.7, "Zr": 0.3}})
        cell = alloy.supercell(3)
        given = {"mechanism": "interstitial", "sites": "tetrahedral", "species": "H"}
        jumps = ak.JumpNetwork.from_supercell(cell, **(given if lattice == "interstitial" else {}))
    states = ak.sample_states(jumps.supercell, 1, seed=1)
    own = np.flatnonzero(jumps.exists[jumps.basis_of(states.carriers)[0]])
    barriers = import_bands([synthetic(states, jumps, k) for k in own], jumps).barriers
    row = barriers.rows(states.occupations, states.carriers)[0]
    assert np.allclose(barriers.barrier[row, own], 0.4) and np.allclose(barriers.delta_e[row, own], 0.1)
    for k in own:
        after, carrier = jumps.apply(states.occupations, states.carriers, [k])
        back = jumps.reverse[jumps.basis_of(states.carriers)[0], k]
        assert barriers.barrier[barriers.rows(after, carrier)[0], back] == pytest.approx(0.3)
    assert barriers.n_barriers == 2 * len(own)


# -- what must not matter -------------------------------------------------------------------------------------------


def same_entries(one, other):
    """Whether two imports of one band hold the same jumps with the same barriers."""
    a, b = one.barriers, other.barriers
    rows = a.rows(b.states.occupations, b.states.carriers)
    return len(a) == len(b) and np.allclose(a.barrier[rows], b.barrier, atol=1e-9, rtol=0)


def test_direction_origin_and_common_order_do_not_matter(study, bands):
    _, jumps = study
    images = bands[0, 5]
    plain = import_bands(images, jumps)
    assert same_entries(plain, import_bands(images[::-1], jumps))
    order = np.random.default_rng(0).permutation(len(images[0]))
    ordered = [rebuilt(image, image[order]) for image in images]
    assert same_entries(plain, import_bands(ordered, jumps))
    drifting = [moved(image, image.positions + 0.6 * i) for i, image in enumerate(images)]
    assert same_entries(plain, import_bands(drifting, jumps))
    # broken twin: a reversed list of energies belongs to other states
    energies = [image.get_potential_energy() for image in images]
    assert not same_entries(plain, import_bands(changed(images, energies[::-1]), jumps))


def test_a_translated_band_belongs_to_the_same_states(study, bands):
    _, jumps = study
    shift = jumps.supercell.alloy.cell[0]
    one, other = bands[0, 0], bands[0, 5]
    away = [moved(image, image.positions + shift) for image in other]
    together = import_bands([one, away], jumps)
    assert len(together.barriers) == 3  # one common state and two ends
    assert same_entries(import_bands([one, other], jumps), together)


def test_the_last_step_of_an_optimisers_trajectory_counts(study, bands, tmp_path):
    _, jumps = study
    images = bands[1, 2]
    run = run_neb(images[0], images[-1], 1, climb=True, trajectory=str(tmp_path / "neb.traj"))
    with Trajectory(tmp_path / "neb.traj") as steps:
        assert len(steps) > 2 * len(images)
    (band,) = import_bands(tmp_path, jumps).bands
    assert band.barrier == pytest.approx(run[1].get_potential_energy() - run[0].get_potential_energy(), abs=1e-9)


def test_highest_image_or_spline(study, bands):
    """Two images without climbing miss the saddle; a curve with the true forces, or a plain one, finds most of it."""
    _, jumps = study
    images = bands[0, 5]
    coarse = run_neb(images[0], images[-1], 2, climb=False)
    (exact,) = import_bands(images, jumps).bands
    (low,) = import_bands(coarse, jumps).bands
    (curve,) = import_bands(coarse, jumps, barrier="spline").bands
    assert exact.barrier - low.barrier > 0.05 and low.spline > 0.05
    assert curve.barrier == pytest.approx(low.barrier + low.spline, abs=1e-9)
    assert abs(curve.barrier - exact.barrier) < 0.5 * abs(low.barrier - exact.barrier)


# -- pymatgen and VASP ----------------------------------------------------------------------------------------------


def vasp_folder(path, images):
    """What VASP leaves of a band, as far as it is read; positions folded into the cell."""
    for i, image in enumerate(images):
        place = path / f"{i:02d}"
        place.mkdir(parents=True)
        atoms = image.copy()
        atoms.wrap()
        end = i in (0, len(images) - 1)
        write(place / ("POSCAR" if end else "CONTCAR"), atoms, format="vasp", direct=True, sort=False)
        rows = [
            " ".join(f"{x:14.8f}" for x in [*p, *f]) for p, f in zip(atoms.positions, image.get_forces(), strict=True)
        ]
        energy = image.get_potential_energy()
        lines = [
            " POSITION                                       TOTAL-FORCE (eV/Angst)",
            " " + "-" * 83,
            *rows,
            " " + "-" * 83,
            f"  energy  without entropy= {energy:16.8f}  energy(sigma->0) = {energy:16.8f}",
            "  tangential force (eV/A)   0.000000",
            " General timing and accounting informations for this job:",
            "                            Elapsed time (sec):        1.000",
        ]
        head = [
            "   number of bands    NBANDS=    200",
            "   total plane-waves  NPLWV =  10000",
            "   IBRION =      3",
            *("", "", "-" * 104, "", ""),  # a table that pymatgen reads (2024.11 cannot do without)
            " k-point  1 :   0.0000 0.0000 0.0000  plane waves:    9000",
            "",
            " maximum and minimum number of plane-waves per node :     9000     9000",
        ]
        stale = "  energy  without entropy=        1.0  energy(sigma->0) =        1.0"  # of an earlier step
        (place / "OUTCAR").write_text("\n".join([*head, stale, *lines]) + "\n")


def test_vasp_folders_and_nebanalysis(study, bands, tmp_path):
    from pymatgen.analysis.transition_state import NEBAnalysis

    _, jumps = study
    own = {key: bands[key] for key in ((0, 0), (0, 5))}
    for (n, k), images in own.items():
        vasp_folder(tmp_path / f"{n}_{k}", images)
    expected = import_bands(list(own.values()), jumps)
    found = import_bands(tmp_path, jumps, fmax=0.1)
    assert not found.refused
    rows = expected.barriers.rows(found.barriers.states.occupations, found.barriers.states.carriers)
    known = found.barriers.valid
    assert np.array_equal(known, expected.barriers.valid[rows])
    assert np.allclose(found.barriers.barrier[known], expected.barriers.barrier[rows][known], atol=1e-7, rtol=0)
    # the same folder, read by pymatgen
    analyses = [NEBAnalysis.from_dir(tmp_path / f"{n}_{k}") for n, k in own]
    read = import_bands(analyses, jumps)
    assert np.allclose(read.barriers.barrier[known], found.barriers.barrier[known], atol=1e-7, rtol=0)
    spline = import_bands(analyses[0], jumps, barrier="spline").bands[0]
    fine = np.linspace(0, analyses[0].r[-1], 20001)
    assert spline.barrier == pytest.approx(analyses[0].spline(fine).max(), abs=1e-7)
    assert "forces are not known" in refusal(analyses[0], jumps, fmax=0.1).reason


def test_broken_vasp_folders(study, bands, tmp_path):
    _, jumps = study
    vasp_folder(tmp_path / "a", bands[0, 0])
    outcar = tmp_path / "a" / "02" / "OUTCAR"
    with gzip.open(f"{outcar}.gz", "wt") as stream:
        stream.write(outcar.read_text())
    outcar.unlink()
    assert len(import_bands(tmp_path / "a", jumps).bands) == 1
    outcar.with_suffix(".gz").unlink()
    with pytest.warns(KinosonWarning):
        (one,) = import_bands(tmp_path / "a", jumps).refused
    assert one.image == 2 and "no OUTCAR in 02" in one.reason
    vasp_folder(tmp_path / "b", bands[0, 0])
    (tmp_path / "b" / "01" / "OUTCAR").write_text("stopped in the first electronic step\n")
    with pytest.warns(KinosonWarning):
        (one,) = import_bands(tmp_path / "b", jumps).refused
    assert one.image == 1 and "energy(sigma->0)" in one.reason
    vasp_folder(tmp_path / "c", bands[0, 0])
    (tmp_path / "c" / "01").rename(tmp_path / "c" / "07")
    with pytest.warns(KinosonWarning):
        (one,) = import_bands(tmp_path / "c", jumps).refused
    assert one.image is None and "without a gap" in one.reason


# -- bands that are refused -----------------------------------------------------------------------------------------


def test_changed_order_of_atoms(study, bands):
    _, jumps = study
    images = bands[0, 5]
    still = [a for a in range(31) if np.linalg.norm(images[-1].positions[a] - images[0].positions[a]) < 0.5]
    cu = [a for a in still if images[0].symbols[a] == "Cu"][:2]
    ni = next(a for a in still if images[0].symbols[a] == "Ni")

    def swapped(image, pair):
        order = np.arange(len(image))
        order[pair] = order[pair[::-1]]
        return order

    last = moved(images[2], images[2].positions[swapped(images[2], cu)])
    one = refusal([*images[:2], last], jumps, unwrap=True)
    assert one.image == 2 and "the order of the atoms differs" in one.reason
    last = rebuilt(images[2], images[2][swapped(images[2], [cu[0], ni])])
    one = refusal([*images[:2], last], jumps)
    assert one.image == 2 and "expected the same order of atoms in all images" in one.reason
    middle = moved(images[1], images[1].positions[swapped(images[1], cu)])
    one = refusal([images[0], middle, images[2]], jumps, unwrap=True)
    assert one.image == 1 and "from its site while" in one.reason
    assert any(f"atom {a} (Cu)" in one.reason for a in cu)


def test_lattice_vectors_between_images(study, bands):
    _, jumps = study
    images = bands[0, 5]
    far = images[1].positions.copy()
    far[4] += images[1].cell[0] - images[1].cell[2]
    broken = [images[0], moved(images[1], far), images[2]]
    one = refusal(broken, jumps)
    assert one.image == 1 and "atom 4" in one.reason and "[1, 0, -1]" in one.reason
    assert same_entries(import_bands(images, jumps), import_bands(broken, jumps, unwrap=True))


def test_the_long_way_around_the_cell(study, bands):
    """What ASE's interpolation makes of an end folded into the cell, unless it is told to use minimum images."""
    states, jumps = study
    images = bands[0, 5]
    _, mover = end_of(states.to_atoms()[0], states, jumps, 0, 5)
    folded = images[-1].copy()
    folded.positions[mover] += np.sign(images[0].positions[mover, 0] - folded.positions[mover, 0]) * folded.cell[0]
    for minimum, refused in ((False, True), (True, False)):
        band = [images[0].copy() for _ in range(8)] + [folded.copy()]
        interpolate(band, mic=minimum)
        if minimum:
            band[-1].positions[mover] = images[-1].positions[mover]
        heights = [0, 0.1, 0.3, 0.5, 0.8, 0.5, 0.3, 0.1, 0]
        energies = [images[0].get_potential_energy() + height for height in heights]
        for image, energy in zip(band, energies, strict=True):
            image.calc = SinglePointCalculator(image, energy=energy)
        if refused:
            one = refusal(band, jumps)
            assert one.image == 8 and f"atom {mover}" in one.reason and "long way around the cell" in one.reason
        else:
            assert len(import_bands(band, jumps).bands) == 1


def test_jumps_of_a_pure_crystal_are_those_of_one_state():
    jumps = ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(bulk("Cu", cubic=True)).supercell(2))
    states = ak.sample_states(jumps.supercell, 1, seed=0)
    made = [synthetic(states, jumps, k) for k in (0, 3)]
    level = [changed_energy(images, [0, 0.7, 0]) for images in made]
    barriers = import_bands(level, jumps).barriers
    assert len(barriers) == 1 and barriers.n_barriers == 4 and np.allclose(barriers.barrier[barriers.valid], 0.7)
    # broken twin: all states are one, so that the ends cannot differ in energy
    one = refusal(made[0], jumps)
    assert "0.0000 eV" in one.reason and "0.1000 eV" in one.reason


def changed_energy(images, energies):
    copies = [image.copy() for image in images]
    for image, energy in zip(copies, energies, strict=True):
        image.calc = SinglePointCalculator(image, energy=energy)
    return copies


def test_other_moves_than_one_jump(study, bands):
    states, jumps = study
    images = bands[0, 5]
    cell, start = states.supercell, states.to_atoms()[0]
    carrier = jumps.targets(states.carriers[[0]])[:, 5]
    end, mover = end_of(start, states, jumps, 0, 5)

    def band(last):
        middle = start.copy()
        middle.positions = 0.5 * (start.positions + last.positions)
        return [rebuilt(image, atoms) for image, atoms in zip(images, (start.copy(), middle, last), strict=True)]

    assert not import_bands(band(end.copy()), jumps).refused
    two = end.copy()  # a second atom follows the first
    k = next(k for k in range(jumps.n_jumps) if jumps.targets(carrier)[0, k] != states.carriers[0])
    second = int(np.flatnonzero(start.arrays["site"] == jumps.targets(carrier)[0, k])[0])
    two.positions[second] -= jumps.vectors[0, k]
    one = refusal(band(two), jumps)
    assert one.image == 2 and "2 atoms have changed sites" in one.reason and "one jump each" in one.reason
    distance = np.linalg.norm(cell.minimum_image(start.positions - cell.positions[states.carriers[0]]), axis=1)
    far = start.copy()
    a = int(np.argmin(np.abs(distance - 3.58)))  # a second neighbour
    far.positions[a] -= cell.minimum_image(start.positions[a] - cell.positions[states.carriers[0]])
    one = refusal(band(far), jumps)
    assert one.image == 2 and "moves 3.58 Å" in one.reason and "not next to it" in one.reason
    one = refusal(band(start.copy()), jumps)
    assert one.image == 2 and "every atom is on the site" in one.reason
    half = start.copy()
    half.positions[mover] = 0.5 * (start.positions[mover] + end.positions[mover])
    one = refusal(band(half), jumps)
    assert one.image == 2 and f"atom {mover}" in one.reason
    onto = start.copy()
    neighbour = int(np.argsort(np.linalg.norm(cell.minimum_image(start.positions - start.positions[a]), axis=1))[1])
    onto.positions[a] += cell.minimum_image(start.positions[neighbour] - start.positions[a])
    one = refusal(band(onto), jumps)
    assert one.image == 2 and "are both at site" in one.reason


def test_other_atoms_and_cells(study, bands):
    _, jumps = study
    images = bands[0, 5]

    def every(change):
        return [rebuilt(image, change(image.copy())) for image in images]

    def silver(atoms):
        atoms.symbols[3] = "Ag"
        return atoms

    def wide(atoms):
        atoms.set_cell(1.03 * np.array(atoms.cell), scale_atoms=True)
        return atoms

    def open_ends(atoms):
        atoms.pbc = (True, True, False)
        return atoms

    one = refusal(every(silver), jumps)
    assert one.image == 0 and "Ag" in one.reason
    one = refusal(every(lambda atoms: atoms[:-1]), jumps)
    assert one.image == 0 and "2 vacancies" in one.reason
    one = refusal([*images[:2], rebuilt(images[2], images[2][:-1])], jumps)
    assert one.image == 2 and "found 30 atoms and 31" in one.reason
    one = refusal(every(wide), jumps)
    assert one.image == 0 and "within 1 %" in one.reason
    assert len(import_bands(every(wide), jumps, cell_tolerance=0.05).bands) == 1
    one = refusal([*images[:2], rebuilt(images[2], wide(images[2].copy()))], jumps, cell_tolerance=0.05)
    assert one.image == 2 and "differs from that of image 0" in one.reason
    assert "pbc" in refusal(every(open_ends), jumps).reason


def test_energies_and_forces(study, bands):
    _, jumps = study
    images = bands[0, 5]
    low, top, end = (image.get_potential_energy() for image in images)
    one = refusal([images[0], images[1].copy(), images[2]], jumps)
    assert one.image == 1 and "no energy" in one.reason
    one = refusal(changed(images, [low, np.nan, end]), jumps)
    assert one.image == 1 and "not a number" in one.reason
    one = refusal(changed(images, [low, top, top + 0.1]), jumps)
    assert one.image == 2 and "maximum between" in one.reason
    longer = [images[0], images[0], images[1], images[2]]
    one = refusal(changed(longer, [low, low - 0.05, top, end]), jumps)
    assert one.image == 0 and "image 1 lies 0.0500 eV below" in one.reason
    one = refusal(images, jumps, fmax=0.001)
    assert one.image == 0 and "at most 0.001" in one.reason
    one = refusal([images[0], rebuilt(images[1], images[1].copy()), images[2]], jumps, fmax=0.1)
    assert one.image == 1 and "forces are not known" in one.reason
    assert "found 1 image;" in refusal(images[:1], jumps).reason
    assert "found 2 images;" in refusal(images[::2], jumps).reason


def test_bands_that_contradict_each_other(study, bands):
    _, jumps = study
    three = {k: bands[0, k] for k in (0, 5, 9)}
    energies = [image.get_potential_energy() for image in three[5]]
    turned = {**three, 5: changed(three[5], energies[::-1])}  # energies of the reversed band
    assert abs(energies[0] - energies[-1]) > 0.02
    with pytest.warns(KinosonWarning, match="1 of 3"):
        found = import_bands({f"jump {k}": images for k, images in turned.items()}, jumps)
    (one,) = found.refused
    assert one.name == "jump 5" and one.image == 0 and "in jump 0" in one.reason
    assert [band.name for band in found.bands] == ["jump 0", "jump 9"]
    with pytest.warns(KinosonWarning, match="2 of 2"):  # of two nobody knows which is right
        found = import_bands({f"jump {k}": turned[k] for k in (0, 5)}, jumps)
    assert len(found.refused) == 2
    # two paths of one jump, one of them backwards
    higher = changed(three[5][::-1], [energies[2], energies[1] + 0.1, energies[0]])
    with pytest.warns(KinosonWarning, match="1 of 2"):
        found = import_bands({"high": higher, "low": three[5]}, jumps)
    (one,) = found.refused
    assert one.name == "high" and one.image == 1 and "0.1000 eV lower" in one.reason
    assert same_entries(import_bands(three[5], jumps), found)
    assert "1 refused" in str(found) and "high, image 1: " in str(found)


def test_unreadable_files_are_listed_and_nothing_found_is_an_error(study, bands, tmp_path):
    _, jumps = study
    write(tmp_path / "good.xyz", bands[0, 0], format="extxyz")
    (tmp_path / "bad.traj").write_bytes(b"- of Ulm no longer")
    with pytest.warns(KinosonWarning, match="1 of 2"):
        found = import_bands(tmp_path, jumps)
    assert found.refused[0].name.endswith("bad.traj") and found.refused[0].image is None
    assert "cannot be read" in found.refused[0].reason and len(found.bands) == 1
    (tmp_path / "empty").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong, text in (
            (tmp_path / "empty", "found no band"),
            (tmp_path / "absent", "no file or folder"),
            (3, "type int"),
        ):
            with pytest.raises(BarrierError, match=text):
                import_bands(wrong, jumps)
        with pytest.raises(BarrierError, match="'highest' or 'spline'"):
            import_bands(bands[0, 0], jumps, barrier="best")
