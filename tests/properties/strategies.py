"""Random crystals, cells, states, barrier models and state spaces.

What is drawn is a small description (a recipe), so that a counterexample prints as something that can be typed in
again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from hypothesis import assume, reject
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson.errors import StructureError
from ase_kinoson.kinosons.exact import StateSpace

SPECIES = ("Ag", "Au", "Cu", "Ni", "Pd", "Pt")


# -- crystals ---------------------------------------------------------------------------------------------------


def flat(cell: Any, positions: Any = ((0.0, 0.0, 0.5),)) -> Atoms:
    return Atoms(f"Cu{len(positions)}", scaled_positions=positions, cell=cell, pbc=(1, 1, 0))


HEXAGONAL = [[2.5, 0, 0], [-1.25, 2.165063509461097, 0], [0, 0, 12]]
PARENTS: dict[str, Callable[[], Atoms]] = {
    "sc": lambda: bulk("Cu", "sc", a=2.6),
    "bcc": lambda: bulk("Cu", "bcc", a=2.9),
    "fcc": lambda: bulk("Cu", "fcc", a=3.6),
    "diamond": lambda: bulk("Cu", "diamond", a=5.4),
    "hcp": lambda: bulk("Cu", "hcp", a=2.6, c=4.1),
    "square": lambda: flat([2.5, 2.5, 10]),
    "triangular": lambda: flat(HEXAGONAL),
    "honeycomb": lambda: flat(HEXAGONAL, ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5))),
    "chains": lambda: Atoms("Cu", cell=[[2.5, 0, 0], [0.4, 2.9, 0], [0.3, 0.5, 3.3]], pbc=True),
    "triclinic": lambda: Atoms("Cu", cell=[[2.5, 0, 0], [0.2, 2.6, 0], [0.3, 0.5, 2.55]], pbc=True),
    "zigzag": lambda: Atoms("Cu2", scaled_positions=ZIGZAG, cell=[[3.1, 0, 0], [0, 3.5, 0], [0.7, 0, 3.3]], pbc=True),
    "B2": lambda: Atoms("CuZn", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True),
    "B2, both": lambda: Atoms("CuZn", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True),
    "L1₂": lambda: Atoms("Cu3Zn", scaled_positions=L12, cell=[3.7] * 3, pbc=True),
    "L1₂, both": lambda: Atoms("Cu3Zn", scaled_positions=L12, cell=[3.7] * 3, pbc=True),
    "L1₂, host disordered": lambda: Atoms("Cu3Zn", scaled_positions=L12, cell=[3.7] * 3, pbc=True),
    "octahedra of fcc": lambda: bulk("Cu", "fcc", a=3.6),
    "octahedra of bcc": lambda: bulk("Cu", "bcc", a=2.9),
    "both of hcp": lambda: bulk("Cu", "hcp", a=2.6, c=4.25),
}
ZIGZAG = [[0.1, 0.25, 0.2], [0.9, 0.75, 0.8]]
L12 = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 0]]
CAGES = {
    "octahedra of fcc": "octahedral",
    "octahedra of bcc": "octahedral",
    "both of hcp": ["octahedral", "tetrahedral"],
}
VACANCY = tuple(name for name in PARENTS if name not in CAGES)


def build_alloy(
    lattice: str, species: tuple[str, ...], shares: tuple[int, ...], atoms: Atoms | None = None
) -> ak.Alloy:
    """Mix ``species`` on one of PARENTS, or on the same crystal described by other ``atoms``."""
    composition: dict[str, Mapping[str, float]] = {
        "Cu": {s: n / sum(shares) for s, n in zip(species, shares, strict=True)}
    }
    mobile = None
    if lattice.endswith("both"):  # the second sublattice shares a species with the first
        composition["Zn"], mobile = {species[0]: 0.5, "Zn": 0.5}, ["Cu", "Zn"]
    elif lattice.endswith("host disordered"):
        composition["Zn"], mobile = {"Al": 0.5, "Zn": 0.5}, ["Cu"]
    elif lattice in ("B2", "L1₂"):
        mobile = ["Cu"]
    alloy = ak.Alloy.from_atoms(PARENTS[lattice]() if atoms is None else atoms, composition, mobile=mobile)
    return alloy.with_interstitials("C", CAGES[lattice]) if lattice in CAGES else alloy


_alloy = cache(build_alloy)
seeds = st.integers(0, 2**32 - 1)


@cache
def _jumps(lattice: str) -> ak.JumpNetwork:
    return ak.JumpNetwork.from_supercell(_alloy(lattice, ("Ag", "Cu"), (1, 1)).supercell(4))


def hermite(lattice: str, n_cells: int, most: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Hermite normal form of a lattice of at least ``n_cells`` primitive cells in which no jump sees its image."""
    jumps, rng = _jumps(lattice), np.random.default_rng(seed)
    alloy = jumps.supercell.alloy
    for n in range(n_cells, most + 1):
        for _ in range(20):
            a = int(rng.choice([k for k in range(1, n + 1) if n % k == 0]))
            c = int(rng.choice([k for k in range(1, n // a + 1) if n // a % k == 0])) if jumps.dimension == 3 else 1
            b = n // a // c
            rows = ((a, int(rng.integers(b)), int(rng.integers(c))), (0, b, int(rng.integers(c))), (0, 0, c))
            with suppress(StructureError):
                jumps.with_supercell(ak.Supercell(alloy, np.array(rows)))
                return rows
    reject()


@dataclass(frozen=True)
class Recipe:
    """A supercell of an alloy."""

    lattice: str
    species: tuple[str, ...]
    shares: tuple[int, ...]
    matrix: tuple[tuple[int, ...], ...]

    @property
    def alloy(self) -> ak.Alloy:
        return _alloy(self.lattice, self.species, self.shares)

    @cached_property
    def cell(self) -> ak.Supercell:
        return self.alloy.supercell(np.array(self.matrix), of="primitive")

    @cached_property
    def network(self) -> ak.JumpNetwork:
        return ak.JumpNetwork.from_supercell(self.cell)


def skewed(draw: Any, rows: Any, dimension: int) -> tuple[tuple[int, ...], ...]:
    """Other vectors of the same lattice: sums, exchanges and reversals of rows."""
    m = np.array(rows)
    for _ in range(draw(st.integers(0, 3))):
        i, j = draw(st.permutations(range(dimension)))[:2]
        kind = draw(st.sampled_from(["add", "swap", "reverse"]))
        if kind == "add":
            m[i] += draw(st.integers(-2, 2)) * m[j]
        elif kind == "swap":
            m[[i, j]] = m[[j, i]]
        else:
            m[i] *= -1
    return tuple(tuple(int(v) for v in row) for row in m)


@st.composite
def mixes(draw: Any, most: int = 3) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Species and their shares in whole numbers."""
    species = draw(st.lists(st.sampled_from(SPECIES), min_size=1, max_size=most, unique=True))
    return tuple(species), tuple(draw(st.integers(1, 4)) for _ in species)


@st.composite
def cells(draw: Any, lattices: tuple[str, ...] = tuple(PARENTS), most: int = 40) -> Recipe:
    """A supercell of any shape, however small or skewed."""
    lattice = draw(st.sampled_from(lattices))
    species, shares = draw(mixes())
    alloy = _alloy(lattice, species, shares)
    d, left, rows = alloy.dimension, max(1, most // alloy.n_basis), np.eye(3, dtype=int)
    for axis in range(d):
        rows[axis, axis] = draw(st.integers(1, max(1, left)))
        left //= rows[axis, axis]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        if j < d:
            rows[i, j] = draw(st.integers(0, rows[j, j] - 1))
    return Recipe(lattice, species, shares, skewed(draw, rows, d))


@st.composite
def networks(draw: Any, lattices: tuple[str, ...] = tuple(PARENTS), most: int = 40, species: int = 3) -> Recipe:
    """A supercell large enough for its jumps."""
    lattice = draw(st.sampled_from(lattices))
    names, shares = draw(mixes(species))
    alloy = _alloy(lattice, names, shares)
    largest = max(3, most // alloy.n_basis)
    rows = hermite(lattice, draw(st.integers(3, largest)), largest, draw(seeds))
    return Recipe(lattice, names, shares, skewed(draw, rows, alloy.dimension))


def arrangement(recipe: Recipe, seed: int, n: int = 1) -> tuple[Any, Any]:
    """Random occupations with one carrier each and any number of atoms of each kind; shapes (n, n_sites), (n,)."""
    cell, rng = recipe.cell, np.random.default_rng(seed)
    occ = np.zeros((n, cell.n_sites), dtype=np.int8)
    carriers = rng.choice(cell.mobile_sites, n)
    for i, sub in enumerate(cell.alloy.sublattices):
        if not sub.interstitial:
            sites = np.flatnonzero(cell.sublattice == i)
            codes = [cell.species.index(s) for s in sub.species]
            occ[:, sites] = rng.choice(codes, (n, len(sites)))
    rows = np.arange(n)
    occ[rows, carriers] = cell.species.index("C") if cell.alloy.is_interstitial else 0
    return occ, carriers


# -- barriers ---------------------------------------------------------------------------------------------------

ENERGETIC = ("pairs", "learned")
KINDS = ("rates", "random", *ENERGETIC)


@dataclass(frozen=True)
class Model:
    """A barrier model or gas of rates of any alloy: its numbers follow from a seed and from the names of species."""

    kind: str
    seed: int
    decades: float = 3.0
    strength: float = 0.1

    def make(self, network: ak.JumpNetwork, names: Mapping[str, str] | None = None) -> Any:
        """The model; ``names[s]`` is what the alloy calls species ``s``."""
        rename = {s: s for s in network.supercell.species} if names is None else dict(names)
        original = sorted(rename)  # numbers are dealt out by the original names
        rng = np.random.default_rng(self.seed)
        mobile = {s for sub in network.supercell.alloy.sublattices if sub.mobile for s in sub.species}
        level = {rename[s]: v for s, v in zip(original, rng.uniform(0.0, 1.0, len(original)), strict=True)}
        if self.kind == "rates":
            return ak.SpeciesRates({s: 10 ** (self.decades * (2 * v - 1)) for s, v in level.items() if s in mobile})
        if self.kind == "random":
            return ak.RandomBarriers(0.8, self.strength, seed=self.seed)
        pairs = [(rename[a], rename[b]) for i, a in enumerate(original) for b in original[i:]]
        bonds = dict(zip(pairs, rng.uniform(-1.0, 1.0, len(pairs)) * self.strength, strict=True))
        known = set(network.supercell.species)
        bonds = {pair: e for pair, e in bonds.items() if set(pair) <= known}
        energy = ak.PairEnergy.from_interactions(network.supercell, bonds, network=network)
        kra = {s: 0.4 + 0.5 * v for s, v in level.items() if s in mobile}
        return ak.PairBarriers(energy, kra) if self.kind == "pairs" else learned(network, energy, self.seed)


def learned(network: ak.JumpNetwork, energy: ak.PairEnergy, seed: int) -> ak.BarrierModel:
    """A barrier model whose networks have random weights, in double precision."""
    import torch

    from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
    from ase_kinoson.barriers.kra import KraModel
    from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment

    n_atoms = len(network.supercell.species) - 1
    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**31)
        kra = KraModel.build(JumpEnvironment.build(network), n_atoms, hidden=3, layers=1)
        carrier = CarrierNetwork.build(CarrierEnvironment.build(network), hidden=2, layers=1)
        for net in (*kra.networks, *carrier.networks):
            net.double()
            for name, value in (*net.named_parameters(), *net.named_buffers()):
                if name == "mean":
                    value.uniform_(0.5, 0.9)
                elif value.dtype.is_floating_point:
                    value.data = (0.01 if name == "linear" else 0.2) * torch.randn_like(value)
    kra.dtype = carrier.dtype = torch.float64
    kra.dtype = carrier.dtype = torch.float64
    return ak.BarrierModel(network, NetworkEnergy(energy, carrier), kra)


def models(kinds: tuple[str, ...] = KINDS, decades: float = 3.0) -> st.SearchStrategy[Model]:
    """Any barrier model."""
    return st.builds(
        Model,
        st.sampled_from(kinds),
        seeds,
        st.floats(0.0, decades, width=16),
        st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    )


temperatures = st.floats(500.0, 3000.0)

# -- one crystal, seen in several ways ----------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """Another description of one crystal: order and origin of the parent's sites, its cell, and its orientation."""

    seed: int
    repeats: int = 1
    skew: int = 0
    turned: bool = True

    @property
    def rotation(self) -> np.ndarray:
        q, _ = np.linalg.qr(np.random.default_rng(self.seed).normal(size=(3, 3)))
        return q * np.linalg.det(q) if self.turned else np.eye(3)

    def of(self, atoms: Atoms) -> Atoms:
        """The same crystal, rotated, with its sites renumbered and shifted."""
        rng = np.random.default_rng(self.seed)
        periodic = np.flatnonzero(atoms.pbc)
        repeats = np.ones(3, dtype=int)
        repeats[rng.choice(periodic)] = self.repeats
        new = atoms.repeat(tuple(repeats))
        i, j = rng.permutation(periodic)[:2]
        vectors = np.array(new.cell)
        vectors[i] += self.skew * vectors[j]
        positions = new.positions + rng.uniform(-3, 3, 3) @ np.where(atoms.pbc[:, None], vectors, 0.0)
        new = Atoms(new.symbols, positions=positions, cell=vectors, pbc=atoms.pbc)[rng.permutation(len(new))]
        new.set_cell(new.cell @ self.rotation.T, scale_atoms=True)
        return new

    def network(self, recipe: Recipe) -> ak.JumpNetwork:
        """The jumps on the same supercell of the same alloy."""
        alloy = build_alloy(recipe.lattice, recipe.species, recipe.shares, self.of(PARENTS[recipe.lattice]()))
        matrix = recipe.cell.cell @ self.rotation.T @ np.linalg.inv(alloy.cell)
        assert np.abs(matrix - np.rint(matrix)).max() < 1e-6
        return ak.JumpNetwork.from_supercell(ak.Supercell(alloy, np.rint(matrix).astype(int)))


views = st.builds(View, seeds, st.integers(1, 2), st.integers(-1, 1), st.booleans())

# -- state spaces that can be solved ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """All states of a small cell with given numbers of atoms, and their rates."""

    recipe: Recipe
    counts: tuple[tuple[str, int], ...] | None
    model: Model
    temperature_K: float

    def solve(self, network: ak.JumpNetwork | None = None, names: Mapping[str, str] | None = None) -> ak.Transport:
        """The exact solution, here or on another network that is the same crystal with species called ``names``."""
        network = self.recipe.network if network is None else network
        counts = self.counts and {s if names is None else names[s]: n for s, n in self.counts}
        model = self.model.make(network, None if names is None else {"X": "X", **names})
        return ak.exact_transport(network.supercell, network, model, self.temperature_K, counts=counts)

    def bound(self, solved: ak.Transport, relaxation: ak.Relaxation | None) -> ak.Transport:
        """Λ[y] over the exact states."""
        network = self.recipe.network
        with warnings.catch_warnings():  # a random y may well be worse than none
            warnings.simplefilter("ignore", ak.KinosonWarning)
            return ak.transport(
                solved.states, network, self.model.make(network), relaxation, self.temperature_K, n_resamples=2
            )


@st.composite
def problems(
    draw: Any,
    lattices: tuple[str, ...] = tuple(PARENTS),
    kinds: tuple[str, ...] = KINDS,
    decades: float = 3.0,
    limit: int = 150,
    least: int | None = None,
) -> Problem:
    """A cell with ``least`` to ``limit`` states, whose flows πW a solution in double precision resolves.

    Few states are easily drawn and show little; by default one in three problems may have less than four.
    """
    least = draw(st.sampled_from((4, 4, 1))) if least is None else least
    lattice = draw(st.sampled_from(lattices))
    n_basis = _jumps(lattice).supercell.alloy.n_basis
    recipe = draw(networks((lattice,), most=max(16, 4 * n_basis)))
    cell, counts = recipe.cell, None
    try:
        _ = cell.counts
    except StructureError:
        reject()
    mobile = sorted({s for sub in cell.alloy.sublattices if sub.mobile for s in sub.species})
    if not cell.alloy.is_interstitial:
        left, numbers = len(cell.mobile_sites) - 1, {}
        main, *others = draw(st.permutations(mobile))
        for s in others:
            numbers[s] = draw(st.integers(0, min(2, left)))
            left -= numbers[s]
        counts = tuple(sorted({**numbers, main: left}.items()))
    try:
        space = StateSpace.enumerate(recipe.network, counts=dict(counts) if counts else None, limit=limit)
    except ak.KinosonError:
        reject()
    assume(len(space) >= least)
    problem = Problem(recipe, counts, draw(models(kinds, decades)), draw(temperatures))
    rates = ak.Rates.of(problem.model.make(recipe.network), recipe.network, temperature_K=problem.temperature_K)
    flow = (space.weights(rates)[:, None] * rates(space.occupations, space.carriers))[space.next_state >= 0]
    assume(flow.min() > 1e-8 * flow.max())
    return problem
