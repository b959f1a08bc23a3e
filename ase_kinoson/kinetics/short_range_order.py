"""Short-range order of states: Warren–Cowley parameters by shell and pair of species."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import StatesError
from ase_kinoson.mson import Storable

__all__ = ["ShortRangeOrder", "warren_cowley"]

SAME_DISTANCE = 1e-3
"""Distances that differ by less (relative) are one shell."""


@dataclass(frozen=True, eq=False)
class ShortRangeOrder(Storable):
    """Warren–Cowley parameters α_ab = 1 − P_ab/(c_a c_b), weighted over states.

    P_ab is the probability that the two sites of a pair of atoms of a shell hold a and b (in this order), c the
    fractions of all atoms. α_ab < 0: more pairs than at random; 0: at random in an infinite crystal.

    Attributes
    ----------
    species : tuple of str
        Order of the matrices.
    distances : ndarray, shape (n_shells,)
        Of the shells, Å.
    alpha, error : ndarray, shape (n_shells, n_species, n_species)
        Values and standard errors over groups of states, no unit (NaN where there is one group).
    random : ndarray, shape (n_shells, n_species, n_species)
        What decorations drawn at random have on average in this cell, no unit: −1/(n_atoms − 1) for unlike pairs on a
        single sublattice.
    carrier, carrier_error : ndarray, shape (n_shells, n_species), or None
        The same for pairs of the vacancy and an atom, 1 − P_a/c_a, no unit; None without a vacancy.
    n_groups : int
        Independent groups of states.

    Notes
    -----
    J. M. Cowley, Phys. Rev. 77, 669 (1950), for a binary alloy; here for every pair of species.
    """

    species: tuple[str, ...]
    distances: NDArray[np.float64]
    alpha: NDArray[np.float64]
    error: NDArray[np.float64]
    random: NDArray[np.float64]
    carrier: NDArray[np.float64] | None
    carrier_error: NDArray[np.float64] | None
    n_groups: int

    def pair(self, first: str, second: str, *, shell: int = 1) -> tuple[float, float]:
        """Value and error of one pair of species in one shell (the nearest is 1).

        Parameters
        ----------
        first, second
            Symbols.
        shell
            Which shell of neighbours; the nearest is 1.

        Returns
        -------
        tuple of float
            α and its standard error, no unit.

        Raises
        ------
        StatesError
            If a species is unknown or the shell was not measured.
        """
        if not (first in self.species and second in self.species and 1 <= shell <= len(self.distances)):
            raise StatesError(
                f"found the pair {first}-{second} in shell {shell}; expected species of {self.species} and a shell of "
                f"1 to {len(self.distances)}; correct it"
            )
        where = shell - 1, self.species.index(first), self.species.index(second)
        return float(self.alpha[where]), float(self.error[where])

    def __str__(self) -> str:
        pairs = [(a, b) for a in range(len(self.species)) for b in range(a, len(self.species))]
        names = [f"{self.species[a]}-{self.species[b]}" for a, b in pairs]
        lines = ["shell  distance/Å" + "".join(f"{name:>18}" for name in names)]
        for m, distance in enumerate(self.distances):
            cells = [f"{self.alpha[m, a, b]:+.3f} ± {self.error[m, a, b]:.3f}" for a, b in pairs]
            lines.append(f"{m + 1:5d}  {distance:10.4f}" + "".join(f"{cell:>18}" for cell in cells))
        return "\n".join(lines)


def warren_cowley(states: States, *, n_shells: int = 3) -> ShortRangeOrder:
    """Measure the short-range order of weighted states.

    Interstitial sites do not count; pairs with a vacancy are kept apart, in ``carrier``.

    Parameters
    ----------
    states
        With weights and groups.
    n_shells
        Number of shells of neighbours.

    Returns
    -------
    ShortRangeOrder
        With values, errors and what random decorations have.

    Raises
    ------
    StatesError
        If a shell reaches from a site to its own periodic image.

    Notes
    -----
    J. M. Cowley, Phys. Rev. 77, 669 (1950), for a binary alloy; here for every pair of species.
    """
    cell = states.supercell
    if n_shells < 1:
        raise StatesError(f"found n_shells={n_shells}; expected at least 1; raise it")
    if not len(states):
        raise StatesError("found no states; expected at least one; sample some first")
    interstitial = np.array([s.interstitial for s in cell.alloy.sublattices])
    hosts = np.flatnonzero(~interstitial[cell.sublattice])
    first, second, shell, distances = _shells(cell, hosts, n_shells)
    symbols = {s for sub in cell.alloy.sublattices if not sub.interstitial for s in sub.species}
    codes = np.array([c for c, s in enumerate(cell.species) if c > 0 and s in symbols])
    of_code = np.full(len(cell.species), -1)
    of_code[codes] = np.arange(len(codes))
    kinds = len(codes)
    labels, group = np.unique(states.groups, return_inverse=True)
    # counts of (a, b) per state and shell, the vacancy as one kind more
    found = np.zeros((len(labels), n_shells, kinds + 1, kinds + 1))
    for n, row in enumerate(states.occupations):
        kind = np.where(row > 0, of_code[row], kinds)
        flat = (shell * (kinds + 1) + kind[first]) * (kinds + 1) + kind[second]
        counts = np.bincount(flat, minlength=n_shells * (kinds + 1) ** 2)
        found[group[n]] += states.weights[n] * counts.reshape(n_shells, kinds + 1, kinds + 1)
    share = np.bincount(group, states.weights)
    weighs = share > 0  # a group of no weight tells nothing
    found, share = found[weighs], share[weighs]
    on = states.occupations[:, hosts]
    fraction = np.array([states.weights @ (on == c).sum(axis=1) for c in codes])
    fraction = fraction / fraction.sum()
    expected = fraction[:, None] * fraction
    atoms, with_vacancy = found[:, :, :kinds, :kinds], found[:, :, kinds, :kinds]
    alpha, error = _one_minus_ratio(atoms, expected, share)
    carrier, carrier_error = None, None
    if with_vacancy.any():
        carrier, carrier_error = _one_minus_ratio(with_vacancy, fraction, share)
    return ShortRangeOrder(
        tuple(cell.species[c] for c in codes),
        distances,
        alpha,
        error,
        _at_random(cell, hosts, codes, first, second, shell, n_shells, expected),
        carrier,
        carrier_error,
        len(share),
    )


def _shells(cell: Supercell, hosts: NDArray, n_shells: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Pairs of sites and their shells, each pair in both orders."""
    positions = cell.positions[hosts]
    reach = 1.2 * cell.shortest_distance
    while True:
        i, j, d = primitive_neighbor_list("ijd", cell.pbc, cell.cell, positions, reach)
        order = np.argsort(d, kind="stable")
        i, j, d = i[order], j[order], d[order]
        shell = np.concatenate([[0], np.cumsum(np.diff(d) > SAME_DISTANCE * d[:-1])]) if len(d) else np.zeros(0, int)
        if len(d) and shell[-1] >= n_shells:  # one more than wanted: the last wanted one is complete
            break
        reach *= 1.3
    keep = shell < n_shells
    i, j, d, shell = i[keep], j[keep], d[keep], shell[keep]
    if np.any(i == j):
        raise StatesError(
            f"found a site that is its own neighbour in shell {int(shell[i == j].min()) + 1} of {n_shells}; expected a "
            "larger cell; ask for fewer shells or a larger supercell"
        )
    distances = np.bincount(shell, d) / np.bincount(shell)
    return hosts[i], hosts[j], shell, distances


def _one_minus_ratio(counts: NDArray, expected: NDArray, share: NDArray) -> tuple[NDArray, NDArray]:
    """1 − P/expected from counts of groups (n_groups, n_shells, ...), and its standard error over groups."""
    axes = tuple(range(2, counts.ndim))
    total = counts.sum(axis=0)
    pairs = total.sum(axis=tuple(a - 1 for a in axes), keepdims=True)
    pairs = np.where(pairs > 0, pairs, np.nan)
    value = total / pairs
    if len(share) < 2:
        return 1.0 - value / expected, np.full_like(value, np.nan)
    # a ratio of sums over groups: its residuals, of mean zero, give the error
    residual = (counts - value * counts.sum(axis=axes, keepdims=True)) / pairs
    error = np.sqrt(len(share) / (len(share) - 1) * (residual**2).sum(axis=0))
    return 1.0 - value / expected, error / expected


def _at_random(
    cell: Supercell,
    hosts: NDArray,
    codes: NDArray,
    first: NDArray,
    second: NDArray,
    shell: NDArray,
    n_shells: int,
    expected: NDArray,
) -> NDArray[np.float64]:
    """Exact mean of α over decorations with the cell's numbers of atoms on each sublattice."""
    symbols = [cell.species[c] for c in codes]
    probability = np.zeros((n_shells, len(codes), len(codes)))
    numbers = {int(s): np.array([cell.counts[s].get(x, 0) for x in symbols]) for s in np.unique(cell.sublattice[hosts])}
    sites = {s: int((cell.sublattice == s).sum()) for s in numbers}
    one, two = cell.sublattice[first], cell.sublattice[second]
    for s, own in numbers.items():
        for t, other in numbers.items():
            pairs = np.bincount(shell[(one == s) & (two == t)], minlength=n_shells).astype(float)
            if not pairs.any():
                continue
            both = np.outer(own, other) / (sites[s] * sites[t])
            if s == t:
                both = (np.outer(own, own) - np.diag(own)) / (sites[s] * max(1, sites[s] - 1))
            probability += pairs[:, None, None] * both
    return 1.0 - probability / probability.sum(axis=(1, 2), keepdims=True) / expected
