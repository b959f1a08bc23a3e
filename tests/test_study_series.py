"""Studies of several temperatures with a vacancy fraction of their own, and of an interstitial."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError, StudyError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.report import build_report
from ase_kinoson.settings import parse_settings
from ase_kinoson.study import Study

CIF = Path(__file__).parents[1] / "examples" / "Cu70Ni30.cif"
SETTINGS = {
    "seed": 5,
    "workers": 1,
    "alloy": {"file": "alloy.cif"},
    "cell": {"size": 2},
    "barriers": {"fmax_initial": 0.02, "fmax_final": 0.05, "fmax_saddle": 0.05, "verify": False},
    "states": {"training": 8, "evaluation": 6, "sweeps": 20},
    "model": {"hidden": 4, "epochs": 2},
    "relaxation": {"n_states": 20, "form": "paths", "closure_epochs": 1, "gates": 2, "lookahead": 1},
    "correction": {"n_steps": 3, "n_trajectories": 32},
    "vacancies": {"arrangements": 3, "sites": 6, "swaps": 4},
    "transport": {"temperatures_K": [1100.0, 1300.0], "measured": "measured.csv", "n_resamples": 40},
}
MEASURED = "temperature [C],diffusivity [cm2/s],species,source\n900,1e-12,Cu,test\n"


def changed(**sections):
    return SETTINGS | {k: SETTINGS.get(k, {}) | v for k, v in sections.items()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    shutil.copy(CIF, folder / "alloy.cif")
    (folder / "measured.csv").write_text(MEASURED)
    return folder, Study.from_dict(SETTINGS, folder / "out", base=folder).run()


def test_states_of_all_temperatures_serve_each(done):
    _, result = done
    for t, found in result.transport.items():
        own = result.evaluation[t]
        assert len(own.states) == 6 and found.n_states == 12
        by_hand = ak.pool_states(list(result.evaluation.values()), t)
        np.testing.assert_allclose(found.states.weights, by_hand.states.weights, rtol=1e-12)
        assert found.effective_sample_size > own.states.effective_sample_size
    (pooled, _) = (row["pooled"] for row in result.summary["temperatures"])
    assert [entry["temperature"]["value"] for entry in pooled] == [1100.0, 1300.0]
    assert sum(entry["share"]["value"] for entry in pooled) == pytest.approx(1.0)


def test_the_vacancy_fraction_is_computed_once_and_enters_tracers_only(done, monkeypatch):
    folder, result = done
    low, high = result.transport.values()
    cv = [result.summary["vacancies"]["temperatures"][i]["vacancy_fraction"]["value"] for i in (0, 1)]
    assert 0 < cv[0] < cv[1] < 1e-3
    assert (low.vacancy_fraction, high.vacancy_fraction) == (cv[0], cv[1])
    assert low.vacancy_fraction_error > 0
    assert low.tracer_diffusivity["Cu"].unit == "m^2/s"
    without = changed(vacancies={"arrangements": None}, transport={"measured": None})
    bare = Study.from_dict(without, folder / "bare", base=folder)
    shutil.copytree(folder / "out", folder / "bare", dirs_exist_ok=True)
    with_out = bare.transport()
    for t, found in with_out.transport.items():
        own = result.transport[t]
        assert found.tracer_diffusivity["Cu"].unit == "m^2/s per c_v"
        assert float(own.tracer_diffusivity["Cu"]) == pytest.approx(
            float(found.tracer_diffusivity["Cu"]) * own.vacancy_fraction, rel=1e-12, abs=0
        )
        assert float(own.vacancy_diffusivity) == float(found.vacancy_diffusivity)
        # another c_v costs no ladder, and corrected values hold it
        assert f"correction-{t:g}K" in with_out.resumed
        ratio = float(result.corrected[t].tracer_diffusivity["Ni"]) / float(
            with_out.corrected[t].tracer_diffusivity["Ni"]
        )
        assert ratio == pytest.approx(own.vacancy_fraction, rel=1e-12, abs=0)


def test_a_second_run_computes_nothing(done, monkeypatch):
    folder, _ = done
    before = (folder / "out" / "summary.json").read_bytes()
    monkeypatch.setattr("ase.calculators.emt.EMT.calculate", None)
    again = Study.from_dict(SETTINGS, folder / "out", base=folder).run()
    assert "vacancies" in again.resumed
    assert (folder / "out" / "summary.json").read_bytes() == before


def test_slopes_know_what_pooled_states_have_in_common(done):
    _, result = done
    (row,) = result.summary["activation_energy_between"]
    low, high = result.transport.values()
    slope = ak.compare_slopes([low, high])[0].finite_difference
    assert row["vacancy"]["value"] == pytest.approx(float(slope), rel=1e-9)
    # errors of independent states would be much larger
    gap = 1 / (8.617e-5 * 1100) - 1 / (8.617e-5 * 1300)
    apart = np.hypot(*(float(r.vacancy_diffusivity.error) / float(r.vacancy_diffusivity) for r in (low, high))) / gap
    assert row["vacancy"]["error"] < 0.7 * apart
    # D* holds the slope of c_v, D_v does not
    energy = -np.log(high.vacancy_fraction / low.vacancy_fraction) / -gap
    assert row["tracer_Cu"]["value"] - energy == pytest.approx(row["vacancy"]["value"], abs=0.4)
    assert row["tracer_Cu"]["value"] > row["vacancy"]["value"] + 0.8


def test_the_report_shows_series_measured_points_and_vacancies(done):
    folder, result = done
    page = (folder / "out" / "report.html").read_text()
    for text in (
        "Forms of the temperature dependence",
        "Vacancy fraction",
        "entropy of vibrations left out",
        "measured",
    ):
        assert text in page
    (point,) = result.summary["measured"]
    assert point["temperature"]["value"] == pytest.approx(1173.15)
    assert point["diffusivity"]["value"] == pytest.approx(1e-16, rel=1e-12, abs=0)
    found = result.summary["series"]["diffusivities"]
    assert set(found) == {"vacancy", "Cu", "Ni"}
    assert len(found["Cu"]["curve"]["value"]) == len(result.summary["series"]["curve_temperatures"]["value"])
    build_report(folder / "out")
    assert (folder / "out" / "report.html").read_text() == page


def test_without_pooling_each_temperature_has_its_own_states(done):
    folder, result = done
    shutil.copytree(folder / "out", folder / "own", dirs_exist_ok=True)
    alone = Study.from_dict(changed(states={"pool": False}, correction={"enabled": False}), folder / "own", base=folder)
    for t, found in alone.transport().transport.items():
        assert found.n_states == 6
        np.testing.assert_array_equal(found.states.occupations, result.evaluation[t].states.occupations)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"vacancies": {"table": "none.csv", "arrangements": None}}, r"found no file '.*none\.csv'.*expected a CSV"),
        ({"transport": {"measured": "none.csv"}}, r"found no file '.*none\.csv'.*expected a CSV"),
        ({"vacancies": {"table": "hot.csv", "arrangements": None}}, "outside the table of vacancy fractions"),
        ({"vacancies": {"formation_energy_eV": -0.1, "arrangements": None}}, "at most 1"),
    ],
)
def test_tables_are_refused_before_anything_is_computed(done, sections, message, monkeypatch):
    folder, _ = done
    (folder / "hot.csv").write_text("temperature [K],vacancy_fraction [ppm]\n1500,10\n1700,30\n")
    monkeypatch.setattr("ase.calculators.emt.EMT.calculate", None)
    with pytest.raises(KinosonError, match=message):
        Study.from_dict(changed(**sections), folder / "refused", base=folder).run()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"vacancies": {"fraction": 1e-5}}, "in one way; remove"),
        ({"vacancies": {"fraction": 1.5, "arrangements": None}}, "fraction: found"),
        ({"transport": {"vacancy_fraction": 1e-5}}, "in one way; remove"),
        ({"vacancies": {"fraction_error": 1e-6}}, "fraction_error: found 1e-06 without fraction"),
        ({"vacancies": {"fraction": 1e-5, "arrangements": None, "formation_entropy_kB": 2.0}}, "without formation_en"),
        ({"vacancies": {"arrangements": None}}, "measured diffusivities and no vacancy fraction"),
        ({"jumps": {"species": "H"}}, "expected both for an interstitial"),
        ({"jumps": {"species": "H", "sites": "octahedral"}}, "for an interstitial; expected none"),
    ],
)
def test_contradictions_are_refused(sections, message):
    with pytest.raises(StudyError, match=message):
        parse_settings(changed(**sections))


def test_a_study_of_an_interstitial(tmp_path, monkeypatch):
    """With barriers of a known model in place of a calculator's: the best value is that of hosts solved exactly."""
    shutil.copy(CIF, tmp_path / "alloy.cif")

    def known(network):
        energy = ak.PairEnergy.from_interactions(network.supercell, {("H", "Ni"): [0.09]}, network=network)
        return ak.PairBarriers(energy, {"H": 0.45})

    def compute(states, jumps, calculator, **options):
        rates = Rates.of(known(jumps), jumps, temperature_K=800.0)
        energies = rates.energies(states.occupations, states.carriers)
        start = rates.state_energies(states.occupations)
        return ak.Barriers.from_arrays(
            states, jumps, energies.barrier, energy_initial=start, energy_final=start[:, None] + energies.delta_e
        )

    monkeypatch.setattr("ase_kinoson.barriers.campaign.compute_barriers", compute)
    settings = changed(
        jumps={"species": "H", "sites": "octahedral"},
        states={"ensemble": "quenched", "training": 60, "evaluation": 120, "arrangements": 40},
        model={"hidden": 0, "epochs": 1},
        relaxation={"n_states": 200, "form": "paths", "closure_epochs": 2, "gates": 0, "lookahead": 2},
        correction={"n_steps": 8, "n_trajectories": 96},
        vacancies={"arrangements": None},
        transport={"temperatures_K": [800.0], "measured": None},
    )
    study = Study.from_dict(settings, tmp_path / "out", base=tmp_path)
    result = study.run()
    (found,) = result.transport.values()
    assert found.ensemble == "quenched" and found.vacancy_diffusivity.kind == "bound"
    hosts = ak.sample_states(
        study.supercell,
        100,
        method="monte-carlo",
        model=known(study.jumps).bind(study.jumps),
        temperature_K=800.0,
        ensemble="quenched",
        seed=9,
    )
    exact = ak.static_transport(hosts, study.jumps, known(study.jumps), 800.0).vacancy_diffusivity
    best = result.corrected[800.0].vacancy_diffusivity
    error = np.hypot(float(best.error), float(exact.error))
    assert error < 0.08 * float(exact)
    assert abs(float(best) - float(exact)) < 3 * error
    # uncorrelated jumps are another number
    bare = float(found.vacancy_diffusivity) / float(found.collective_correlation_factor["carrier"])
    assert bare - float(exact) > 5 * error
    page = (tmp_path / "out" / "report.html").read_text()
    assert "interstitial" in page
    json.loads((tmp_path / "out" / "summary.json").read_text())
