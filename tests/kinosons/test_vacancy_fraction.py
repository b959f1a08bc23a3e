"""c_v(T) as given, and how its error enters what is proportional to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.units import BOLTZMANN_EV_PER_K
from ase_kinoson.validation import parent

T = 1000.0


def arrhenius(t: float, energy: float = 1.2, entropy: float = 1.5) -> float:
    return float(np.exp(entropy - energy / (BOLTZMANN_EV_PER_K * t)))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_formation_energy_and_entropy() -> None:
    made = VacancyFraction.from_formation(1.2, 1.5, energy_error=0.01, entropy_error=0.2).at(T)
    assert float(made) == pytest.approx(arrhenius(T), rel=1e-12, abs=0)
    assert float(made.error) / float(made) == pytest.approx(np.hypot(0.01 / (BOLTZMANN_EV_PER_K * T), 0.2), rel=1e-12)
    wrong = VacancyFraction.from_formation(1.2, -1.5).at(T)  # the entropy of a vacancy raises c_v
    assert float(made) > 10 * float(wrong)


def test_table_is_linear_in_the_logarithm_against_inverse_temperature(tmp_path: Path) -> None:
    rows = "\n".join(f"{t - 273.15},{1e6 * arrhenius(t)!r},{1e5 * arrhenius(t)!r}" for t in (1200.0, 800.0))
    path = write(
        tmp_path / "cv.csv",
        f"# measured\ntemperature [C], vacancy_fraction [ppm], vacancy_fraction_error [ppm]\n{rows}\n",
    )
    made = VacancyFraction.from_table(path)
    for t in (790.0, 800.0, 930.0, 1200.0, 1240.0):
        assert float(made.at(t)) == pytest.approx(arrhenius(t), rel=1e-9, abs=0)
    assert abs(float(made.at(930.0)) / np.interp(930.0, [800, 1200], [arrhenius(800), arrhenius(1200)]) - 1) > 0.5
    assert float(made.at(800.0).error) == pytest.approx(0.1 * arrhenius(800.0), rel=1e-9, abs=0)
    for t in (800.0, 980.0, 1200.0):  # an error of all rows together is as large between them
        assert float(made.at(t).error) == pytest.approx(0.1 * arrhenius(t), rel=1e-9, abs=0)
    assert "cv.csv" in made.source
    with pytest.raises(KinosonError, match="outside the table"):
        made.at(700.0)
    arrays = VacancyFraction.from_table(([800.0, 1200.0], [arrhenius(800), arrhenius(1200)]), beyond_K=150.0)
    assert float(arrays.at(700.0)) == pytest.approx(arrhenius(700.0), rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temperature,vacancy_fraction\n800,1e-5\n", "without a unit"),
        ("temperature [K],vacancy_fraction\n800,1e-5\n", "'vacancy_fraction' without a unit"),
        ("temperature [F],vacancy_fraction [1]\n800,1e-5\n900,1e-4\n", "unit 'F'"),
        ("temperature [K],c [1]\n800,1e-5\n900,1e-4\n", "rename or add"),
        ("temperature [K],vacancy_fraction [1]\n800,1e-5\n900,many\n", "one number in each row"),
        ("temperature [K],vacancy_fraction [1]\n800,1e-5\n900\n", "one number in each row"),
        ("temperature [K],vacancy_fraction [1]\n800,1e-5\n", "at least two temperatures"),
        ("temperature [K],vacancy_fraction [%]\n800,1e-5\n900,130\n", "found vacancy_fraction=1.3"),
        ("temperature [K],vacancy_fraction [1],vacancy_fraction [%]\n800,1e-5,1\n900,1e-4,1\n", "two columns"),
        ("temperature [K],vacancy_fraction [1],error (ppm)\n800,1e-5,1\n900,1e-4,1\n", "without a unit"),
        ("", "rename or add"),
    ],
)
def test_wrong_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(KinosonError, match=said) as caught:
        VacancyFraction.from_table(write(tmp_path / "cv.csv", text))
    assert "\n" not in str(caught.value)


def test_other_columns_of_a_table_are_passed_over(tmp_path: Path) -> None:
    text = "Temperature [K],source,vacancy_fraction [ppm],note [1],\n1000,Doe,1,x,\n1200,Doe,10,y,\n"
    made = VacancyFraction.from_table(write(tmp_path / "cv.csv", text))
    assert float(made.at(1200.0)) == pytest.approx(1e-5, rel=1e-12, abs=0)


def test_numbers_that_are_no_site_fraction_are_refused(tmp_path: Path) -> None:
    for value in (0.0, -1e-4, 1.5, np.nan):
        with pytest.raises(KinosonError, match="expected a site fraction above 0 and at most 1"):
            VacancyFraction.constant(value)
    with pytest.raises(KinosonError, match="error"):
        VacancyFraction.constant(1e-4, -1e-5)
    with pytest.raises(KinosonError, match=r"found vacancy_fraction=.* at 1000 K from formation energy -0\.1 eV"):
        VacancyFraction.from_formation(-0.1).at(T)
    with pytest.raises(KinosonError, match="energy_error"):
        VacancyFraction.from_formation(1.0, energy_error=-0.1)
    with pytest.raises(KinosonError, match="cannot read the table"):
        VacancyFraction.from_table(tmp_path / "none.csv")


# -- in results ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(tiny: Any, pair_model: Any) -> dict[str, ak.Transport]:
    cell, jumps = tiny
    states = ak.sample_states(cell, 200, method="monte-carlo", model=pair_model, temperature_K=600.0, seed=3, sweeps=30)
    given = {
        "per c_v": None,
        "number": 1e-4,
        "sharp": VacancyFraction.constant(1e-4),
        "rough": VacancyFraction.constant(1e-4, 2e-5, source="a guess"),
    }
    return {
        name: ak.transport(states, jumps, pair_model, None, 600.0, vacancy_fraction=v, seed=4)
        for name, v in given.items()
    }


def test_error_of_the_fraction_enters_what_is_proportional_to_it(evaluated: dict[str, ak.Transport]) -> None:
    per, sharp, rough = evaluated["per c_v"], evaluated["sharp"], evaluated["rough"]
    assert sharp.tracer_diffusivity == evaluated["number"].tracer_diffusivity
    for a in rough.species:
        d, own = rough.tracer_diffusivity[a], per.tracer_diffusivity[a]
        assert float(d) == pytest.approx(1e-4 * float(own), rel=1e-12, abs=0)
        both = np.hypot(float(own.error) / float(own), 0.2)
        assert float(d.error) / float(d) == pytest.approx(both, rel=1e-9)
        assert float(sharp.tracer_diffusivity[a].error) < 0.5 * float(d.error)  # the broken twin: an error that is lost
        assert rough.correlation_factor[a] == sharp.correlation_factor[a]
        tensor = rough.tracer_diffusivity_tensor[a]
        assert np.all(np.asarray(tensor.error) >= 0.2 * np.abs(tensor.value) * (1 - 1e-12))
    assert rough.vacancy_diffusivity == sharp.vacancy_diffusivity
    assert rough.onsager_matrix is not None and sharp.onsager_matrix is not None
    assert np.allclose(
        np.square(rough.onsager_matrix.error),
        np.square(sharp.onsager_matrix.error) + np.square(0.2 * np.asarray(rough.onsager_matrix.value)),
        rtol=1e-9,
        atol=0,
    )
    assert np.array_equal(rough.lambda_matrix.error, sharp.lambda_matrix.error)


@pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")  # of a ladder of two steps
def test_results_tell_the_fraction_its_error_and_source(
    evaluated: dict[str, ak.Transport], pair_model: Any, tiny: Any
) -> None:
    cell, jumps = tiny
    rough = evaluated["rough"]
    corrected = ak.correct(rough, pair_model, n_steps=2, n_trajectories=64, seed=1)
    kmc = ak.run_kmc(
        rough.states, jumps, pair_model, 600.0, n_jumps=128, n_walkers=16, seed=1, vacancy_fraction=rough.given_fraction
    )
    exact = ak.exact_transport(cell, jumps, pair_model, 600.0, vacancy_fraction=rough.given_fraction)
    for result in (rough, corrected, kmc, exact):
        found = result.as_dict()
        assert found["vacancy_fraction"] == 1e-4 and found["vacancy_fraction_error"] == 2e-5
        assert found["vacancy_fraction_source"] == "a guess"
        assert "a guess" in str(result)
        for q in result.tracer_diffusivity.values():
            assert float(q.error) >= 0.2 * float(q) * (1 - 1e-12)
    one = exact.tracer_diffusivity["Cu"]
    assert one.kind == "estimate" and float(one.error) == pytest.approx(0.2 * float(one), rel=1e-12, abs=0)
    assert exact.correlation_factor["Cu"].kind == "exact" and float(exact.correlation_factor["Cu"].error) == 0
    assert evaluated["per c_v"].as_dict()["vacancy_fraction"] is None and evaluated["per c_v"].given_fraction is None


def test_fractions_that_do_not_fit_are_refused(tiny: Any) -> None:
    cell, jumps = tiny
    gas = ak.SpeciesRates({"Ag": 1.0, "Cu": 2.0})
    with pytest.raises(KinosonError, match="no temperature_K"):
        ak.exact_transport(cell, jumps, gas, vacancy_fraction=VacancyFraction.from_formation(1.0))
    with pytest.raises(KinosonError, match=r"found vacancy_fraction=1\.2"):
        ak.exact_transport(cell, jumps, gas, vacancy_fraction=1.2)
    with pytest.raises(KinosonError, match="expected a number or a VacancyFraction"):
        ak.exact_transport(cell, jumps, gas, vacancy_fraction="many")  # type: ignore[arg-type]
    other = VacancyFraction(lambda t: (1e-4, 0.0), "somewhere", constant_in_temperature=True, composition={"Ag": 1.0})
    with pytest.raises(KinosonError, match=r"calculated for Ag 1\.000 and states of Ag 0\.500 Cu 0\.500"):
        ak.exact_transport(cell, jumps, gas, vacancy_fraction=other)


def test_a_cell_rounds_its_composition() -> None:
    """The vacancy of a small cell stands for an atom: that makes no other alloy."""
    cell = parent("square", {"Cu": 0.5, "Ni": 0.5}).supercell((4, 4, 1))
    jumps = ak.JumpNetwork.from_supercell(cell)
    gas = ak.SpeciesRates({"Cu": 1.0, "Ni": 2.0})
    states = ak.sample_states(cell, 8, method="random", seed=1)
    whole = VacancyFraction(lambda t: (1e-4, 0.0), "a cell", composition={"Cu": 0.5, "Ni": 0.5})
    found = ak.transport(states, jumps, gas, None, 800.0, vacancy_fraction=whole)
    assert found.vacancy_fraction == 1e-4
    # broken twin: two atoms apart
    other = VacancyFraction(lambda t: (1e-4, 0.0), "a cell", composition={"Cu": 0.6, "Ni": 0.4})
    with pytest.raises(KinosonError, match=r"calculated for Cu 0\.600"):
        ak.transport(states, jumps, gas, None, 800.0, vacancy_fraction=other)
