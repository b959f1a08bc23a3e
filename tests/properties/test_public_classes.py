"""Every public class comes back bit for bit: from JSON where it is made of values, and from another process.

Classes with files or a JSON form of their own are in test_round_trips; here are all the others in the form that
`ase_kinoson.mson` gives any dataclass, and all of them as they go to the processes of an executor.
"""

from __future__ import annotations

import inspect
import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.barriers.bands import ImportedBand, RefusedBand
from ase_kinoson.errors import SmallCell
from ase_kinoson.kinetics.vacancy_samples import Changes, VacancySamples
from ase_kinoson.kinosons.active import ActiveRound
from ase_kinoson.mson import decode, encode
from ase_kinoson.settings import parse_settings, read_toml, to_toml
from ase_kinoson.testing import bound_to
from tests.properties.nudging import nudged, nudged_json
from tests.properties.running import breaks, holds
from tests.properties.test_round_trips import INTERSTITIAL, STORABLE, Maker, _barriers, _trajectory, drawn, same

CLASSES = tuple(name for name in ak.__all__ if inspect.isclass(getattr(ak, name)))

NOT_VALUES = {"BarrierCalculator", "BarrierEnsemble", "BarrierModel", "KineticMonteCarlo", "KinosonCalculator",
              "KinosonError", "Relaxation"}  # fmt: skip
"""Networks and engines have files of their own, calculators and errors are made where they are needed."""

VALUES = tuple(name for name in CLASSES if "json" not in STORABLE.get(name, ()) and name not in NOT_VALUES)


class AnyMaker(Maker):
    """One example of every public class."""

    def barriers(self):
        found = bound_to(ak.RandomBarriers(0.8, 0.1, seed=3), self.network).jump_energies(
            self.states.occupations, self.states.carriers
        )
        return ak.Barriers.from_arrays(self.states, self.network, found.barrier, reverse_barrier=found.reverse_barrier)

    def pairs(self):
        cell = self.recipe.cell
        energy = ak.PairEnergy.from_interactions(cell, {}, network=self.network)
        energy = replace(energy, coefficients=self.rng.normal(size=energy.coefficients.shape))
        mobile = {s for sub in self.recipe.alloy.sublattices if sub.mobile for s in sub.species}
        return ak.PairBarriers(energy, dict.fromkeys(sorted(mobile), self.numbers[0]))

    def samples(self):
        n, x = 3, self.rng.normal(size=3)
        whole = np.arange(n)
        changes = Changes(whole, whole + 1, whole, 0 * whole, x * 1e-9)
        occ = self.states.occupations[:n]
        return VacancySamples(
            self.recipe.cell, {"Ag": 2}, "random", None, occ, whole, x, x + 1, changes, x * np.nan, {"a": [1, 0.1]}
        )

    def make(self, name):
        network, states, x = self.network, self.states, self.numbers
        quantity = ak.Quantity(*x[:2], "m^2/s", "bound")
        curve = ak.Quantity(np.array(x), np.array(x[::-1]), "1", "estimate")
        mobile = sorted({s for sub in self.recipe.alloy.sublattices if sub.mobile for s in sub.species})
        match name:
            case "ActiveResult":
                rounds = (ActiveRound(3, 1, 9, *x, 1 / 3),)
                chosen = np.array([[0, 1]])
                return ak.ActiveResult(
                    {"Ag": quantity}, "Ag", rounds, self.barriers(), (), chosen, np.array(x), True, {"seed": 1}
                )
            case "BarrierCalculator":
                return ak.BarrierCalculator(self.source, temperature_K=self.T, jumps=network)
            case "Barriers":
                return self.barriers()
            case "CasmCoefficients":
                return ak.CasmCoefficients(("Ag", "Cu"), quantity, curve, {"Ag": quantity}, x[2])
            case "CellComparison":
                told = SmallCell("found x; expected y", number=1 / 3, limit=0.02, unit="eV", advice="do z")
                return ak.CellComparison((32, 108), {"Ag": x[0], "Cu": x[1]}, {"Ag": x[2], "Cu": x[3]}, (told,))
            case "FiveFrequency":
                return ak.FiveFrequency("Ag", *[10.0 ** float(d) for d in self.rng.uniform(-9, 9, 5)])
            case "ImportedBands":
                band = ImportedBand("a/b", 0, 1, -1, -1, "Ag", 3, *x[:2], 2, *x[2:])
                return ak.ImportedBands(self.barriers(), (band,), (RefusedBand("c", None, "no \\"),))
            case "InterstitialSite":
                places = self.rng.normal(size=(2, 3))
                return ak.InterstitialSite("octahedral", "b", places, x[0], np.array(x), ("Fe", "Ni"))
            case "KinosonCalculator":
                return ak.KinosonCalculator(self.source, super().make("Relaxation"), temperature_K=self.T)
            case "KinosonError":
                return ak.KinosonError('found "x"; expected y; do z')
            case "KmcTrajectory":
                return ak.record_trajectory(states, network, self.source, self.T, n_frames=4, seed=self.seed)
            case "MapSettings":
                return ak.MapSettings(attempt_frequency=10.0 ** self.rng.uniform(9, 15))
            case "MeasuredDiffusivity":
                return ak.MeasuredDiffusivity(*[np.array(x)] * 3, np.array(["Ag", "Cu"] * 2), np.array(["é, %"] * 4))
            case "ObstructedDiffusion":
                return ak.ObstructedDiffusion(np.array(x), *[curve] * 4, {8: quantity, 32: curve}, 64, 9)
            case "PairBarriers":
                return self.pairs()
            case "PairEnergy":
                return replace(self.pairs().energy, constant=x[0], report={"rmse": x[1], "n": 3})
            case "PercolationThreshold":
                return ak.PercolationThreshold(quantity, (4, 8), (64, 512), (np.array(x), np.array(x[:1])))
            case "Potential":
                return ak.Potential("emt", {"asap_cutoff": True})
            case "PrincipalAxes":
                return ak.principal_axes(self.transport)
            case "RandomBarriers":
                return ak.RandomBarriers(*x[:2], self.seed, None)
            case "Rates":
                return ak.Rates.of(self.source, network, temperature_K=self.T, attempt_frequency=1e13 / 3)
            case "SaddleSettings":
                return ak.SaddleSettings(fmax_saddle=0.1 / 3)
            case "SiteBarriers":
                return ak.SiteBarriers(tuple(x), tuple(x[::-1]))
            case "SpeciesRates":
                return ak.SpeciesRates(dict.fromkeys(mobile, x[0]))
            case "Study":
                data = {"alloy": {"file": "alloy.cif"}}
                data["transport"] = {"temperatures_K": [self.T, self.T + 100.0]}
                return ak.Study.from_dict(data, "out")
            case "TemperatureSeries":
                other = ak.transport(states, network, self.source, **self.given)
                return ak.TemperatureSeries((self.transport, replace(other, temperature_K=self.T + 100.0)))
            case "VacancyFormation":
                return ak.VacancyFormation((self.samples(),), 1 / 3, 0.1, seed=self.seed)
            case "VacancyFraction":
                kinds = (
                    ak.VacancyFraction.constant(1 / 3, 0.1),
                    ak.VacancyFraction.from_formation(1.1, 2 / 3, energy_error=0.1),
                    ak.VacancyFraction.from_table([[900.0, self.T + 1000.0], [1e-9, 1 / 3e4], [0.0, 1e-6]]),
                    ak.VacancyFormation((self.samples(),)).vacancy_fraction(),
                )
                return kinds[self.seed % len(kinds)]
        return super().make(name)


def contents(name, value, maker):
    """What is compared: for objects that hold networks or engines, what they say."""
    occ, c = maker.states.occupations, maker.states.carriers
    if name in ("BarrierModel", "BarrierEnsemble"):
        return _barriers(value, maker)
    if name == "KineticMonteCarlo":
        value.run(70)
        return _trajectory(value)
    if name == "Relaxation":
        return [dict(value.modules.state_dict()), value(occ, c)]
    if name == "KinosonError":
        return [type(value).__name__, *value.args]
    if name.endswith("Calculator"):
        atoms = maker.recipe.cell.to_atoms(occ[0])
        return [value.get_property("rates", atoms), value.network, type(value).__name__]
    return value


def comes_back(name, way):
    """Equal bit for bit, at any depth."""

    def check(recipe, model, seed, temperature, numbers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ak.KinosonWarning)
            maker = AnyMaker(recipe, model, seed, temperature, numbers)
            value = maker.make(name)
            again = way(value, np.random.default_rng(seed))
            if again is None:
                again = maker.make(name)
            one, two = (contents(name, v, maker) for v in (value, again))
        assert same(one, two)

    return check


def through_json(value, rng):
    if isinstance(value, ak.Study):  # as it is written to its folder
        again = parse_settings(read_toml_text(to_toml(value.settings)))
        return replace(value, settings=again)
    return decode(json.loads(json.dumps(encode(value))))


def read_toml_text(text):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(text, encoding="utf-8")
        return read_toml(path)


def through_a_pipe(value, rng):
    return pickle.loads(pickle.dumps(value))


def less_one_bit_of_json(value, rng):
    if isinstance(value, ak.Study):
        return nudged(value, rng)
    return decode(nudged_json(json.loads(json.dumps(encode(value))), rng))


def less_one_bit(value, rng):
    return nudged(through_a_pipe(value, rng), rng)


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_from_json(name):
    holds(comes_back(name, through_json), *drawn(name), n=1)


@pytest.mark.parametrize("name", VALUES)
def test_a_bit_lost_in_json_is_noticed(name):
    breaks(comes_back(name, less_one_bit_of_json), *drawn(name), n=20)


@pytest.mark.parametrize("name", CLASSES)
def test_all_come_back_from_another_process(name):
    holds(comes_back(name, through_a_pipe), *drawn(name), n=1)


@pytest.mark.parametrize("name", sorted({"States", "Transport", "VacancyFraction", "Barriers", "JumpNetwork", "Rates"}))
def test_a_bit_lost_on_the_way_is_noticed(name):
    breaks(comes_back(name, less_one_bit), *drawn(name), n=20)


def test_every_public_class_has_a_maker_and_a_way():
    source = inspect.getsource(AnyMaker.make) + inspect.getsource(Maker.make)
    known = {line.split('"')[1] for line in source.splitlines() if line.strip().startswith("case ")}
    assert known == set(CLASSES)
    assert NOT_VALUES <= known and INTERSTITIAL <= known
    # what has neither a file nor a JSON form is no value: calculators and errors
    without = {name for name in CLASSES if name not in VALUES and name not in STORABLE}
    assert without == {"BarrierCalculator", "KinosonCalculator", "KinosonError"}
