"""How far barriers are from what physics asks of them: 0 up to rounding where it is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.barriers.source import BarrierSource, JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.testing.cells import embedded, relabelled, symmetry_operations
from ase_kinoson.units import thermal_energy

NOMINAL_K = 1000.0
"""Temperature at which a gas of rates is expressed in barriers, K."""

LONGEST = 6
"""Jumps of the longest ring."""

MOST_ROUNDS = 6
"""Rounds of a ring that bring every atom back to its site: a ring moves at most five of them in a circle."""

N_WALKS = 4000
"""Random walks among which rings are looked for."""


@dataclass(frozen=True, eq=False)
class _AsBarriers:
    """A gas of rates as barriers k_BT ln(ν/W) at a nominal temperature."""

    rates: Rates

    @property
    def network(self) -> JumpNetwork:
        return self.rates.network

    @property
    def energy(self) -> Any:
        return getattr(self.rates.source, "energy", None)

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        there, back = self.rates.with_reverse(occupations, carriers)
        with np.errstate(divide="ignore"):
            barrier, reverse = (
                thermal_energy(NOMINAL_K) * np.log(self.rates.attempt_frequency / w) for w in (there, back)
            )
        both = np.isfinite(barrier) & np.isfinite(reverse)
        return JumpEnergies(barrier, np.where(both, barrier - np.where(both, reverse, 0.0), 0.0))


def bound_to(model: Any, network: JumpNetwork) -> BarrierSource:
    """Bind a model to a network, as every function that takes a model does.

    Parameters
    ----------
    model
        A barrier model or a lattice gas. One that gives rates only is expressed as barriers, k_BT ln(ν/W) at 1000 K.
    network : JumpNetwork
        The jumps.

    Raises
    ------
    ModelError
        If the model belongs to other jumps or species, or is no model.
    """
    rates = Rates.of(model, network, temperature_K=NOMINAL_K)
    return _AsBarriers(rates) if isinstance(rates.source, RateSource) else rates.source


def malformations(source: BarrierSource, states: States) -> list[str]:
    """Sentences about shapes, NaN, infinite values and padding that are wrong; empty where all is well."""
    network = source.network
    exists = network.exists[network.basis_of(states.carriers)]
    found = source.jump_energies(states.occupations, states.carriers)
    wrong = []
    for name in ("barrier", "delta_e", "attempt_frequency"):
        values = getattr(found, name)
        if values is None and name == "attempt_frequency":
            continue
        if np.shape(values) != exists.shape:
            return [f"found {name} of shape {np.shape(values)}; expected (n_states, J) = {exists.shape}"]
        if name == "attempt_frequency":
            bad = int((exists & ~np.isnan(values) & ~((values > 0) & np.isfinite(values))).sum())
            if bad:
                wrong.append(f"found {bad} attempt frequencies that are not positive; expected s⁻¹, or NaN if unknown")
        elif np.isnan(values).any():
            wrong.append(f"found {int(np.isnan(values).sum())} NaN in {name}; expected eV")
    if not wrong:
        open_ = np.isfinite(found.barrier)
        if np.isneginf(found.barrier).any():
            wrong.append("found a barrier of −inf; expected eV, or inf where there is no jump")
        if (open_ & ~exists).any():
            wrong.append(
                f"found {int((open_ & ~exists).sum())} finite barriers of jumps that do not exist; expected inf"
            )
        if not open_.any():
            wrong.append("found no finite barrier; expected some")
        if not np.isfinite(found.delta_e[open_]).all():
            wrong.append("found an infinite energy change of a jump with a finite barrier; expected eV")
    return wrong


def reproducibility_defect(source: BarrierSource, states: States) -> float:
    """Largest change of a barrier, eV, when the states are asked for again, in another order and one by one.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    occ, c = states.occupations, states.carriers
    first = source.jump_energies(occ, c).barrier
    again = source.jump_energies(occ, c).barrier
    turned = source.jump_energies(occ[::-1].copy(), c[::-1].copy()).barrier[::-1]
    alone = np.concatenate([source.jump_energies(occ[[i]], c[[i]]).barrier for i in range(len(c))])
    return max(_largest(other, first) for other in (again, turned, alone))


def symmetry_defect(source: BarrierSource, states: States) -> float:
    """Largest change of a barrier or ΔE, eV, when state and jump are turned by an operation of the supercell.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    network = source.network
    here = source.jump_energies(states.occupations, states.carriers)
    basis = network.basis_of(states.carriers)
    worst = 0.0
    for image, rotation in symmetry_operations(states.supercell):
        turned = np.empty_like(states.occupations)
        turned[:, image] = states.occupations
        carriers = image[states.carriers]
        found = source.jump_energies(turned, carriers)
        for i, b in enumerate(basis):
            own = np.flatnonzero(network.exists[b])
            moved = network.vectors[b, own] @ rotation.T
            there = network.vectors[network.basis_of(carriers[[i]])[0]]
            match = np.linalg.norm(there[None] - moved[:, None], axis=-1).argmin(axis=1)
            worst = max(worst, _largest(found.barrier[i, match], here.barrier[i, own]))
            worst = max(worst, _largest(found.delta_e[i, match], here.delta_e[i, own]))
    return worst


def translation_defect(source: BarrierSource, states: States) -> float:
    """Largest change of a barrier or ΔE, eV, when a state is shifted by lattice vectors of the parent crystal.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    cell = states.supercell
    here = source.jump_energies(states.occupations, states.carriers)
    worst = 0.0
    for by in [*np.eye(3, dtype=np.int64)[cell.pbc], cell.pbc.astype(np.int64)]:
        image = cell.translate(np.arange(cell.n_sites), by)
        moved = np.empty_like(states.occupations)
        moved[:, image] = states.occupations
        there = source.jump_energies(moved, image[states.carriers])
        worst = max(worst, _largest(there.barrier, here.barrier), _largest(there.delta_e, here.delta_e))
    return worst


def reverse_defect(source: BarrierSource, states: States) -> float:
    """Largest difference, eV, of K between a jump and its reverse, or of ΔE from antisymmetry.

    A jump that is rejected in one direction only counts as infinite.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    worst = 0.0
    for here, there, _, _ in _there_and_back(source, states):
        worst = max(worst, _largest(there.kra, here.kra), _largest(there.delta_e, -here.delta_e))
    return worst


def frequency_defect(source: BarrierSource, states: States) -> float:
    """Largest relative difference of the attempt frequency between a jump and its reverse; 0 where none is given.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    worst = 0.0
    for here, there, _, _ in _there_and_back(source, states):
        if (here.attempt_frequency is None) != (there.attempt_frequency is None):
            return float("inf")
        if here.attempt_frequency is not None and there.attempt_frequency is not None:
            open_ = np.isfinite(here.barrier)
            worst = max(worst, _largest(np.log(there.attempt_frequency[open_]), np.log(here.attempt_frequency[open_])))
    return float(np.expm1(worst))


def detailed_balance_defect(source: BarrierSource, states: States) -> float:
    """Largest difference, eV, of the energy at the saddle, E + Q, seen from the two ends of a jump.

    With E the energies that weigh the states, π ∝ exp(−E/k_BT): π W is then the same there and back.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.

    Raises
    ------
    KinosonError
        If the source has no ``energy``.
    """
    if not hasattr(source, "energy"):
        raise KinosonError(
            f"found {type(source).__name__} without energies; expected an attribute energy, an EnergyModel, or None if "
            "all states have the same energy; add it"
        )
    energy = source.energy
    worst = 0.0
    for here, there, before, after in _there_and_back(source, states):
        rise = np.zeros(len(before)) if energy is None else energy.energies(after) - energy.energies(before)
        worst = max(worst, _largest(rise + there.barrier, here.barrier))
    return worst


def saddle_defect(source: BarrierSource, states: States) -> float:
    """How far, eV, the lowest saddle lies below the higher end of its jump; negative where all lie above.

    Parameters
    ----------
    source
        Barriers, bound to the jumps of the states.
    states
        States on the supercell of these jumps.
    """
    found = source.jump_energies(states.occupations, states.carriers)
    open_ = np.isfinite(found.barrier)
    return float((np.maximum(found.delta_e, 0.0) - found.barrier)[open_].max(initial=-np.inf))


def swap_defect(energy: Any, states: States, *, n_swaps: int = 40, seed: int = 0) -> float:
    """Largest difference, eV, between ``swap_delta`` and the difference of ``energies``, over random exchanges.

    Sites of one sublattice trade their occupants, as Monte Carlo does; a quarter of the exchanges take the carrier.

    Parameters
    ----------
    energy
        An energy model: ``energies`` and ``swap_delta``.
    states
        States on its supercell.
    n_swaps
        Exchanges to try, in all.
    seed
        Equal seeds give equal exchanges.
    """
    cell = states.supercell
    rng = np.random.default_rng(seed)
    varying = np.flatnonzero(cell.alloy.varying_basis[cell.basis_index])
    if len(varying) == 0:  # an interstitial in a pure host: nothing to exchange
        return 0.0
    rows = rng.integers(len(states), size=n_swaps)
    first = rng.choice(varying, n_swaps)
    first[: n_swaps // 4] = states.carriers[rows[: n_swaps // 4]]
    second = np.array([rng.choice(np.flatnonzero(cell.sublattice == cell.sublattice[i])) for i in first])
    before = states.occupations[rows]
    after = before.copy()
    every = np.arange(n_swaps)
    after[every, first], after[every, second] = before[every, second], before[every, first]
    return _largest(energy.swap_delta(before, first, second), energy.energies(after) - energy.energies(before))


def loop_defect(source: BarrierSource, *, n_loops: int = 24, seed: int = 0) -> float:
    """Largest |Σ (Q − Q of the way back)|, eV, over closed loops of jumps: detailed balance of a learned model.

    A loop is a ring of jumps of the carrier, repeated until every atom is back on its site. Kolmogorov's criterion: the
    products of the rates around a loop are the same in both directions.

    Parameters
    ----------
    source
        Barriers, bound to the jumps on which the loops are made.
    n_loops
        Loops to try.
    seed
        Equal seeds give equal loops.
    """
    return float(np.abs(loop_sums(source, n_loops, seed)[0]).max(initial=0.0))


def energy_loop_defect(source: BarrierSource, *, n_loops: int = 24, seed: int = 0) -> float:
    """Largest |Σ ΔE|, eV, over the closed loops of :func:`loop_defect`: 0 if ΔE comes from a function of the state.

    Parameters
    ----------
    source
        Barriers, bound to the jumps on which the loops are made.
    n_loops
        Loops to try.
    seed
        Equal seeds give equal loops.
    """
    return float(np.abs(loop_sums(source, n_loops, seed)[1]).max(initial=0.0))


def size_defect(model: Any, states: States, larger: JumpNetwork, *, network: JumpNetwork, seed: int = 0) -> float:
    """Largest change of a barrier or ΔE, eV, when the states are continued periodically into a larger cell.

    The larger cell holds one carrier as well; its images become atoms. Barriers stay if they depend on nothing
    farther away than the shortest vector of the smaller cell less a jump.

    Parameters
    ----------
    model
        As for :func:`bound_to`; it must go to another supercell (``bind`` or ``on``).
    states : States
        On the smaller cell.
    larger, network : JumpNetwork
        The same jumps on the larger and on the smaller cell, of which the larger is a multiple.
    seed
        Of the atoms in the place of images.
    """
    big = embedded(states, larger.supercell, seed=seed)
    here = bound_to(model, network).jump_energies(states.occupations, states.carriers)
    there = bound_to(model, larger).jump_energies(big.occupations, big.carriers)
    return max(_largest(there.barrier, here.barrier), _largest(there.delta_e, here.delta_e))


def relabelling_defect(
    make: Callable[[JumpNetwork, Mapping[str, str]], Any],
    states: States,
    names: Mapping[str, str],
    network: JumpNetwork,
) -> float:
    """Largest change of a barrier or ΔE, eV, when the species get other symbols, in the alloy and in the model.

    Parameters
    ----------
    make
        ``make(network, names)`` builds the model with every parameter of species ``s`` given to ``names[s]``.
    states : States
        States on the supercell of the jumps.
    names : mapping of str to str
        New symbol of each species, such as ``{"Ag": "Cu", "Cu": "Ag"}``: best one that changes the alphabetical order.
    network : JumpNetwork
        Jumps on the supercell of the states.
    """
    same = {s: s for s in states.supercell.species[1:]}
    other = relabelled(network, names)
    species = other.supercell.species
    codes = np.array([0, *(species.index(names.get(s, s)) for s in states.supercell.species[1:])], dtype=np.int8)
    here = bound_to(make(network, same), network).jump_energies(states.occupations, states.carriers)
    there = bound_to(make(other, {**same, **names}), other).jump_energies(codes[states.occupations], states.carriers)
    return max(_largest(there.barrier, here.barrier), _largest(there.delta_e, here.delta_e))


def _largest(a: NDArray, b: NDArray) -> float:
    """Largest difference; jumps that are infinite on both sides agree, on one side only they do not."""
    a, b = np.asarray(a), np.asarray(b)
    if np.any(np.isfinite(a) != np.isfinite(b)):
        return float("inf")
    both = np.isfinite(a)
    return float(np.abs(a[both] - b[both]).max(initial=0.0))


def _there_and_back(source: BarrierSource, states: States) -> Any:
    """Energies, shape (n,), of each jump and of its reverse, and the occupations before and after, jump by jump."""
    network = source.network
    found = source.jump_energies(states.occupations, states.carriers)
    basis = network.basis_of(states.carriers)
    for k in range(network.n_jumps):
        rows = np.flatnonzero(network.exists[basis, k])
        before = states.occupations[rows]
        after, carriers = network.apply(before, states.carriers[rows], np.full(len(rows), k))
        back = source.jump_energies(after, carriers)
        at = np.arange(len(rows)), network.reverse[basis[rows], k]
        yield _pick(found, (rows, k)), _pick(back, at), before, after


def _pick(found: JumpEnergies, index: Any) -> JumpEnergies:
    own = found.attempt_frequency
    return JumpEnergies(found.barrier[index], found.delta_e[index], None if own is None else own[index])


def loop_sums(source: BarrierSource, n_loops: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of Q − Q back and of ΔE around the loops of :func:`loop_defect`, eV, shape (n_loops,) each.

    Jumps that are rejected there and back count 0.
    """
    network = source.network
    rng = np.random.default_rng(seed)
    states = sample_states(network.supercell, n_loops, seed=seed)
    occ, c = states.occupations, states.carriers
    start = network.basis_of(c)
    drawn = {int(b): iter(_rings(network, int(b), int((start == b).sum()), rng)) for b in np.unique(start)}
    rings = [next(drawn[int(b)]) for b in start]
    open_, rows = np.ones(n_loops, dtype=bool), np.arange(n_loops)
    barriers, energies = np.zeros(n_loops), np.zeros(n_loops)
    here = _shuffled(source, occ, c, rng)
    for step in range(max(map(len, rings)) * MOST_ROUNDS):
        k = np.array([ring[step % len(ring)] for ring in rings])
        back = network.reverse[network.basis_of(c), k]
        occ, c = network.apply(occ, c, k)
        there = _shuffled(source, occ, c, rng)
        forth, home = here.barrier[rows, k], there.barrier[rows, back]
        passable = np.isfinite(forth) | np.isfinite(home)
        barriers[open_ & passable] += (forth - home)[open_ & passable]
        energies[open_ & passable] += here.delta_e[rows, k][open_ & passable]
        here = there
        # a ring is closed when every atom is back; atoms of one kind are alike
        whole = np.array([(step + 1) % len(ring) == 0 for ring in rings])
        open_ &= ~(whole & (occ == states.occupations).all(axis=1) & (c == states.carriers))
        if not open_.any():
            break
    return barriers, energies


def _shuffled(source: BarrierSource, occ: NDArray, c: NDArray, rng: np.random.Generator) -> JumpEnergies:
    """Ask for states in random order: a model in which they influence each other closes no loop."""
    order = rng.permutation(len(c))
    return _pick(source.jump_energies(occ[order], c[order]), np.argsort(order))


def _rings(network: JumpNetwork, basis: int, n: int, rng: np.random.Generator) -> list[list[int]]:
    """Draw n walks of up to six jumps that lead the carrier back to where it began without stepping straight back.

    A lattice without such a ring (a chain) gives a jump and its reverse.
    """
    counts = network.exists.sum(axis=1)
    existing = np.argsort(~network.exists, axis=1, kind="stable")  # jumps that exist come first
    at = np.full(N_WALKS, basis)
    jumps = np.empty((N_WALKS, LONGEST), dtype=np.int64)
    path = np.zeros((N_WALKS, LONGEST + 1, 3))
    length = np.zeros(N_WALKS, dtype=np.int64)  # jumps until the first return; 0: none
    for step in range(LONGEST):
        k = jumps[:, step] = existing[at, (rng.random(N_WALKS) * counts[at]).astype(int)]
        path[:, step + 1] = path[:, step] + network.vectors[at, k]
        at = network.target_basis[at, k]
        home = (at == basis) & np.all(np.abs(path[:, step + 1]) < 1e-6, axis=1)
        length[home & (length == 0)] = step + 1
    straight_back = np.all(np.abs(path[:, 2:] - path[:, :-2]) < 1e-6, axis=2)
    straight_back &= np.arange(2, LONGEST + 1) <= length[:, None]
    found = np.flatnonzero((length > 0) & ~straight_back.any(axis=1))
    if len(found) == 0:
        k0 = int(existing[basis, 0])
        return [[k0, int(network.reverse[basis, k0])]] * n
    return [jumps[i, : length[i]].tolist() for i in rng.choice(found, n)]
