"""The positions of one carrier in one frozen arrangement, as a network of resistors solved exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.kinosons.exact import solve_poisson, transfer_matrix
from ase_kinoson.kinosons.site_graph import Clusters, SiteGraph
from ase_kinoson.kinosons.wide_rates import enclose, is_wide

__all__ = ["FrozenArrangement"]


@dataclass(frozen=True, eq=False)
class FrozenArrangement:
    """Positions of the carrier in one arrangement, and the exact solution.

    Attributes
    ----------
    graph : SiteGraph
    weights : ndarray, shape (n,)
        Equilibrium weight π of the carrier on every site, sum 1.
    flow : ndarray, shape (n, J)
        π_i W_ij, s⁻¹: equal for a jump and its reverse.
    clusters : Clusters
        Sites connected by jumps with a rate above zero.
    """

    graph: SiteGraph
    weights: NDArray[np.float64]
    flow: NDArray[np.float64]
    clusters: Clusters

    @classmethod
    def of_flow(cls, graph: SiteGraph, weights: NDArray, flow: NDArray) -> FrozenArrangement:
        """Take weights and flows, which must be equal for a jump and its reverse."""
        return cls(graph, weights, flow, graph.clusters(flow > 0))

    @classmethod
    def of_open_sites(cls, graph: SiteGraph, opened: NDArray[np.bool_]) -> FrozenArrangement:
        """Open sites of equal energy, all jumps between them with a rate of 1 s⁻¹; the others are blocked."""
        weights = opened / opened.sum()
        return cls.of_flow(graph, weights, np.where(graph.both_open(opened), weights[:, None], 0.0))

    @cached_property
    def displacement(self) -> NDArray[np.float64]:
        """Relaxed displacement δx + Δy of every jump, Å, shape (n, J, 3).

        Zero, with no rounding, in clusters that do not wrap around the cell and along directions in which they do not.
        """
        graph = self.graph
        inside = self.clusters.percolating
        own = np.flatnonzero(inside)
        moved = np.zeros((*graph.targets.shape, 3))
        if len(own) == 0:
            return moved
        place = np.full(len(graph), -1, dtype=np.int32)
        place[own] = np.arange(len(own))
        flow, vectors = self.flow[own], graph.vectors[own]
        # jumps that do not happen, also those out of the cluster, have no flow
        targets = np.where(flow > 0, place[graph.targets[own]], -1)
        if is_wide(flow):
            found = self._enclosed(own, targets)
        else:
            found = self._solved(targets, flow, vectors)
        label = self.clusters.label[own]
        for cluster, along in self.clusters.directions(graph.network.supercell.cell):
            if np.linalg.matrix_rank(along) < graph.network.dimension:
                found[label == cluster] = found[label == cluster] @ along
        moved[own] = found
        return moved

    def _solved(self, targets: NDArray, flow: NDArray, vectors: NDArray) -> NDArray[np.float64]:
        drift = np.einsum("nk,nkx->nx", flow, vectors)
        # among equal jumps nothing but rounding is left, which no solver should chase
        drift[np.abs(drift) <= 1e-13 * np.einsum("nk,nkx->nx", flow, np.abs(vectors))] = 0.0
        y = solve_poisson(targets, flow, drift, direct=self._direct)
        return np.where((targets >= 0)[..., None], vectors + y[targets] - y[:, None], 0.0)

    def _enclosed(self, own: NDArray, targets: NDArray) -> NDArray[np.float64]:
        """The same where flows spread over many decades, with a proof, or a refusal."""
        graph, carrier = self.graph, "vacancy" if self.graph.network.mechanism == "vacancy" else "carrier"
        solved = enclose(
            targets,
            self.flow[own],
            graph.images[own][:, :, None].astype(np.int64),
            lambda rows, k: graph.vectors[own[rows], k][:, None],
            vectors=graph.network.supercell.cell,
            projector=graph.network.projector,
            names=(carrier,),
            carrier=carrier,
            plain=partial(solve_poisson, direct=self._direct),
        )
        return solved.tension[:, :, 0]

    @property
    def _direct(self) -> bool | None:
        return True if self.graph.network.dimension < 3 else None

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """½ Σ π W (δx + Δy) ⊗ (δx + Δy), Å²/s, shape (3, 3)."""
        return self._outer(self.displacement)

    @cached_property
    def bare(self) -> NDArray[np.float64]:
        """The same with y = 0: diffusion over the shortest times, Å²/s, shape (3, 3)."""
        return self._outer(self.graph.vectors)

    def bounds(self, n_steps: int) -> NDArray[np.float64]:
        """Λ[y], Å²/s, from above, for the best y that looks 0, 1, … n_steps jumps ahead, shape (n_steps + 1,).

        The best combination of the mean displacements in the next jump, the one after it, and so on, with one set of
        factors for all sites: the steps of conjugate gradients.
        """
        graph, n = self.graph, len(self.graph)
        total = self.flow.sum(axis=1)
        scale = np.divide(1.0, np.sqrt(total), out=np.zeros(n), where=total > 0)
        matrix = transfer_matrix(graph.targets, self.flow, scale)
        along = graph.network.projector
        residual = np.einsum("nk,nkx->nx", self.flow, graph.vectors @ along) * scale[:, None]
        direction, size = residual.copy(), np.square(residual).sum()
        values = np.full(n_steps + 1, np.sum(self.bare * along))
        for step in range(n_steps):
            image = direction - matrix @ direction
            curvature = np.sum(direction * image)
            if size <= 1e-28 * np.abs(values[0]) or curvature <= 0:  # converged
                break
            values[step + 1 :] -= size**2 / curvature
            residual = residual - size / curvature * image
            new = np.square(residual).sum()
            direction, size = residual + new / size * direction, new
        return values / graph.network.dimension

    @property
    def percolating_share(self) -> float:
        """Weight of the sites in clusters that wrap around the cell."""
        return float(self.weights[self.clusters.percolating].sum())

    def _outer(self, moved: NDArray) -> NDArray[np.float64]:
        flat = moved.reshape(-1, 3)
        return 0.5 * (flat * self.flow.reshape(-1, 1)).T @ flat
