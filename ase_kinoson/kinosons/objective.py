"""The loss of training: Λ[y] itself, in units of Λ[0].

The mean of Λ_q[y]/Λ_q[0] over the vacancy, every species and every tracer. It is an average over equilibrium states of
the very rates that it uses; other states would minimise another functional.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.rates import Rates, check_total
from ase_kinoson.kinosons.ball import relaxed_displacements
from ase_kinoson.kinosons.paths import InnerRates, Paths
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.side_by_side import on_all_cores

__all__ = ["Objective"]

CHUNK = 64


@dataclass(frozen=True, eq=False)
class _Pool:
    """States whose carriers sit on one basis site."""

    basis_site: int
    rows: NDArray[np.int64]  # of the states of the objective
    codes: Tensor  # (n, n_window)
    paths: Paths | None
    rates: Tensor  # (n, J), in units of the mean escape rate
    weights: Tensor  # (n,), mean 1 over all states


@dataclass(frozen=True, eq=False)
class Objective:
    """Λ[y]/Λ[0] of some states.

    Attributes
    ----------
    pools : tuple
        States and their rates by basis site of the carrier.
    escape : float
        Mean escape rate, s⁻¹, the unit of the rates.
    bare : ndarray, shape (n_species,)
        Λ_aa[0] in units of the escape rate times 2d, Å²; 0 for species that never move.
    """

    pools: tuple[_Pool, ...]
    escape: float
    bare: NDArray[np.float64]

    @classmethod
    def of(cls, relaxation: Relaxation, states: States, *, rates: Rates | None = None) -> Objective:
        """Look up everything about the states that does not change in training.

        Parameters
        ----------
        relaxation
            Any relaxation of the same form.
        states
            Weighted states.
        rates
            Rates of the functional; default the model rates of the relaxation.

        Raises
        ------
        KinosonError
            If nothing can move.
        """
        network = relaxation.network
        basis = network.basis_of(states.carriers)
        raw = []
        for b in np.unique(basis):
            rows = np.flatnonzero(basis == b)
            occ, carriers = states.occupations[rows], states.carriers[rows]
            ball = relaxation.ball(int(b))
            forward, paths = [], []
            for begin in range(0, len(rows), CHUNK):
                part = slice(begin, begin + CHUNK)
                inner: InnerRates = relaxation.inner_rates(int(b), occ[part], carriers[part])
                paths.append(relaxation.paths(ball, inner))
                if rates is None and relaxation.lookahead:
                    forward.append(inner.forward[:, 0])
                else:
                    own = rates or relaxation.rates
                    assert own is not None
                    forward.append(own(occ[part], carriers[part]))
            found = [p for p in paths if p is not None]
            raw.append(
                (
                    int(b),
                    rows,
                    ball.stencil.window(occ, carriers),
                    Paths.concatenate(found) if found else None,
                    np.concatenate(forward),
                    states.weights[rows] * len(states),
                )
            )
        total = sum(float((w[:, None] * root).sum()) for *_, root, w in raw) / len(states)
        if total > 0 or np.isnan(total):
            of = rates or relaxation.rates
            kelvin = None if of is None else of.temperature_K
            check_total(total, allowed=True, has_barriers=True, temperature_K=kelvin)
        else:
            raise KinosonError(
                "found no jump with a positive rate in the training states; expected at least one; check the rates"
            )
        bare = np.zeros(len(network.supercell.species) - 1)
        for b, _, codes, _, root, w in raw:
            length = np.square(network.vectors[b] @ network.projector).sum(-1)
            moved = codes[:, np.maximum(relaxation.ball(b).stencil.mover[0], 0)]
            for a in range(len(bare)):
                bare[a] += float((w[:, None] * root * length * (moved == a + 1)).sum()) / len(states) / total
        dtype, device = relaxation.dtype, relaxation.device
        pools = tuple(
            _Pool(
                b,
                rows,
                torch.as_tensor(codes, device=device),
                paths,
                torch.as_tensor(root / total, dtype=dtype, device=device),
                torch.as_tensor(w, dtype=dtype, device=device),
            )
            for b, rows, codes, paths, root, w in raw
        )
        return cls(pools, total, bare)

    def __len__(self) -> int:
        return sum(len(p.codes) for p in self.pools)

    def calibrate(self, relaxation: Relaxation) -> None:
        """Take the scale of the rates that gates see from these states."""
        assert relaxation.closure is not None
        relaxation.closure.calibrate(*((p.paths, p.weights) for p in self.pools if p.paths is not None))

    def batches(self, size: int, rng: np.random.Generator) -> list[tuple[int, Tensor]]:
        """Shuffled batches of one basis site each."""
        found = []
        for which, pool in enumerate(self.pools):
            order = torch.as_tensor(rng.permutation(len(pool.codes)))
            found += [(which, rows) for rows in order.split(size)]
        return [found[i] for i in rng.permutation(len(found))]

    def parts(self, relaxation: Relaxation, which: int, rows: Tensor) -> Tensor:
        """Sum over the states of a batch of their shares of Λ_q[y]/Λ_q[0]; q: carrier, species, tracers."""
        pool = self.pools[which]
        ball = relaxation.ball(pool.basis_site)
        rows = rows.to(pool.codes.device)
        codes = pool.codes[rows]
        y = relaxation.ball_fields(ball, codes, None if pool.paths is None else pool.paths[rows])
        present = self.bare > 0
        species = torch.as_tensor(np.flatnonzero(present) + 1, device=codes.device)
        moved = relaxed_displacements(ball, y)
        if relaxation.network.dimension < 3:  # motion across a layer or chain is no diffusion
            along = torch.as_tensor(relaxation.network.projector, dtype=moved.dtype, device=moved.device)
            moved = torch.einsum("xy,xkwb->ykwb", along, moved)
        member = (codes[:, :, None] == species).to(moved.dtype)
        total = torch.einsum("xkwb,bws->xbks", moved, member)
        squares = torch.einsum("kwb,bws->bks", moved.square().sum(0), member)
        w = pool.rates[rows] * pool.weights[rows, None]
        bare = torch.as_tensor(self.bare[present], dtype=w.dtype, device=w.device)
        carrier = (w * total.sum(-1).square().sum(0)).sum() / float(self.bare.sum())
        collective = torch.einsum("bk,bks->s", w, total.square().sum(0)) / bare
        tracer = torch.einsum("bk,bks->s", w, squares) / bare
        return torch.cat([carrier[None], collective, tracer])

    def loss(self, relaxation: Relaxation, which: int, rows: Tensor) -> Tensor:
        """Mean over all quantities and over the states of a batch."""
        return self.parts(relaxation, which, rows).mean() / len(rows)

    @torch.no_grad()
    def evaluate(self, relaxation: Relaxation) -> tuple[float, dict[str, float]]:
        """Loss over all states, and Λ_q[y]/Λ_q[0] by name."""
        total = torch.zeros(1 + 2 * int((self.bare > 0).sum()), dtype=torch.float64)
        chunks = [(i, rows) for i, pool in enumerate(self.pools) for rows in torch.arange(len(pool.codes)).split(CHUNK)]
        for found in on_all_cores(lambda chunk: self.parts(relaxation, *chunk), chunks):
            total += found.double().cpu()
        total /= len(self)
        symbols = [relaxation.network.supercell.species[1:][a] for a in np.flatnonzero(self.bare > 0)]
        who = "vacancy" if relaxation.network.mechanism == "vacancy" else "carrier"
        names = [who, *symbols, *(f"tracer {s}" for s in symbols)]
        return float(total.mean()), dict(zip(names, total.tolist(), strict=True))
