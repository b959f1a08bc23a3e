"""One jump deeper: y + θ r̄, with r̄ what a relaxation leaves.

The first rung of the residual ladder is the bound of the relaxation y' = y + θ r̄. Evaluated in full, over all
neighbours of every state, y' is a relaxation like any other: its bound needs reference barriers of single states only,
and the ladder can go on from it. It costs the evaluation of y in every neighbouring state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.crystal.states import States
from ase_kinoson.errors import ModelError, StatesError
from ase_kinoson.kinosons.ball import RelaxedJumps

if TYPE_CHECKING:
    from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["Surroundings", "deepen", "deeper_jumps"]

CHUNK = 32


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Sites that matter to a carrier on one basis site and to where its jumps lead; each is listed once.

    Attributes
    ----------
    basis, cells : ndarray of int, shape (m,) and (m, 3)
        Sites relative to the carrier.
    own : ndarray of int
        Place of the sites of the carrier's own ball in that list.
    behind : tuple of ndarray or None
        The same for the state behind every jump; None where there is no jump.
    start : int
        Place of the carrier's site.
    ends : ndarray of int, shape (J,)
        Places of the sites that jumps lead to.
    """

    basis: NDArray[np.int64]
    cells: NDArray[np.int64]
    own: NDArray[np.int64]
    behind: tuple[NDArray[np.int64] | None, ...]
    start: int
    ends: NDArray[np.int64]

    @classmethod
    def build(cls, relaxation: Relaxation, basis_site: int) -> Surroundings:
        """List the sites around a carrier on ``basis_site``."""
        network, cell = relaxation.network, relaxation.network.supercell
        carrier = np.array([np.flatnonzero(cell.basis_index == basis_site)[0]])
        stencil = relaxation.ball(basis_site).stencil
        parts = [(stencil.window_basis, stencil.window_cells)]
        for k in range(network.n_jumps):
            if network.exists[basis_site, k]:
                behind = relaxation.ball(int(network.target_basis[basis_site, k])).stencil
                parts.append((behind.window_basis, behind.window_cells + network.target_cell[basis_site, k]))
        basis = np.concatenate([b for b, _ in parts])
        cells = np.concatenate([c for _, c in parts])
        sites = cell.neighbors(carrier, basis, cells)[0]
        # in a small cell different ways lead to one site, the same from every carrier
        _, first, place = np.unique(sites, return_index=True, return_inverse=True)
        pieces = iter(np.split(place, np.cumsum([len(b) for b, _ in parts])[:-1]))
        own = next(pieces)
        exists = network.exists[basis_site]
        at = dict(zip(sites[first].tolist(), range(len(first)), strict=True))
        ends = [at[t] if there else -1 for t, there in zip(network.targets(carrier)[0].tolist(), exists, strict=True)]
        return cls(
            basis[first],
            cells[first],
            own,
            tuple(next(pieces) if there else None for there in exists),
            at[int(carrier[0])],
            np.array(ends, dtype=np.int64),
        )


def deepen(relaxation: Relaxation, states: States, *, progress: bool = False) -> Relaxation:
    """Follow one jump more: y + θ r̄ with the factor θ of each species that is best on some states.

    Parameters
    ----------
    relaxation
        A trained relaxation that knows model rates.
    states
        Equilibrium states of these rates; some hundreds suffice for one number per species. They count as training
        states.
    progress
        Show a bar.

    Returns
    -------
    Relaxation
        A copy that takes (1 + J) times as long to evaluate, J the number of jumps.

    Raises
    ------
    ModelError
        If the relaxation has no rates, or is one jump deeper already.
    StatesError
        If the states live on another supercell.

    Notes
    -----
    It is the first step of the ladder taken inside y: docs/derivations.md#the-residual-ladder,
    docs/theory.md#relaxations.
    """
    network = relaxation.network
    if relaxation.rates is None or relaxation.scales is not None:
        found = "no model rates" if relaxation.rates is None else "one jump more already"
        raise ModelError(f"found a relaxation with {found}; expected one with rates that is not deepened; train one")
    if states.supercell != network.supercell:
        raise StatesError(
            f"found states on {states.supercell.n_sites} sites; expected the supercell of the relaxation, "
            f"{network.supercell.n_sites} sites; sample them on it"
        )
    n_species = len(network.supercell.species) - 1
    pairs, tracer = np.zeros((3, n_species, n_species)), np.zeros((3, n_species))
    basis = network.basis_of(states.carriers)
    along = network.projector
    with tqdm(total=len(states), desc="deepening y", unit="state", disable=not progress) as bar:
        for b in np.unique(basis):
            rows = np.flatnonzero(basis == b)
            for first in range(0, len(rows), CHUNK):
                part = rows[first : first + CHUNK]
                base, moved, change = _parts(relaxation, int(b), states.occupations[part], states.carriers[part])
                assert base.rates is not None
                w = base.rates * states.weights[part, None]
                member = (base.codes[:, :, None] == np.arange(1, n_species + 1)).astype(float)
                both = (moved @ along, change @ along)
                of_species = [np.einsum("bkwx,bws->bksx", x, member, optimize=True) for x in both]
                for i, (p, q) in enumerate(((0, 0), (0, 1), (1, 1))):
                    pairs[i] += np.einsum("bk,bkax,bkcx->ac", w, of_species[p], of_species[q], optimize=True)
                    product = np.einsum("bk,bkwx,bkwx->bw", w, both[p], both[q], optimize=True)
                    tracer[i] += np.einsum("bw,bws->s", product, member)
                bar.update(len(part))
    # the sum of Λ[y + θ r̄]/Λ[y] over the carrier, every species and every tracer, a quadratic form in θ
    value = np.diag(pairs[0])
    moves = (value > 0) & (tracer[0] > 0) & (np.diag(pairs[2]) > 0)
    weight, own = (np.divide(1.0, x, out=np.zeros(n_species), where=moves) for x in (value, tracer[0]))
    whole = float(pairs[0].sum())
    gradient = pairs[1].sum(axis=0) / whole + np.diag(pairs[1]) * weight + tracer[1] * own
    curvature = pairs[2] / whole + np.diag(np.diag(pairs[2]) * weight + tracer[2] * own)
    scales = np.zeros(n_species)
    scales[moves] = -np.linalg.solve(curvature[np.ix_(moves, moves)], gradient[moves])
    report = dict(relaxation.report)
    report["training_keys"] = sorted({*report.get("training_keys", ()), *states.keys})
    report["deepened_on"] = len(states)
    return replace(relaxation, scales=scales, report=report)


def deeper_jumps(relaxation: Relaxation, basis_site: int, occupations: NDArray, carriers: NDArray) -> RelaxedJumps:
    """Relaxed displacements of a deepened relaxation; see :meth:`Relaxation.relaxed_jumps`."""
    assert relaxation.scales is not None
    base, moved, change = _parts(relaxation, basis_site, occupations, carriers, field=True)
    scale = np.concatenate([[0.0], relaxation.scales])[base.codes]
    return replace(
        base,
        field=base.field + scale[..., None] * base.moved[:, 0],
        moved=moved + scale[:, None, :, None] * change,
    )


def _parts(
    relaxation: Relaxation, basis_site: int, occupations: NDArray, carriers: NDArray, *, field: bool = False
) -> tuple[RelaxedJumps, NDArray[np.float64], NDArray[np.float64]]:
    """Δ_k y and Δ_k r̄ on the surroundings of carriers on one basis site.

    Returns
    -------
    base : RelaxedJumps
        With r̄ in place of the displacements (one "jump") if ``field``.
    moved, change : ndarray, shape (n, J, m, 3)
        δx_i + Δ_k y_i and Δ_k r̄_i, Å.
    """
    network = relaxation.network
    around = relaxation.surroundings(basis_site)
    sites = network.supercell.neighbors(carriers, around.basis, around.cells)
    n, m = sites.shape
    interstitial = network.mechanism == "interstitial"

    def on_sites(b: int, occ: NDArray, c: NDArray, places: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        found = relaxation.plain_jumps(b, occ, c)
        w = found.rates
        if w is None:
            assert relaxation.rates is not None
            w = relaxation.rates(occ, c)
        total = w.sum(axis=1, keepdims=True)
        p = np.divide(w, total, out=np.zeros_like(w), where=total > 0)
        y, r = np.zeros((n, m, 3)), np.zeros((n, m, 3))
        y[:, places] = found.field
        r[:, places] = np.einsum("nk,nkwx->nwx", p, found.moved, optimize=True)
        return y, r, w

    y, r, rates = on_sites(basis_site, occupations, carriers, around.own)
    moved, change = np.zeros((n, network.n_jumps, m, 3)), np.zeros((n, network.n_jumps, m, 3))
    sign = 1.0 if interstitial else -1.0
    for k, places in enumerate(around.behind):
        if places is None:
            continue
        occ, c = network.apply(occupations, carriers, np.full(n, k))
        found = on_sites(int(network.target_basis[basis_site, k]), occ, c, places)[:2]
        end = int(around.ends[k])
        for x in found:  # atoms keep the place where they were before the jump
            x[:, [around.start, end]] = x[:, [end, around.start]]
        moved[:, k], change[:, k] = found[0] - y, found[1] - r
        moved[:, k, around.start if interstitial else end] += sign * network.vectors[basis_site, k]
    codes = np.take_along_axis(occupations, sites, axis=1).astype(np.int64)
    return RelaxedJumps(sites, codes, y, r[:, None] if field else moved, rates), moved, change
