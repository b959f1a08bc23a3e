"""Compositions, their distances, and models at other lattice constants."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

import ase_kinoson as ak
from ase_kinoson.barriers.composition_range import CompositionRange
from ase_kinoson.barriers.model_file import same_lattice
from ase_kinoson.barriers.training_sets import training_sets
from ase_kinoson.composition import (
    as_fractions,
    composition_grid,
    relaxed_lattice_constant,
    vegard,
    with_composition,
)
from ase_kinoson.composition_maps import MapSettings, composition_map
from ase_kinoson.errors import ModelError
from tests.barriers.synthetic import synthetic


def alloy_at(composition: dict[str, float], a: float) -> ak.Alloy:
    return ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=a), {"Cu": composition})


def test_a_grid_holds_every_composition_once():
    grid = composition_grid(("Cu", "Ni", "Pd"), 0.1)
    assert len(grid) == 66
    assert len({tuple(sorted(x.items())) for x in grid}) == 66
    assert all(abs(sum(x.values()) - 1) < 1e-12 for x in grid)
    assert sum(max(x.values()) == 1 for x in grid) == 3
    assert sum(min(x.values()) == 0 for x in grid) == 30  # the edges
    assert len(composition_grid(("Cu", "Ni"), 0.25)) == 5
    assert len(composition_grid(tuple("ABCD"), 0.25)) == 35


@pytest.mark.parametrize("step", [0.3, 0.0, -0.1, 2.0])
def test_a_step_that_does_not_divide_one_is_refused(step):
    with pytest.raises(ak.KinosonError, match="expected 1 over a whole number"):
        composition_grid(("Cu", "Ni"), step)


def test_compositions_are_checked():
    assert as_fractions({"Ni": 1.0}, ("Cu", "Ni")) == (("Cu", 0.0), ("Ni", 1.0))
    for bad, text in (({"Cu": 0.5}, "sum to 1"), ({"Cu": 1.5, "Ni": -0.5}, "at least 0"), ({"Pd": 1.0}, "Pd")):
        with pytest.raises(ak.KinosonError, match=text):
            as_fractions(bad, ("Cu", "Ni"))


def test_another_composition_of_one_parent():
    parent = alloy_at({"Cu": 0.5, "Ni": 0.5}, 3.6)
    pure, same = with_composition(parent, {"Cu": 1.0}, scale=1.1), with_composition(parent, (("Cu", 1.0), ("Ni", 0.0)))
    assert pure.supercell(2).species == same.supercell(2).species == parent.supercell(2).species
    assert pure.cell == pytest.approx(1.1 * parent.cell)
    assert with_composition(parent, {"Cu": 0.9, "Pd": 0.1}).supercell(2).species == ("X", "Cu", "Ni", "Pd")
    with pytest.raises(ak.KinosonError, match="sum to 1"):
        with_composition(parent, {"Cu": 0.5})


def test_vegard_mixes_in_proportion():
    known = {"Cu": 3.6, "Pd": 3.9}
    assert vegard({"Cu": 0.25, "Pd": 0.75}, known) == pytest.approx(3.825)
    assert vegard({"Cu": 1.0, "Ni": 0.0}, known) == 3.6
    with pytest.raises(ak.KinosonError, match="Ni"):
        vegard({"Cu": 0.5, "Ni": 0.5}, known)
    with pytest.raises(ak.KinosonError, match="positive"):
        vegard({"Cu": 1.0}, {"Cu": -3.6})


def test_a_random_cell_relaxes_to_a_lattice_constant_of_its_own():
    alloy = alloy_at({"Cu": 1.0}, 3.65)
    pure = [relaxed_lattice_constant(alloy.supercell(1), EMT, fmax=1e-3)[0]]
    pure.append(relaxed_lattice_constant(with_composition(alloy, (("Cu", 1.0),), scale=0.97).supercell(1), EMT)[0])
    assert pure == pytest.approx([3.59] * 2, abs=0.01)  # whatever it started from
    mixed = relaxed_lattice_constant(alloy_at({"Cu": 0.5, "Au": 0.5}, 3.8).supercell(2), EMT, n_cells=2)
    assert 3.7 < mixed[0] < 4.0
    assert np.isfinite(mixed[1])


def test_distances_are_those_of_exchanged_atoms():
    corners = CompositionRange(("Cu", "Ni", "Pd"), np.array([[0.8, 0.2, 0], [0.2, 0.8, 0], [0.4, 0.4, 0.2]]))
    assert corners.distance({"Cu": 0.5, "Ni": 0.5}) == pytest.approx(0, abs=1e-7)  # between them
    assert corners.distance({"Cu": 1.0}) == pytest.approx(20)
    assert corners.distance({"Cu": 0.4, "Ni": 0.3, "Pd": 0.3}) == pytest.approx(10)
    near, gap = corners.nearest({"Cu": 1.0})
    assert near == {"Cu": 0.8, "Ni": 0.2, "Pd": 0.0} and gap == pytest.approx(20)


def test_compositions_outside_are_told_of_and_refused():
    corners = CompositionRange(("Cu", "Ni"), np.array([[0.8, 0.2], [0.2, 0.8]]))
    assert corners.check([{"Cu": 0.6, "Ni": 0.4}]) == pytest.approx([0], abs=1e-7)
    with pytest.warns(ak.KinosonWarning, match=r"by up to 5\.0 at\.% at Cu85 Ni15 .*Cu80 Ni20, is 5\.0 at\.% away"):
        corners.check([{"Cu": 0.6, "Ni": 0.4}, {"Cu": 0.85, "Ni": 0.15}])
    with pytest.raises(ModelError, match=r"2 of 2 compositions .* 20\.0 at\.%.*at most 10 at\.%"):
        corners.check([{"Cu": 1.0}, {"Ni": 1.0}])
    with pytest.warns(ak.KinosonWarning, match="extrapolated"):
        corners.check([{"Cu": 1.0}], limit=25)
    with pytest.raises(ModelError, match="Pd"):
        corners.check([{"Pd": 1.0}])


# -- models at other lattice constants ---------------------------------------------------------------------------------


def network_at(composition: dict[str, float], a: float, size: int = 3) -> ak.JumpNetwork:
    return ak.JumpNetwork.from_supercell(alloy_at(composition, a).supercell(size))


@pytest.fixture(scope="module")
def sets() -> list:
    """Three compositions at lattice constants of their own; one has fewer species."""
    places = [
        ({"Cu": 0.4, "Ni": 0.3, "Pd": 0.3}, 3.6551),
        ({"Cu": 0.5, "Ni": 0.5}, 3.5409),
        ({"Ni": 0.4, "Pd": 0.6}, 3.73),
    ]
    return [synthetic(network_at(x, a), n=16, seed=k) for k, (x, a) in enumerate(places)]


@pytest.fixture(scope="module")
def model(sets) -> ak.BarrierModel:
    return ak.BarrierModel.fit(sets, seed=1, hidden=4, epochs=2).with_precision("double")


def test_lattice_constants_of_the_training_sets_do_not_matter(sets, model):
    same = [synthetic(network_at(x, 3.6551), n=16, seed=k) for k, x in enumerate(
        ({"Cu": 0.4, "Ni": 0.3, "Pd": 0.3}, {"Cu": 0.5, "Ni": 0.5}, {"Ni": 0.4, "Pd": 0.6})
    )]  # fmt: skip
    twin = ak.BarrierModel.fit(same, seed=1, hidden=4, epochs=2).with_precision("double")
    states = sets[1].states
    assert np.array_equal(twin.predict(same[1].states), model.predict(states))
    wrong = model.predict(states) - sets[1].barrier
    learned = np.abs(wrong[sets[1].valid]).mean()
    other = np.abs(model.predict(states)[::-1] - sets[1].barrier)[1:-1].mean()  # broken twin: barriers of other states
    assert learned < 0.03 < 2 * learned < other


def test_jumps_in_another_order_are_put_right(sets):
    one = sets[1]
    order = np.random.default_rng(0).permutation(12)
    n = one.network
    mixed = replace(
        n,
        target_basis=n.target_basis[:, order],
        target_cell=n.target_cell[:, order],
        vectors=n.vectors[:, order],
        pair_row=n.pair_row[:, order],
    )
    turned = replace(one, network=mixed, barrier=one.barrier[:, order], delta_e=one.delta_e[:, order],
                     valid=one.valid[:, order])  # fmt: skip
    weights = np.random.default_rng(1).random(one.barrier.shape)
    first, second = (
        training_sets([sets[0], x], [np.ones(sets[0].barrier.shape), w])[1]
        for x, w in ((one, weights), (turned, weights[:, order]))
    )
    assert np.array_equal(first.barrier, second.barrier)
    assert np.array_equal(first.delta_e, second.delta_e)
    assert np.array_equal(first.weights, second.weights)
    untold = training_sets([sets[0], replace(turned, network=n)])[1]
    assert not np.array_equal(first.barrier, untold.barrier)


def test_other_lattices_are_refused(sets):
    bcc = ak.Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Cu": 0.5, "Ni": 0.5}})
    other = synthetic(ak.JumpNetwork.from_supercell(bcc.supercell(3)), n=6)
    with pytest.raises(ModelError, match="another lattice"):
        ak.BarrierModel.fit([sets[0], other])
    long = ak.Alloy.from_atoms(bulk("Mg", "hcp", a=3.2, c=5.4), {"Mg": {"Cu": 0.5, "Ni": 0.5}})
    short = ak.Alloy.from_atoms(bulk("Mg", "hcp", a=3.2, c=5.2), {"Mg": {"Cu": 0.5, "Ni": 0.5}})
    with pytest.raises(ModelError, match="another lattice"):
        same_lattice(long, short)  # no single factor of all lengths
    wide = ak.Alloy.from_atoms(bulk("Mg", "hcp", a=3.2 * 1.01, c=5.4 * 1.01), {"Mg": {"Cu": 0.5, "Ni": 0.5}})
    assert same_lattice(long, wide) == pytest.approx(1.01)


def test_a_model_serves_any_lattice_constant(model, tmp_path):
    here, there = network_at({"Cu": 0.5, "Ni": 0.5}, 3.6551), network_at({"Cu": 0.5, "Ni": 0.5}, 3.5927)
    states = ak.sample_states(there.supercell, 12, method="monte-carlo", model=model, temperature_K=900.0, seed=3)
    same = replace(states, supercell=here.supercell)
    bound, wide = ak.transport(states, there, model, None, 900.0), ak.transport(same, here, model, None, 900.0)
    ratio = (3.5927 / 3.6551) ** 2
    assert bound.vacancy_diffusivity.value == pytest.approx(ratio * wide.vacancy_diffusivity.value, rel=1e-9, abs=0)
    assert bound.vacancy_diffusivity.value != pytest.approx(wide.vacancy_diffusivity.value, rel=1e-3, abs=0)
    assert model.on(there.supercell).network.lengths == pytest.approx(there.lengths)
    model.bind(there).save(tmp_path / "m")
    again = ak.BarrierModel.load(tmp_path / "m").with_precision("double")
    assert np.array_equal(again.predict(states), model.predict(states))
    loaded = ak.BarrierModel.load(tmp_path / "m", there).with_precision("double")
    assert loaded.network.fingerprint == there.fingerprint
    assert np.array_equal(loaded.predict(states), model.predict(states))


def test_a_map_of_a_model_says_so(model):
    jumps = network_at({"Cu": 0.5, "Ni": 0.5}, 3.6551)
    quick = MapSettings(n_chains=10, sweeps=1, n_rounds=1, n_jumps=128, n_walkers=8, n_resamples=20)
    run = partial(composition_map, jumps, model, temperature_K=900.0, settings=quick)
    with pytest.raises(ModelError, match="at most 10 at"):
        run([{"Cu": 1.0}])
    with pytest.warns(ak.KinosonWarning) as told:
        point = run([{"Cu": 0.45, "Ni": 0.55}], lattice_constant={"Cu": 3.6, "Ni": 3.5}).points[0]
    assert any("outside the trained range" in str(w.message) for w in told)
    assert 1 < point.distance < 10
    assert point.vacancy_diffusivity.kind == "kmc of the model"
    assert point.activation_energy["vacancy"].kind == "estimate of the model"


def test_cells_of_a_lattice_constant_hold_whole_hosts():
    seen: list[dict[str, int]] = []

    class Noting(EMT):
        def calculate(self, atoms=None, *args, **kwargs):
            seen.append(atoms.symbols.formula.count())
            super().calculate(atoms, *args, **kwargs)

    compound = ak.Alloy.from_atoms(bulk("NiAl", "cesiumchloride", a=2.88), {"Ni": {"Ni": 1.0}}, mobile=["Ni"])
    relaxed_lattice_constant(compound.supercell(2), Noting, fmax=0.1)
    assert seen[-1] == {"Ni": 8, "Al": 8}  # and no aluminium on the site of the vacancy
    host = ak.Alloy.from_atoms(bulk("Ni", cubic=True)).with_interstitials("H", "octahedral")
    value, _ = relaxed_lattice_constant(host.supercell(2), Noting, fmax=0.01)
    assert seen[-1] == {"Ni": 32}
    pure = ak.Alloy.from_atoms(bulk("Ni", cubic=True)).supercell(2)
    assert value == pytest.approx(relaxed_lattice_constant(pure, Noting, fmax=0.01)[0], rel=1e-4)


def test_the_range_of_a_compound_counts_all_atoms():
    crystal = bulk("NiAl", "cesiumchloride", a=2.88)
    alloy = ak.Alloy.from_atoms(crystal, {"Ni": {"Ni": 0.5, "Cu": 0.5}}, mobile=["Ni"])
    jumps = ak.JumpNetwork.from_supercell(alloy.supercell(3))
    model = ak.BarrierModel.fit(synthetic(jumps, n=20), hidden=0)
    known = model.composition_range
    assert known.points[0][known.species.index("Al")] == pytest.approx(27 / 53)
    quick = MapSettings(n_chains=10, sweeps=1, n_rounds=1, n_jumps=128, n_walkers=8, n_resamples=20)
    point = composition_map(jumps, model, [{"Ni": 0.5, "Cu": 0.5}], temperature_K=900.0, settings=quick).points[0]
    assert point.distance < 1.0
    with pytest.raises(ModelError, match="at most 10 at"):  # half of the nickel sites are a quarter of the atoms
        composition_map(jumps, model, [{"Ni": 1.0}], temperature_K=900.0, settings=quick)


def test_a_model_knows_its_compositions(model):
    known = model.composition_range
    assert len(known.points) == 3
    assert known.distance({"Cu": 0.4, "Ni": 0.3, "Pd": 0.3}) < 0.5
    assert known.distance({"Cu": 1.0}) > 40
    model.report.pop("compositions")
    assert model.composition_range is None
