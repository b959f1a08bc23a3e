"""Everything that can be stored comes back bit for bit: JSON in monty's convention, and files of its own.

What can be stored is found, not listed: a class that is added to the package and can be stored fails here until it has
a maker below.
"""

from __future__ import annotations

import inspect
import json
import struct
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import reject
from hypothesis import strategies as st
from monty.json import MontyDecoder, MontyEncoder

import ase_kinoson as ak
from ase_kinoson.errors import StatesError
from ase_kinoson.map_point import MapPoint
from ase_kinoson.testing import bound_to
from tests.properties.nudging import nudged_json, nudged_within
from tests.properties.running import breaks, holds
from tests.properties.strategies import (
    CAGES,
    VACANCY,
    arrangement,
    cells,
    learned,
    models,
    networks,
    seeds,
    temperatures,
)


def bits(x):
    """The bits of a float; every NaN is alike."""
    return struct.pack("<d", x) if x == x else "nan"


def same(a, b):
    """Equal bit for bit at any depth, the signs of zeros and the types of arrays and containers included."""
    if type(a) is not type(b) and not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.kind != "f":
            return np.array_equal(a, b)
        signs = np.signbit(a) == np.signbit(b)
        return np.array_equal(a, b, equal_nan=True) and bool(np.all(signs | np.isnan(a)))
    if is_dataclass(a):
        left_out = {"relaxation", "settings", "report", *getattr(a, "not_stored", ())}
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in left_out)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.nn.Module):
        return same(a.state_dict(), b.state_dict())
    if isinstance(a, torch.Tensor):
        return same(a.detach().numpy(), b.detach().numpy())
    return bits(a) == bits(b) if isinstance(a, float) else a == b


# -- makers of everything that can be stored --------------------------------------------------------------------------

anything = st.floats(allow_nan=True, allow_infinity=True)


class Maker:
    """One example of each class, made from a random cell, a gas of rates or barriers, and numbers of any size."""

    def __init__(self, recipe, model, seed, temperature, numbers):
        self.recipe, self.seed, self.T, self.numbers = recipe, seed % 2**31, temperature, numbers
        self.network, self.rng = recipe.network, np.random.default_rng(seed)
        self.source = model.make(self.network)
        occ, c = arrangement(recipe, seed, 5)
        weights = 10.0 ** self.rng.uniform(-9, 9, 5)
        self.states = ak.States.from_occupations(
            recipe.cell, occ, carriers=c, weights=weights, groups=[3, 3, 1, 0, 7], temperature_K=temperature,
            ensemble="equilibrium",
            source='a "source" \\ of 50 % Å', model_energies=self.rng.normal(size=5), report={"a": [1, 0.1 + 0.2]},
        )  # fmt: skip
        given = {"temperature_K": temperature, "n_resamples": 3, "seed": 0}
        self.given = given
        self.transport = ak.transport(self.states, self.network, self.source, **given)

    def quantity(self):
        return ak.Quantity(*self.numbers[:2], "m^2/s", "bound")

    def map(self):
        q = self.quantity()
        quantities = {"Ag": q, "Cu": ak.Quantity(1 / 3, 0.0, "1", "exact")}
        point = MapPoint(
            {"Ag": 1 / 3, "Cu": 2 / 3},
            {"Ag": 0.25, "Cu": 0.75},
            self.T,
            3.6,
            q,
            *[quantities] * 3,
            {},
            distance=self.numbers[2],
            tail={"vacancy": self.numbers[3]},
            remarks=("one", "two"),
            probe=tuple(self.numbers),
        )
        return ak.CompositionMap(("Ag", "Cu"), (point,))

    def make(self, name):
        """The object of a class."""
        network, states, T = self.network, self.states, self.T
        match name:
            case "Alloy":
                return self.recipe.alloy
            case "BarrierEnsemble":
                return ak.BarrierEnsemble((self.make("BarrierModel"), self.make("BarrierModel")), scale=1 / 3)
            case "BarrierModel":
                bonds = {("Ag", "Ag"): 0.1, ("Ag", "X"): -1 / 3} if "Ag" in network.supercell.species else {}
                energy = ak.PairEnergy.from_interactions(network.supercell, bonds, network=network)
                model = learned(network, energy, self.seed)
                model.kra.dtype = model.energy.carrier.dtype = torch.float32  # as it is read
                return model
            case "CompositionMap":
                return self.map()
            case "CorrectedTransport":
                try:
                    return ak.correct(self.transport, self.source, n_steps=4, n_resamples=3, seed=0)
                except StatesError:  # the model's own states are of another composition than these few
                    reject()
            case "JumpNetwork":
                return network
            case "KineticMonteCarlo":
                rates = ak.Rates.of(self.source, network, temperature_K=T)
                return ak.KineticMonteCarlo(states, network, rates, n_walkers=3, seed=self.seed)
            case "KinosonArrows":
                return ak.KinosonArrows.of_state(self.transport, 2)
            case "KinosonDensity":
                return ak.KinosonDensity.from_result(self.transport, network=network)
            case "KinosonWarning":
                return ak.KinosonWarning("found 1; expected 2", number=self.numbers[0], limit=1 / 3, advice="do z")
            case "KmcTransport":
                return ak.run_kmc(states, network, self.source, T, n_jumps=128, n_walkers=5, n_resamples=3)
            case "Quantity":
                return self.quantity()
            case "Relaxation":
                rates = ak.Rates.of(self.source, network, temperature_K=T)
                y = ak.Relaxation.create(network, rates=rates, lookahead=self.seed % 3, hidden=2, gates=2, seed=1)
                with torch.no_grad():
                    for value in y.parameters():
                        value += torch.as_tensor(self.rng.normal(size=tuple(value.shape)) * 0.1, dtype=value.dtype)
                return y
            case "ShortRangeOrder":
                try:
                    return ak.warren_cowley(states, n_shells=1)
                except StatesError:  # so small a cell that a site is its own neighbour
                    reject()
            case "States":
                return states
            case "StaticTransport":
                return ak.static_transport(states, network, self.source, T, moving=self._mover(), n_resamples=3)
            case "Sublattice":
                return replace(self.recipe.alloy.sublattices[0], composition=(("Ag", self.numbers[0]), ("Cu", 1 / 3)))
            case "Supercell":
                return self.recipe.cell
            case "Transport":
                return self.transport

    def _mover(self):
        return None if self.recipe.cell.alloy.is_interstitial else self.recipe.species[0]


def storable():
    """Public classes that can be written and read again, and how."""
    found = {}
    for name in ak.__all__:
        cls = getattr(ak, name)
        if inspect.isclass(cls):
            pairs = {"json": ("as_dict", "from_dict"), "save": ("save", "load"), "write": ("write", "read")}
            own = [way for way, pair in pairs.items() if all(hasattr(cls, x) for x in pair)]
            if own:
                found[name] = own
    return found


STORABLE = storable()
INTERSTITIAL = {"StaticTransport"}
"""Made of a carrier in a host that does not move."""
PLAIN = {"KinosonWarning", "Quantity"}
"""Their JSON does not say what to build from it."""


def there_and_back(maker, name, way, folder):
    """What is read again after writing."""
    value = maker.make(name)
    path = Path(folder) / "file"
    if way == "json":
        if name in PLAIN:  # plain values, as reports write them
            return value, type(value).from_dict(json.loads(json.dumps(value.as_dict())))
        return value, json.loads(json.dumps(value, cls=MontyEncoder), cls=MontyDecoder)
    if way == "write":
        value.write(path)
        return value, type(value).read(path, maker.recipe.cell)
    if name == "KineticMonteCarlo":  # goes on as if nothing had happened
        value.run(70)
        value.save(path)
        again = maker.make(name)
        again.load(path)
        for one in (value, again):
            one.run(70)
        return _trajectory(value), _trajectory(again)
    value.save(path)
    if name == "Relaxation":
        again = ak.Relaxation.load(path, maker.network, model=maker.source)
    else:
        again = type(value).load(path)
    if name in ("BarrierModel", "BarrierEnsemble"):
        return tuple(_barriers(one, maker) for one in (value, again))
    if name == "Relaxation":
        return tuple(
            (dict(y.modules.state_dict()), y(maker.states.occupations, maker.states.carriers)) for y in (value, again)
        )
    return value, again


def _trajectory(kmc):
    return [kmc.occupations, kmc.carriers, kmc.atoms, kmc.displacements, kmc.times, kmc.expected_squares(), kmc.n_jumps]


def _barriers(model, maker):
    found = bound_to(model, maker.network).jump_energies(maker.states.occupations, maker.states.carriers)
    members = getattr(model, "members", (model,))
    nets = [n for m in members for n in (*m.kra.networks, *m.energy.carrier.networks)]
    return [found.barrier, found.delta_e, [{k: v.double() for k, v in n.state_dict().items()} for n in nets]]


def returns(name, way, read=there_and_back):
    def check(recipe, model, seed, temperature, numbers):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ak.KinosonWarning)
            maker = Maker(recipe, model, seed, temperature, numbers)
            one, two = read(maker, name, way, folder)
        assert same(one, two)

    return check


def drawn(name):
    lattices = tuple(CAGES) if name in INTERSTITIAL else (*VACANCY, *CAGES)
    numbers = st.lists(anything, min_size=4, max_size=4)
    return networks(lattices, most=24), models(("rates", "pairs")), seeds, temperatures, numbers


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in STORABLE.items() for way in ways])
def test_what_is_stored_comes_back_bit_for_bit(name, way):
    holds(returns(name, way), *drawn(name), n=2)


def test_every_class_that_can_be_stored_is_made_here():
    known = {case.split('"')[1] for case in inspect.getsource(Maker.make).splitlines() if "case " in case}
    assert known == set(STORABLE)


def less_one_bit(maker, name, way, folder):
    """One float that is read, at any depth, has another last bit."""
    rng = np.random.default_rng(maker.seed)
    if way == "json":
        value = maker.make(name)
        data = json.loads(json.dumps(value.as_dict() if name in PLAIN else value, cls=MontyEncoder))
        data = nudged_json(data, rng)
        return value, type(value).from_dict(data) if name in PLAIN else MontyDecoder().process_decoded(data)
    one, two = there_and_back(maker, name, way, folder)
    return one, nudged_within(two, rng)


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in STORABLE.items() for way in ways])
def test_a_lost_bit_is_noticed(name, way):
    breaks(returns(name, way, less_one_bit), *drawn(name), n=20)


def barriers_return(digits):
    """An archive keeps energies to 1e-6 eV: barriers return to that, and once rounded they return bit for bit."""

    def check(recipe, seed, model, temperature, numbers):
        network = recipe.network
        occ, c = arrangement(recipe, seed, 3)
        states = ak.States.from_occupations(recipe.cell, occ, carriers=c)
        source = bound_to(model.make(network), network)
        found = source.jump_energies(occ, c)
        barriers = ak.Barriers.from_arrays(states, network, found.barrier, reverse_barrier=found.reverse_barrier)
        with tempfile.TemporaryDirectory() as folder:
            kept = [barriers]
            for i in range(2):
                ak.save_barriers(Path(folder) / f"{i}.npz", kept[-1])
                kept.append(ak.load_barriers(Path(folder) / f"{i}.npz"))
        _, once, twice = kept
        finite = np.isfinite(found.barrier)
        assert np.array_equal(finite, np.isfinite(once.barrier))
        assert np.abs(once.barrier - found.barrier)[finite].max() <= 10.0**-digits
        for name in ("barrier", "reverse_barrier", "status", "energy_final"):
            assert same(getattr(once, name), getattr(twice, name))
        assert same(once.states.occupations, occ) and same(once.states.weights, twice.states.weights)
        assert once.network.fingerprint == network.fingerprint and once.states.supercell == recipe.cell

    return check


def given_barriers():
    recipe, model, seed, temperature, numbers = drawn("Barriers")
    return recipe, seed, model, temperature, numbers


def test_archives_of_barriers_keep_six_digits_and_then_every_bit():
    holds(barriers_return(6), *given_barriers(), n=5)


def test_archives_that_kept_nine_digits_would_be_noticed():
    breaks(barriers_return(9), *given_barriers(), n=6)


def cells_return(read):
    """With the vectors that were given, and as keys of dictionaries."""

    def check(recipe):
        again = read(recipe.cell)
        assert again == recipe.cell and hash(again) == hash(recipe.cell) and same(again, recipe.cell)

    return check


def test_cells_of_any_shape_come_back():
    holds(cells_return(lambda cell: json.loads(json.dumps(cell, cls=MontyEncoder), cls=MontyDecoder)), cells(), n=12)


def test_other_vectors_of_the_same_lattice_are_another_cell():
    breaks(cells_return(lambda cell: ak.Supercell(cell.alloy, cell.hermite)), cells())
