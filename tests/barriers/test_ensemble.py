"""Ensembles, weights, several compositions and learning curves; broken twins fail the same checks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from ase_kinoson.barriers.ensemble import BarrierEnsemble
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.learning_curve import LearningCurve, _power_law, learning_curve
from ase_kinoson.barriers.model_fit import fast_jumps
from ase_kinoson.barriers.source import BarrierSource, EnergyModel
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import BarrierError, ModelError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.testing import loop_defect
from tests.barriers.synthetic import synthetic

FAST = {"hidden": 8, "epochs": 6}


def fcc(composition, size=3):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    return JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": composition}).supercell(size))


TERNARY = {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}


@pytest.fixture(scope="module")
def data():
    return synthetic(fcc(TERNARY), n=60, noise=0.02)


@pytest.fixture(scope="module")
def ensemble(data):
    return BarrierEnsemble.fit(data, members=3, seed=1, **FAST)


# -- ensembles ----------------------


def test_mean_model(ensemble, data):
    assert isinstance(ensemble, BarrierSource) and isinstance(ensemble.energy, EnergyModel)
    s = data.states[:5]
    found = ensemble.jump_energies(s.occupations, s.carriers)
    each = [m.jump_energies(s.occupations, s.carriers) for m in ensemble.members]
    assert np.allclose(found.kra, np.mean([e.kra for e in each], axis=0))
    mean, error = ensemble.predict_with_error(s)
    assert np.array_equal(mean, found.barrier) and np.array_equal(mean, ensemble.predict(s))
    assert np.allclose(error, ensemble.scale * np.std([e.barrier for e in each], axis=0, ddof=1))
    # ΔE is the difference of the mean energy, and loops close
    energy = ensemble.energy
    new, _ = data.network.apply(s.occupations, s.carriers, np.full(5, 3))
    assert np.allclose(found.delta_e[:, 3], energy.energies(new) - energy.energies(s.occupations), atol=1e-5)
    assert loop_defect(ensemble) < 1e-5

    class Patched:
        """A mean that picks a member by the state is no state function."""

        network = ensemble.network

        def jump_energies(self, occupations, carriers):
            member = int(np.asarray(occupations)[0, :20].sum()) % len(ensemble.members)
            return ensemble.members[member].jump_energies(occupations, carriers)

    assert loop_defect(Patched()) > 1e-4


def test_an_ensemble_serves_any_lattice_constant(ensemble, tmp_path):
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    wide = JumpNetwork.from_supercell(Alloy.from_atoms(atoms, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell(3))
    bound = ensemble.bind(wide)
    assert bound.network.fingerprint == wide.fingerprint != ensemble.network.fingerprint
    assert bound.species == ("X", "Cu", "Ni")
    states = sample_states(wide.supercell, 3, seed=1)
    mean = np.mean([m.bind(wide).predict(states) for m in ensemble.members], axis=0)
    assert np.array_equal(bound.predict(states), mean)
    ensemble.save(tmp_path / "e")
    assert np.allclose(BarrierEnsemble.load(tmp_path / "e", wide).predict(states), mean, atol=1e-5)
    bcc = Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Cu": 0.5, "Ni": 0.5}})
    with pytest.raises(ModelError, match="other jumps"):
        BarrierEnsemble.load(tmp_path / "e", JumpNetwork.from_supercell(bcc.supercell(3)))


def test_an_ensemble_knows_its_compositions(ensemble, tmp_path):
    ensemble.save(tmp_path / "e")
    for known in (ensemble, BarrierEnsemble.load(tmp_path / "e")):
        assert known.composition_range.distance(TERNARY) < 2
        assert known.composition_range.distance({"Cu": 1.0}) > 50


def test_members_share_the_test_states_only(ensemble, data):
    seen = [set(m.training_keys) for m in ensemble.members]
    assert seen[0] == seen[1] == seen[2] == set(ensemble.training_keys)
    assert len(seen[0]) == 60 - ensemble.members[0].report["n_test"] / 12
    assert not np.array_equal(ensemble.members[0].predict(data.states), ensemble.members[1].predict(data.states))


def test_calibration(ensemble):
    report = ensemble.report
    assert report["reliability"]["scale"] == ensemble.scale != 1.0
    assert 0.4 < report["reliability"]["within_one_sigma"] < 0.95
    predicted, found = (np.array(report["reliability"][k]) for k in ("predicted_rmse", "found_rmse"))
    # in total the predicted errors are the errors found; without the scale they are not
    total = [np.sqrt((x**2).mean()) for x in (predicted, found)]
    assert total[0] == pytest.approx(total[1], rel=0.05)  # bins differ in size by one
    assert total[0] / ensemble.scale < 0.7 * total[1]
    assert json.loads(json.dumps(report)) == report


def test_error_grows_where_nothing_was_learned(data):
    """Members agree on the alloy they saw and disagree on one they did not."""
    ensemble = BarrierEnsemble.fit(data, members=3, test_fraction=0.0, validation_fraction=0.3, **FAST)
    assert ensemble.scale == 1.0 and ensemble.report["held_out"] == {}
    foreign = sample_states(fcc({"Cu": 0.02, "Ni": 0.02, "Pd": 0.96}).supercell, 10, seed=0)
    spread = [np.mean(ensemble.predict_with_error(s)[1]) for s in (data.states, foreign)]
    assert spread[1] > 1.5 * spread[0]


def test_ensemble_files(ensemble, data, tmp_path):
    ensemble.save(tmp_path / "e")
    again = BarrierEnsemble.load(tmp_path / "e", data.network)
    assert np.array_equal(again.predict(data.states), ensemble.predict(data.states))
    assert (again.scale, again.report) == (ensemble.scale, ensemble.report)
    assert "3 models" in repr(again) and "held-out MAE" in repr(again)
    with pytest.raises(ModelError, match="something else"):
        BarrierModel.load(tmp_path / "e")
    about = json.loads((tmp_path / "e.json").read_text())
    about = {key: value for key, value in about.items() if key not in ("seal", "digest")}  # of a version without them
    (tmp_path / "e.json").write_text(json.dumps({**about, "members": [*about["members"][:1], {}]}))
    with pytest.raises(ModelError, match="incomplete"):
        BarrierEnsemble.load(tmp_path / "e")
    with pytest.raises(ModelError, match="members=1"):
        BarrierEnsemble.fit(data, members=1)
    with pytest.raises(ModelError, match="'width'"):
        BarrierEnsemble.fit(data, width=3)
    with pytest.raises(ModelError, match="no models"):
        BarrierEnsemble(())


# -- weights ----------------------


def test_weights_decide_what_is_learned(data):
    """Where the data contradict each other the heavy ones win; without weights neither does."""
    rng = np.random.default_rng(0)
    wrong = rng.random(data.barrier.shape) < 0.5
    spoilt = replace(data, barrier=data.barrier + np.where(wrong, 0.2, 0.0))
    weights = np.where(wrong, 0.01, 1.0)
    bias = {}
    for name, w in (("weighted", weights), ("plain", None)):
        model = BarrierModel.fit(spoilt, weights=w, test_fraction=0.0, validation_fraction=0.2, **FAST)
        bias[name] = (model.predict(data.states) - data.barrier)[data.valid].mean()
    assert abs(bias["weighted"]) < 0.02
    assert bias["plain"] > 0.08


def test_weighted_report_and_zero_weights(data):
    weights = np.random.default_rng(0).random(data.barrier.shape)
    entry = BarrierModel.fit(data, weights=weights, **FAST).report["held_out"]["all"]["barrier"]["model"]
    assert entry["weighted_mae"] != entry["mae"]
    assert "weighted_mae" not in BarrierModel.fit(data, **FAST).report["held_out"]["all"]["barrier"]["model"]
    weights[:, 6:] = 0.0
    left = replace(data, valid=data.valid & (weights > 0))
    one, two = (BarrierModel.fit(d, weights=w, **FAST) for d, w in ((data, weights), (left, weights)))
    assert np.array_equal(one.predict(data.states), two.predict(data.states))
    for bad, match in ((weights[:, :3], "shape"), (weights - 1, "negative"), (weights * np.nan, "not finite")):
        with pytest.raises(BarrierError, match=match):
            BarrierModel.fit(data, weights=bad)


def test_fast_jumps():
    rng = np.random.default_rng(0)
    true = rng.normal(1.0, 0.2, 10_000)
    found = true + rng.normal(0.0, 0.1, 10_000)
    kt = 8.617333e-5 * 1000
    report = fast_jumps(found, true, 1000.0)
    assert report["n"] == 1000
    assert report["log_rate_rms"] == pytest.approx(0.1 / kt, rel=0.1)
    assert abs(report["log_rate_bias"]) < 0.1  # these errors know nothing of the barrier
    assert report["log_rate_bias_chosen_by_model"] > 0.2
    assert fast_jumps(true + 0.05, true, 1000.0)["log_rate_bias"] == pytest.approx(-0.05 / kt, rel=1e-4)


# -- several sets ----------------------


def test_transfer_to_another_composition():
    """Models of two binaries and of cells of different size know the ternary in between; one binary does not."""
    parts = [
        synthetic(fcc({"Cu": 0.5, "Ni": 0.5}), n=30, seed=1),
        synthetic(fcc({"Ni": 0.6, "Pd": 0.4}, (3, 3, 2)), n=30, seed=2),
        synthetic(fcc({"Cu": 0.5, "Pd": 0.5}), n=30, seed=3),
    ]
    target = synthetic(fcc(TERNARY, (3, 3, 4)), n=15, seed=4)
    model = BarrierModel.fit(parts, hidden=0, test_fraction=0.1)
    assert model.species == ("X", "Cu", "Ni", "Pd")
    assert set(model.report["held_out"]) == {"all", "Cu", "Ni", "Pd"}
    assert model.report["n_barriers"] == sum(p.valid.sum() for p in parts)
    network = target.network
    moved = model.on(network.supercell)
    assert moved.supercell == network.supercell
    error = np.abs(model.predict(target.states) - target.barrier)[target.valid].mean()
    assert error < 0.03
    nearly = BarrierModel.fit([parts[0], parts[2]], hidden=0, test_fraction=0.1)
    assert np.abs(nearly.predict(target.states) - target.barrier)[target.valid].mean() > 1.3 * error
    own = BarrierModel.fit(parts[0], hidden=0)
    with pytest.raises(ModelError, match="Pd"):
        own.predict(target.states)


def test_sets_must_fit_together(data):
    other = JumpNetwork.from_supercell(
        Alloy.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), {"Fe": {"Cu": 0.5, "Ni": 0.25, "Pd": 0.25}}).supercell(
            3
        )
    )
    with pytest.raises(ModelError, match="another lattice"):
        BarrierModel.fit([data, synthetic(other, n=10)])
    with pytest.raises(BarrierError, match="no sets"):
        BarrierModel.fit([])
    with pytest.raises(BarrierError, match="2 arrays of weights"):
        BarrierModel.fit([data], weights=[np.ones(data.barrier.shape)] * 2)


# -- learning curve ----------------------


def test_learning_curve(data):
    curve = learning_curve(data, (0.15, 0.4, 1.0), seed=2, hidden=0)
    assert isinstance(curve, LearningCurve)
    assert np.all(np.diff(curve.n_barriers) > 0) and curve.n_barriers[-1] <= data.barrier.size
    assert curve.mae[-1] < curve.mae[0] and curve.mae[-1] < 0.5 * curve.baseline
    assert np.all(curve.error > 0) and curve.law is None
    pyplot = pytest.importorskip("matplotlib.pyplot")
    import matplotlib

    matplotlib.use("Agg")
    axes = curve.plot()
    assert axes.get_xscale() == "log" and len(axes.containers) == 1
    pyplot.close(axes.figure)
    with pytest.raises(BarrierError, match="sizes"):
        learning_curve(data, (0.0, 1.0))
    with pytest.raises(ModelError, match="'width'"):
        learning_curve(data, width=2)


def test_power_law_only_where_determined():
    n = np.array([500.0, 1000, 2000, 4000, 8000, 16000])
    law = _power_law(n, 0.05 + 2.0 * n**-0.5, np.full(6, 1e-3))
    assert (law.a, law.b, law.c) == (
        pytest.approx(0.05, abs=1e-3),
        pytest.approx(2.0, rel=0.05),
        pytest.approx(0.5, abs=0.02),
    )
    assert law(law.barriers_for(0.06)) == pytest.approx(0.06)
    assert law.barriers_for(0.04) == np.inf
    noisy = 0.08 + 0.01 * np.random.default_rng(0).normal(size=6)
    assert _power_law(n, noisy, np.full(6, 1e-2)) is None
    assert _power_law(n[:3], 0.05 + 2.0 * n[:3] ** -0.5, np.full(3, 1e-3)) is None
