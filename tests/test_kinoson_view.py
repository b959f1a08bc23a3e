"""Kinosons as arrows: numbers, geometry, files and pictures."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace

import ase.io
import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry import find_mic
from monty.json import MontyDecoder

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinoson_arrows import KinosonArrows
from ase_kinoson.kinoson_scene import scene, widest
from ase_kinoson.kinoson_view import _points_per_angstrom, plot_kinosons_3d, view_kinosons_3d
from ase_kinoson.plotting import species_colors

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SQUARE = Atoms("Cu", cell=[2.5, 2.5, 10.0], pbc=(True, True, False))
GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0, "Ni": 0.003})


def evaluate(atoms, composition, size, source, temperature_K=None, *, sites=None, n=30):
    alloy = ak.Alloy.from_atoms(atoms, {atoms[0].symbol: composition})
    if sites:
        alloy = alloy.with_interstitials("C", sites)
    network = ak.JumpNetwork.from_supercell(alloy.supercell(size))
    states = ak.sample_states(network.supercell, n, seed=4)
    return ak.transport(states, network, source, None, temperature_K, n_resamples=20)


@pytest.fixture(scope="module")
def results():
    mixed = {"Cu": 0.5, "Ag": 0.3, "Ni": 0.2}
    host = {"Fe": 0.8, "Cr": 0.2}
    return {
        "fcc": evaluate(bulk("Cu", cubic=True), mixed, 2, GAS),
        "bcc": evaluate(bulk("Cu", "bcc", a=2.9, cubic=True), mixed, 3, GAS),
        "hcp": evaluate(bulk("Cu", "hcp", a=2.6, c=4.2), mixed, (3, 3, 2), GAS),
        "square": evaluate(SQUARE, mixed, (5, 5, 1), GAS),
        "carbon": evaluate(bulk("Fe", cubic=True), host, 3, ak.RandomBarriers(0.8, 0.1), 600.0, sites="octahedral"),
    }


LATTICES = ("fcc", "bcc", "hcp", "square", "carbon")


def finish(axes):
    figure = axes.figure
    figure.canvas.draw()
    plt.close(figure)


# -- numbers ----------------------------------------------------------------------------------------------------------


def sum_of_state(arrows, result, i):
    table = result.kinosons
    who = "carrier" if "kinoson_carrier" in table.columns else "vacancy"
    own = table["state"] == i
    assert arrows.total == pytest.approx(table[f"kinoson_{who}"][own].sum() * 1e-20, rel=1e-12, abs=0)


@pytest.mark.parametrize("lattice", LATTICES)
def test_arrows_of_a_state_are_its_rows_of_the_table(results, lattice):
    result = results[lattice]
    for i in (0, 7):
        arrows = KinosonArrows.of_state(result, i)
        sum_of_state(arrows, result, i)
        with pytest.raises(AssertionError):
            sum_of_state(arrows, result, i + 1)  # the check tells states apart
        assert sum(arrows.share_by_species.values()) == pytest.approx(1.0)
    means = [KinosonArrows.of_state(result, i).total for i in range(len(result.states))]
    assert result.states.weights @ means == pytest.approx(float(result.vacancy_diffusivity), rel=1e-12, abs=0)
    assert KinosonArrows.of_state(result, -1).label == f"state {len(means) - 1}"


@pytest.mark.parametrize("lattice", LATTICES)
def test_arrows_of_the_average_lattice_add_up_to_the_diffusivity(results, lattice):
    result = results[lattice]
    arrows, smooth = KinosonArrows.average(result), KinosonArrows.average(result, symmetric=True)
    for one in (arrows, smooth):
        assert one.total == pytest.approx(float(result.vacancy_diffusivity), rel=1e-12, abs=0)
        density = ak.KinosonDensity.from_result(result)
        for s, share in density.share_by_species().items():
            assert one.share_by_species.get(s, 0.0) == pytest.approx(float(share))
    assert len(arrows) == len(smooth)
    alike = np.unique(np.linalg.norm(arrows.vector, axis=1).round(4), return_inverse=True)[1] == 0
    alike &= arrows.species == arrows.species[0]
    spread = {k: np.ptp(a.contribution[alike]) / a.total for k, a in (("raw", arrows), ("sym", smooth))}
    assert spread["sym"] < 1e-12 < spread["raw"]  # few states: directions differ, unless they are made alike


def test_average_knows_rows_of_one_basis_site_and_species(results):
    result = results["hcp"]
    table, basis = result.kinosons, result.network.basis_of(result.states.carriers)
    arrows = KinosonArrows.average(result)
    starts = np.unique(arrows.start.round(6), axis=0)
    assert len(starts) == 2
    np.testing.assert_allclose(starts.sum(axis=0), 0.0, atol=1e-9)
    first = arrows.start[0]
    for s in ("Cu", "Ag", "Ni"):
        rows = (basis[table["state"]] == 0) & (table["species"] == s)
        drawn = (np.abs(arrows.start - first).max(axis=1) < 1e-9) & (arrows.species == s)
        expected = (table["weight"] * table["kinoson_vacancy"])[rows].sum() * 1e-20
        assert arrows.contribution[drawn].sum() == pytest.approx(expected, rel=1e-12, abs=0)


def test_relaxed_displacements_and_tracers_count(tiny, pair_model):
    exact = ak.exact_transport(*tiny, pair_model, 600.0)
    arrows = KinosonArrows.average(exact)
    assert arrows.total == pytest.approx(float(exact.vacancy_diffusivity), rel=1e-9, abs=0)
    bare = (exact.kinosons["weight"] * exact.kinosons["uncorrelated"]).sum() * 1e-20
    assert arrows.total < 0.99 * bare
    sampled = ak.transport(exact.states, tiny[1], pair_model, None, 600.0, n_resamples=20)
    tracer = KinosonArrows.average(sampled, quantity="tracer_Cu")
    fraction = sampled.composition.fractions[sampled.composition.species.index("Cu")]
    expected = float(sampled.tracer_diffusivity["Cu"]) * float(fraction)
    assert tracer.total == pytest.approx(expected, rel=1e-9, abs=0)
    assert KinosonArrows.average(sampled, quantity="Ag").total != pytest.approx(tracer.total, rel=1e-3, abs=0)
    mean = arrows.contribution @ arrows.barrier / arrows.total
    density = ak.KinosonDensity.from_result(exact)
    assert mean == pytest.approx(density.contribution @ density.barrier / density.total)


def test_frozen_arrangements_have_an_average(results):
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.7, "W": 0.3}})
    network = ak.JumpNetwork.from_supercell(alloy.supercell(3))
    states = ak.sample_states(network.supercell, 3, seed=0)
    static = ak.static_transport(states, network, ak.SpeciesRates({"Cu": 1.0, "W": 0.0}), n_resamples=20)
    arrows = KinosonArrows.average(static)
    assert arrows.total == pytest.approx(float(static.vacancy_diffusivity), rel=1e-9, abs=0)
    with pytest.raises(KinosonError, match="does not hold its states"):
        KinosonArrows.of_state(static, 0)


# -- geometry ---------------------------------------------------------------------------------------------------------


def goes_where_it_says(arrows, result, i):
    """Every arrow is the shortest way to a site, and who moves sits where the jump says (ASE's minimum image)."""
    states, cell = result.states, result.states.supercell
    own = cell.positions - cell.positions[states.carriers[i]]
    ideal = find_mic(own, cell.cell, cell.pbc)[0]
    for vector, species in zip(arrows.vector, arrows.species, strict=True):
        distance = np.linalg.norm(find_mic(ideal - vector, cell.cell, cell.pbc)[0], axis=1)
        site = int(distance.argmin())
        assert distance[site] < 1e-6
        assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(ideal[site]))
        mover = states.carriers[i] if arrows.mechanism == "interstitial" else site
        assert cell.species[states.occupations[i, mover]] == species


@pytest.mark.parametrize("lattice", LATTICES)
def test_vectors_are_minimum_images_and_species_those_that_move(results, lattice):
    result = results[lattice]
    arrows = KinosonArrows.of_state(result, 2)
    goes_where_it_says(arrows, result, 2)
    for broken in (
        replace(arrows, vector=arrows.vector * 1.02),
        replace(arrows, species=np.roll(np.where(arrows.species == "Cu", "Ag", "Cu"), 1)),
    ):
        with pytest.raises(AssertionError):
            goes_where_it_says(broken, result, 2)
    length = np.linalg.norm(arrows.positions, axis=1)
    assert length.max() <= np.linalg.norm(result.network.supercell.cell.sum(axis=0))
    np.testing.assert_allclose(length, np.linalg.norm(find_mic(arrows.positions, arrows.cell, arrows.pbc)[0], axis=1))


def test_all_jumps_lead_to_drawn_sites(results):
    for result in results.values():
        arrows = KinosonArrows.average(result)
        ends = arrows.start + arrows.vector
        gap = find_mic((ends[:, None] - arrows.positions).reshape(-1, 3), arrows.cell, arrows.pbc)[1]
        assert gap.reshape(len(ends), -1).min(axis=1).max() < 1e-6


def test_only_arrows_of_one_jump_stand_apart(results):
    assert not KinosonArrows.of_state(results["fcc"], 0).fan.any()
    arrows = KinosonArrows.average(results["fcc"])
    fan = arrows.fan
    np.testing.assert_allclose(np.einsum("ij,ij->i", fan, arrows.vector), 0.0, atol=1e-9)
    places = np.hstack([arrows.start + fan, arrows.vector]).round(5)
    assert len(np.unique(places, axis=0)) == len(arrows)
    assert not fan[arrows.contribution.argmax()].any()


# -- files ------------------------------------------------------------------------------------------------------------


def jumps_into_the_vacancy(atoms):
    """Each atom that jumps ends where no atom is: at the origin, up to a period."""
    moved = np.linalg.norm(atoms.arrays["disp"], axis=1) > 0
    ends = atoms.positions[moved] + atoms.arrays["disp"][moved]
    assert find_mic(ends, atoms.cell, atoms.pbc)[1].max() < 1e-6


@pytest.mark.parametrize("lattice", ["fcc", "square"])
def test_extended_xyz_comes_back(results, lattice, tmp_path):
    arrows = KinosonArrows.of_state(results[lattice], 1)
    arrows.write_extxyz(tmp_path / "state.xyz")
    atoms = ase.io.read(tmp_path / "state.xyz")
    jumps_into_the_vacancy(atoms)
    assert len(atoms) == results[lattice].states.supercell.n_sites - 1
    assert atoms.info["total_m2_per_s"] == pytest.approx(arrows.total, rel=1e-12, abs=0)
    moved = np.flatnonzero(np.linalg.norm(atoms.arrays["disp"], axis=1))
    assert len(moved) == len(arrows)
    np.testing.assert_allclose(atoms.arrays["share"][arrows.atom], arrows.share, atol=1e-8)
    np.testing.assert_allclose(atoms.arrays["kinoson"][arrows.atom] * 1e-20, arrows.contribution, atol=1e-28)
    np.testing.assert_allclose(atoms.arrays["disp"][arrows.atom], -arrows.vector, atol=1e-8)
    assert np.array(atoms.get_chemical_symbols())[arrows.atom].tolist() == arrows.species.tolist()
    colors = species_colors(arrows.alloy_species)
    for s, rgb in zip(atoms.get_chemical_symbols(), atoms.arrays["vector_color"], strict=True):
        assert matplotlib.colors.to_hex(rgb).upper() == colors[s]
    backwards = replace(arrows, vector=-arrows.vector).to_atoms()
    with pytest.raises(AssertionError):
        jumps_into_the_vacancy(backwards)


def test_extended_xyz_of_average_and_of_interstitials(results, tmp_path):
    for arrows in (KinosonArrows.average(results["bcc"]), KinosonArrows.of_state(results["carbon"], 0)):
        arrows.write_extxyz(tmp_path / "more.xyz", scaled=True)
        atoms = ase.io.read(tmp_path / "more.xyz")
        added = atoms[len(arrows.positions) :]
        assert added.get_chemical_symbols() == arrows.species.tolist()
        length = np.linalg.norm(added.arrays["disp"], axis=1)
        full = np.linalg.norm(arrows.vector, axis=1)
        relative = arrows.contribution / arrows.contribution.max()
        np.testing.assert_allclose((length / full) ** 2, relative, atol=1e-6)
        assert atoms.arrays["share"].sum() == pytest.approx(1.0, abs=1e-6)


def test_arrows_survive_json(results):
    for arrows in (KinosonArrows.of_state(results["bcc"], 3), KinosonArrows.average(results["carbon"])):
        back = MontyDecoder().decode(json.dumps(arrows.as_dict()))
        assert isinstance(back, KinosonArrows)
        for one in fields(arrows):
            np.testing.assert_array_equal(getattr(back, one.name), getattr(arrows, one.name))


# -- pictures ---------------------------------------------------------------------------------------------------------


def drawn_as_told(parts, arrows):
    """Colours are those of the species; areas of shafts are in the ratio of the contributions."""
    colors = species_colors(arrows.alloy_species)
    area = {}
    for (vertices, _), color, row in parts:
        if row < 0:
            continue
        assert color == colors[arrows.species[row]]
        along = arrows.vector[row] / np.linalg.norm(arrows.vector[row])
        relative = vertices - arrows.start[row] - arrows.fan[row]
        away = np.linalg.norm(relative - np.outer(relative @ along, along), axis=1)
        area[row] = np.median(away[away > 1e-9]) ** 2
    wide = arrows.contribution > 0.01 * arrows.contribution.max()
    rows = [r for r in area if wide[r]]
    values = np.array([area[r] for r in rows])
    np.testing.assert_allclose(values / widest(arrows) ** 2, arrows.contribution[rows] / arrows.contribution.max())
    assert sorted(area) == np.flatnonzero(arrows.contribution > 0).tolist()


@pytest.mark.parametrize("lattice", LATTICES)
def test_colour_is_species_and_area_is_contribution(results, lattice):
    for arrows in (KinosonArrows.of_state(results[lattice], 0), KinosonArrows.average(results[lattice])):
        colors = species_colors(arrows.alloy_species)
        parts = scene(arrows, colors, None)
        drawn_as_told(parts, arrows)
        if len(set(arrows.species.tolist())) > 1:
            swapped = scene(arrows, {**colors, "Cu": colors["Ag"], "Ag": colors["Cu"]}, None)
            with pytest.raises(AssertionError):
                drawn_as_told(swapped, arrows)
        with pytest.raises(AssertionError):
            uneven = np.where(np.arange(len(arrows)) == arrows.contribution.argmax(), 2.0, 1.0)
            drawn_as_told(parts, replace(arrows, contribution=arrows.contribution * uneven))


def test_picture_has_legends_with_numbers(results):
    arrows = KinosonArrows.of_state(results["fcc"], 0)
    axes = plot_kinosons_3d(arrows)
    axes.figure.canvas.draw()
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert len(texts) == 3
    assert all("·10" in t for t in texts)
    assert "m²/s" in axes.get_legend().get_title().get_text()
    assert "state 0" in axes.get_title()
    finish(axes)
    finish(plot_kinosons_3d(results["square"], quantity="Cu", title="copper"))


def shaft_pixels(axes, figure):
    """Height of the shaft of the arrow along x on the page, pixels."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    painted = np.abs(image - 255).sum(axis=2) > 60
    rows, columns = np.nonzero(painted)
    x = (columns.min() + columns.max()) / 2 + 0.25 * (columns.max() - columns.min()) * 0.7
    middle = (rows.min() + rows.max()) // 2
    column = painted[:, int(x)]
    top = bottom = middle
    while column[top - 1]:
        top -= 1
    while column[bottom + 1]:
        bottom += 1
    return bottom - top + 1


@pytest.mark.parametrize("size", [(5.0, 5.0), (8.0, 6.0)])
def test_the_scale_of_the_legend_is_that_of_the_arrows(results, size):
    arrows = KinosonArrows.of_state(results["square"], 0)
    vector = arrows.vector[np.argsort(np.arctan2(arrows.vector[:, 1], arrows.vector[:, 0]))]
    level = replace(arrows, vector=vector, contribution=np.ones(4), positions=arrows.positions + 99.0)
    figure = plt.figure(figsize=size)
    axes = figure.add_subplot(projection="3d")
    plot_kinosons_3d(level, axes, elevation=90, azimuth=-90, legend=False, title="")
    measured = shaft_pixels(axes, figure)
    expected = 2 * widest(level) * _points_per_angstrom(axes) * figure.dpi / 72
    assert measured == pytest.approx(expected, abs=2.5)
    assert measured > 10  # wide enough for the test to tell a factor
    plt.close(figure)


def test_interactive_view(results):
    pytest.importorskip("plotly")
    arrows = KinosonArrows.of_state(results["fcc"], 0)
    figure = view_kinosons_3d(arrows)
    *moving, sites = figure.data
    assert sites.name == "sites"
    assert [trace.name.split()[0] for trace in moving] == sorted(set(arrows.species.tolist()))
    colors = species_colors(arrows.alloy_species)
    for trace in moving:
        assert trace.color == colors[trace.name.split()[0]]
        assert {text.split(":")[0] for text in trace.hovertext} == {trace.name.split()[0]}
        assert max(trace.i) < len(trace.x)
    assert len({t for trace in moving for t in trace.hovertext}) == len(
        set(zip(arrows.species.tolist(), arrows.contribution.tolist(), strict=True))
    )
    assert "<html" in arrows.view().to_html(include_plotlyjs=False)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals(results, monkeypatch):
    result = results["fcc"]
    arrows = KinosonArrows.of_state(result, 0)
    with pytest.raises(KinosonError, match="found state_index=30"):
        KinosonArrows.of_state(result, 30)
    with pytest.raises(KinosonError, match="choose one"):
        KinosonArrows.average(result, quantity="Xe")
    with pytest.raises(KinosonError, match="without its jumps"):
        KinosonArrows.average(replace(result, network=None, relaxation=None))
    with pytest.raises(KinosonError, match="does not hold its states"):
        KinosonArrows.average(replace(results["hcp"], states=None))
    with pytest.raises(KinosonError, match=r"vector \(3, 3\)"):
        replace(arrows, vector=arrows.vector[:3])
    with pytest.raises(KinosonError, match="negative or not finite"):
        replace(arrows, contribution=-arrows.contribution)
    with pytest.raises(KinosonError, match="nothing diffuses"):
        plot_kinosons_3d(replace(arrows, contribution=np.zeros(len(arrows))))
    with pytest.raises(KinosonError, match="found a list"):
        plot_kinosons_3d([])
    figure, flat = plt.subplots()
    with pytest.raises(KinosonError, match="projection='3d'"):
        plot_kinosons_3d(arrows, flat)
    plt.close(figure)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(KinosonError, match="pip install plotly"):
        view_kinosons_3d(arrows)
