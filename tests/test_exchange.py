"""Tracer data for CALPHAD-type fitting: the schema of ESPEI, the outputs of kawin, and what goes into them."""

import csv
import json

import numpy as np
import pytest
from ase import units

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.exchange import mobilities, tracer_datasets, write_tracer_csv, write_tracer_datasets
from ase_kinoson.kinosons.dataframe import atom_fractions
from ase_kinoson.validation import hcp_interstitials, tiny_cell

R = 8.31446
TEMPERATURES = (900.0, 1000.0, 1100.0)


def alloy_results(counts, temperatures=TEMPERATURES, **given):
    cell, network = tiny_cell(counts)
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {("Cu", "Ni"): -0.02}), {"Cu": 0.8, "Ni": 1.0})
    return [ak.exact_transport(cell, network, model, t, **{"vacancy_fraction": 1e-4, **given}) for t in temperatures]


@pytest.fixture(scope="module")
def results():
    return alloy_results({"Cu": 4, "Ni": 4}) + alloy_results({"Cu": 6, "Ni": 2})


def follows_the_rules(data):
    """The rules of ESPEI's check_dataset for single-phase data that we rely on, in our words."""
    solver, conditions = data["solver"], data["conditions"]
    configurations, occupancies = solver["sublattice_configurations"], solver["sublattice_occupancies"]
    shape = (np.size(conditions["P"]), np.size(conditions["T"]), len(configurations))
    used = set()
    for configuration, occupancy in zip(configurations, occupancies, strict=True):
        if not len(configuration) == len(occupancy) == len(solver["sublattice_site_ratios"]):
            return False
        for who, share in zip(configuration, occupancy, strict=True):
            several = isinstance(who, list)
            if several and (sorted(who) != who or len(who) != len(share) or abs(sum(share) - 1.0) > 1e-12):
                return False
            if not several and share != 1.0:
                return False
            used |= set(who) if several else {who}
    return (
        np.shape(data["values"]) == shape
        and used <= set(data["components"])
        and set(data["components"]) - used <= {"VA"}
        and all(c == c.upper() for c in data["components"])
        and data["output"].rsplit("_", 1)[0] in ("TRACER_DIFF", "TRACER_D0", "TRACER_Q")
    )


def test_datasets_follow_the_rules_and_broken_ones_do_not(results):
    sets = tracer_datasets(results, phase="FCC_A1")
    assert len(sets) == 2 * 2 * 3 and all(map(follows_the_rules, sets))
    assert len(tracer_datasets(results[:1], phase="FCC_A1")) == 2  # one temperature tells no Q
    first = json.dumps(sets[0])
    for spoil in (
        lambda d: d.update(values=d["values"][0]),
        lambda d: d["components"].append("FE"),
        lambda d: d["solver"]["sublattice_configurations"][0][0].reverse(),
        lambda d: d["solver"]["sublattice_site_ratios"].pop(),
        lambda d: d["conditions"]["T"].pop(),
    ):
        broken = json.loads(first)
        spoil(broken)
        assert not follows_the_rules(broken)


def test_espei_accepts_the_files(results, tmp_path):
    espei = pytest.importorskip("espei.datasets")
    paths = write_tracer_datasets(results, tmp_path / "sets", phase="FCC_A1")
    assert len({p.name for p in paths}) == 12 and paths[0].name == "CuNi-TRACER_DIFF_CU-0.json"
    for path in paths:
        data = json.loads(path.read_text())
        espei.check_dataset(data)
        data["values"] = data["values"][0]
        with pytest.raises(espei.DatasetError):
            espei.check_dataset(data)
    assert len(espei.load_datasets([str(p) for p in paths])) == 12


def test_kawin_fits_them(results, tmp_path):
    """MQ = RT ln D* of kawin's fit gives back the diffusivities."""
    fitting = pytest.importorskip("kawin.mobility_fitting")
    results = results + alloy_results({"Cu": 2, "Ni": 6})
    write_tracer_datasets(results, tmp_path, phase="FCC_A1")
    phases = {"FCC_A1": {"sublattice_model": [["CU", "NI"], ["VA"]], "sublattice_site_ratios": [1, 1]}}
    base = fitting.generate_mobility({"components": ["CU", "NI", "VA"], "phases": phases}, str(tmp_path))
    for result in results:
        x = atom_fractions(result)
        for species, q in result.tracer_diffusivity.items():
            parameter = 0.0
            for p in base._parameters:
                if p["diffusing_species"].name != species.upper():
                    continue
                names = [s.name.capitalize() for s in p["constituent_array"][0]]
                shape = np.prod([x[n] for n in names])
                if len(names) == 2:
                    shape = shape * (x[names[0]] - x[names[1]]) ** p["parameter_order"]
                values = {**base.symbols, "T": result.temperature_K}
                parameter += shape * float(p["parameter"].subs(values))
            found = np.exp(parameter / (R * result.temperature_K))
            assert found == pytest.approx(float(q), rel=0.02, abs=0)


def test_values_are_those_of_the_results(results):
    sets = {
        (d["output"], d["solver"]["sublattice_occupancies"][0][0][0]): d for d in tracer_datasets(results, phase="P")
    }
    for half, own in ((0.5, results[:3]), (0.75, results[3:])):
        data = sets["TRACER_DIFF_CU", half]
        assert data["conditions"]["T"] == list(TEMPERATURES) and data["kind"] == "exact"
        assert np.ravel(data["values"]).tolist() == [float(r.tracer_diffusivity["Cu"]) for r in own]
        d0, q = (np.ravel(sets[f"{name}_CU", half]["values"])[0] for name in ("TRACER_D0", "TRACER_Q"))
        log = np.log([float(r.tracer_diffusivity["Cu"]) for r in own])
        slope, start = np.polyfit(1 / np.array(TEMPERATURES), log, 1)
        assert q == pytest.approx(-R * slope, rel=1e-5) and d0 == pytest.approx(np.exp(start), rel=1e-9, abs=0)
        # exact diffusivities leave no error
        assert np.ravel(sets["TRACER_Q_CU", half]["errors"]).tolist() == [0.0]


def test_errors_of_an_arrhenius_line_are_those_of_its_points(results):
    """Q and D0 of data drawn with their errors scatter as much as is said; twice the errors are twice as much."""
    from ase_kinoson.exchange import _arrhenius

    t = np.array(TEMPERATURES)
    true = 1e-5 * np.exp(-200e3 / (R * t))
    rng = np.random.default_rng(0)
    error = 0.05 * true
    drawn = [_arrhenius(t, true + error * rng.standard_normal(3), error) for _ in range(400)]
    q, said = np.array([x[2][0][0] for x in drawn]), drawn[0][2][1][0]
    assert abs(q.mean() - 200e3) < 4 * said / np.sqrt(400) + 100
    assert 0.88 < q.std() / said < 1.12
    logs, said = np.log([x[1][0][0] for x in drawn]), _arrhenius(t, true, error)[1][1][0] / 1e-5
    assert 0.88 < logs.std() / said < 1.12
    assert _arrhenius(t, true, 2 * error)[2][1][0] == pytest.approx(2 * _arrhenius(t, true, error)[2][1][0])
    assert np.isnan(_arrhenius(t, true, np.full(3, np.nan))[2][1][0])


def test_mobilities_and_csv(results, tmp_path):
    one = results[0]
    found = mobilities(one)["Cu"]
    d = float(one.tracer_diffusivity["Cu"])
    assert float(found) == pytest.approx(d / (R * 900.0), rel=1e-5, abs=0)
    assert float(found) == pytest.approx(d / (units.kB / units.J * units.mol * 900.0), rel=1e-12, abs=0)
    write_tracer_csv(results, tmp_path / "tracers.csv")
    with open(tmp_path / "tracers.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 12 and rows[0]["species"] == "Cu" and float(rows[0]["temperature [K]"]) == 900.0
    assert float(rows[0]["tracer_diffusivity [m^2/s]"]) == d
    assert float(rows[0]["mobility [mol m^2/(J s)]"]) == float(found)
    assert float(rows[0]["RT_ln_D [J/mol]"]) == pytest.approx(R * 900.0 * np.log(d), rel=1e-5)
    assert [float(r["x_Cu [1]"]) for r in rows] == [0.5] * 6 + [0.75] * 6
    assert all("[" in name for name in rows[0] if name not in ("species", "kind"))


def test_an_interstitial_stands_in_no_configuration():
    """Dilute hydrogen: its diffusivity belongs to the host, as kawin wants it."""
    network = hcp_interstitials()
    model = ak.SiteBarriers((0.0, 0.1), (0.6,) * network.n_classes)
    result = ak.exact_transport(network.supercell, network, model, 500.0)
    (data,) = tracer_datasets(result, phase="HCP_A3", site_ratios=(1, 0.5))
    assert follows_the_rules(data) and data["components"] == ["MG", "VA"] and data["output"] == "TRACER_DIFF_H"
    assert data["solver"]["sublattice_configurations"] == [["MG", "VA"]]
    assert np.ravel(data["values"])[0] == float(result.tracer_diffusivity["H"])


def test_bad_input_is_one_sentence(results):
    bare = alloy_results({"Cu": 4, "Ni": 4}, (900.0,), vacancy_fraction=None)
    for function in (mobilities, lambda r: tracer_datasets(r, phase="FCC_A1")):
        with pytest.raises(KinosonError, match="per c_v; expected absolute ones"):
            function(bare[0])
    with pytest.raises(KinosonError, match="expected each once"):
        tracer_datasets([*results, results[0]], phase="FCC_A1")
    with pytest.raises(KinosonError, match=r"outputs \['MOB'\]"):
        tracer_datasets(results, phase="FCC_A1", outputs=["MOB"])
    with pytest.raises(KinosonError, match=r"no tracer diffusivity of \['Au'\]"):
        tracer_datasets(results, phase="FCC_A1", species=["Au"])
    with pytest.raises(KinosonError, match="found no results"):
        tracer_datasets([], phase="FCC_A1")
    cell, network = tiny_cell({"Cu": 4, "Ni": 4})
    cold = ak.exact_transport(cell, network, ak.SpeciesRates({"Cu": 1, "Ni": 1}), vacancy_fraction=1e-4)
    with pytest.raises(KinosonError, match="without temperature"):
        mobilities(cold)
