"""Principal axes of an anisotropic diffusivity: how fast along which direction, with errors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.result import Transport
from ase_kinoson.kinosons.statistics import Quantity

__all__ = ["PrincipalAxes", "principal_axes"]

CLOSED = 1e-9
"""Diffusivities below this part of the largest one are rounding: nothing moves that way."""
SAME = 1e-6
"""Diffusivities that differ by less than this part of the largest one are equal."""
SIGMAS = 2.0
"""So many standard errors must two diffusivities differ by for their axes to be told apart."""
ALIGNED = 1.0
"""An axis within this angle, degrees, of a lattice direction is named after it."""
MAX_INDEX = 4
"""Largest index of a lattice direction."""


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Principal diffusivities and their axes.

    Attributes
    ----------
    diffusivities : Quantity, value shape (3,)
        Largest first, in the unit of the tensor.
    axes : ndarray, shape (3, 3)
        Row ``i`` is the Cartesian unit vector that belongs to ``diffusivities[i]``.
    directions : tuple of str
        The axes as lattice directions (``"[0 1 0]"``) where they are within 1° of one, else as Cartesian vectors.
    tilt : ndarray, shape (3,)
        Standard error of the direction of each axis, degrees, from mixing with axes of other groups.
    groups : tuple of tuple of int
        Axes whose diffusivities are equal within two standard errors. Within a group of two or three the axes are
        arbitrary (any perpendicular choice serves as well); they are laid along Cartesian axes as well as can be.
    group_errors : tuple of float
        Standard error of the mean diffusivity of each group, in the unit of the tensor.
    closed : tuple of int
        Axes along which nothing moves.
    """

    diffusivities: Quantity
    axes: NDArray[np.float64]
    directions: tuple[str, ...]
    tilt: NDArray[np.float64]
    groups: tuple[tuple[int, ...], ...]
    group_errors: tuple[float, ...]
    closed: tuple[int, ...]

    @property
    def is_isotropic(self) -> bool:
        """Whether no direction can be told from another."""
        return len(self.groups) == 1

    @property
    def n_open(self) -> int:
        """Number of directions along which something moves: 1 for a channel, 2 for a layer."""
        return 3 - len(self.closed)

    @property
    def anisotropy(self) -> float:
        """Largest over smallest diffusivity, no unit; inf where nothing moves along one axis."""
        values = np.asarray(self.diffusivities.value)
        return float(values[0] / values[-1]) if not self.closed else np.inf if self.n_open else np.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "diffusivities": self.diffusivities.as_dict(),
            "axes": self.axes.tolist(),
            "directions": list(self.directions),
            "tilt_degrees": self.tilt.tolist(),
            "groups": [list(g) for g in self.groups],
            "group_errors": list(self.group_errors),
            "closed": list(self.closed),
        }

    def __str__(self) -> str:
        q = self.diffusivities
        value, lines = np.asarray(q.value), []
        for group, spread in zip(self.groups, self.group_errors, strict=True):
            where = ", ".join(self.directions[i] for i in group)
            if group[0] in self.closed:
                lines.append(f"along {where}: nothing moves")
                continue
            mean = value[list(group)].mean()
            within = f" within {SIGMAS:g} standard errors" if spread > 0 else ""
            notes = [q.kind] if q.kind else []
            notes += [f"equal{within}; the axes are arbitrary"] if len(group) > 1 else []
            doubt = f" ± {spread:.2g}" if np.isfinite(spread) else ""
            text = [f"along {where}: {mean:.4g}{doubt}", q.unit, f"({'; '.join(notes)})" if notes else ""]
            lines.append(" ".join(part for part in text if part))
        return "\n".join(lines)


def principal_axes(
    tensor: Transport | Quantity | ArrayLike,
    species: str | None = None,
    *,
    lattice: ArrayLike | None = None,
    resamples: ArrayLike | None = None,
) -> PrincipalAxes:
    """Find the principal axes of a diffusion tensor.

    Parameters
    ----------
    tensor : Transport, Quantity or array_like, value shape (3, 3)
        A result, of which the tensor of the carrier or of ``species`` is taken with its resamples; or a tensor in any
        unit.
    species
        With a Transport: the tracer of this species.
    lattice : array_like, shape (3, 3), optional
        Rows are lattice vectors (Å) that name directions; default: the conventional cell, for a Transport that knows
        its network; else the Cartesian axes.
    resamples : array_like, shape (n, 3, 3), optional
        The tensor from resampled data, in its unit. Errors are then those of the projections on the axes, with all
        correlations between elements; without, elements are taken as independent.

    Raises
    ------
    KinosonError
        If the tensor is not a finite symmetric 3 × 3 matrix without negative diffusivities, or the species is unknown.

    Notes
    -----
    Errors are of first order: δD_i = e_i·δD·e_i, and axis e_i turns towards e_j by (e_i·δD·e_j)/(D_i − D_j).

    This is the perturbation theory of a symmetric matrix; see also docs/interstitials.md#anisotropy.
    """
    if isinstance(tensor, Transport):
        quantity, rows, own = _of_transport(tensor, species)
        resamples = rows if resamples is None else resamples
        lattice = own if lattice is None else lattice
    else:
        if species is not None:
            raise KinosonError(
                f"found species={species!r} with a tensor; expected it with a Transport only; pass "
                "result.tracer_diffusivity_tensor[species] alone"
            )
        quantity = tensor if isinstance(tensor, Quantity) else Quantity(np.asarray(tensor, float), np.nan, "", "")
    value = np.asarray(quantity.value, dtype=float)
    if value.shape != (3, 3) or not np.isfinite(value).all():
        raise KinosonError(
            f"found a tensor of shape {value.shape}{'' if np.isfinite(value).all() else ' with NaN or inf'}; expected "
            "a finite 3 x 3 matrix; pass a diffusivity tensor of a result"
        )
    scale = float(np.abs(value).max())
    if np.abs(value - value.T).max() > 1e-6 * scale:
        raise KinosonError("found a tensor that is not symmetric; expected a diffusion tensor; pass its symmetric part")
    value = 0.5 * (value + value.T)
    noise = _Noise(np.broadcast_to(np.asarray(quantity.error, dtype=float), (3, 3)), resamples)
    eigenvalues, vectors = np.linalg.eigh(value)
    axes = vectors.T[::-1]
    lowest = eigenvalues[0]
    if lowest < -max(CLOSED * scale, 5.0 * np.nan_to_num(noise.of(axes[2], axes[2]))):
        raise KinosonError(
            f"found a negative diffusivity {lowest:.3g} beside one of {eigenvalues[-1]:.3g}; expected none beyond its "
            "error; check the tensor, or take more trajectories"
        )
    groups = _groups(axes, value, noise, scale)
    axes = np.concatenate([_laid_along(axes[list(g)]) for g in groups])
    diffusivities = np.einsum("ia,ab,ib->i", axes, value, axes)
    closed = tuple(i for i in range(3) if diffusivities[i] <= CLOSED * scale)
    diffusivities[list(closed)] = 0.0
    errors = np.array([noise.of(e, e) for e in axes])
    shared = tuple(noise.weighted(axes[list(g)].T @ axes[list(g)] / len(g)) for g in groups)
    return PrincipalAxes(
        Quantity(diffusivities, errors, quantity.unit, quantity.kind),
        axes,
        tuple(_name(e, None if lattice is None else np.asarray(lattice, dtype=float)) for e in axes),
        _tilts(axes, diffusivities, groups, noise),
        groups,
        shared,
        closed,
    )


@dataclass(frozen=True, eq=False)
class _Noise:
    """What is known of the errors of a tensor."""

    elements: NDArray[np.float64]
    resamples: ArrayLike | None

    def of(self, a: NDArray, b: NDArray, c: NDArray | None = None) -> float:
        """Standard error of a·D·b, or of a·D·b − c·D·c."""
        weights = 0.5 * (np.outer(a, b) + np.outer(b, a))
        return self.weighted(weights if c is None else weights - np.outer(c, c))

    def weighted(self, weights: NDArray) -> float:
        """Standard error of the sum of the elements times symmetric weights, shape (3, 3)."""
        if self.resamples is not None and len(np.asarray(self.resamples)) > 1:
            rows = np.einsum("rab,ab->r", np.asarray(self.resamples, dtype=float), weights)
            return float(standard_error(rows))
        # the two halves of a symmetric tensor are one number each
        both = np.triu(weights) + np.tril(weights, -1).T
        used = np.abs(both) > 1e-12
        return float(np.sqrt(((both * self.elements)[used] ** 2).sum()))


def _of_transport(result: Transport, species: str | None) -> tuple[Quantity, NDArray | None, NDArray | None]:
    """Tensor of a result, its resamples in the same unit, and its conventional cell."""
    if species is None:
        quantity = result.vacancy_diffusivity_tensor
    elif species in result.tracer_diffusivity_tensor:
        quantity = result.tracer_diffusivity_tensor[species]
    else:
        raise KinosonError(
            f"found species={species!r}; expected one of {list(result.tracer_diffusivity_tensor)}; choose from these"
        )
    network, averages = result.network, result.averages
    cell = None if network is None else network.supercell.alloy.conventional @ network.supercell.alloy.cell
    if network is None or averages is None or not averages.has_errors or averages.exact:
        return quantity, None, cell
    rows = averages.vacancy
    if species is not None:
        assert averages.tracer is not None
        rows = averages.tracer[:, result.species.index(species)]
    rows = network.projector @ rows @ network.projector
    scale = float(np.trace(np.asarray(quantity.value)) / np.trace(rows[0])) if np.trace(rows[0]) else 1.0
    return quantity, rows[1:] * scale, cell


def _groups(axes: NDArray, value: NDArray, noise: _Noise, scale: float) -> tuple[tuple[int, ...], ...]:
    """Neighbouring axes whose diffusivities are not told apart; those along which nothing moves stay by themselves."""
    own = np.einsum("ia,ab,ib->i", axes, value, axes)
    is_closed = own <= CLOSED * scale
    groups: list[list[int]] = [[0]]
    for i in (1, 2):
        doubt = np.nan_to_num(noise.of(axes[i - 1], axes[i - 1], axes[i]))
        equal = own[i - 1] - own[i] <= max(SAME * scale, SIGMAS * doubt)
        if equal and is_closed[i] == is_closed[i - 1]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return tuple(map(tuple, groups))


def _laid_along(axes: NDArray) -> NDArray[np.float64]:
    """Orthonormal axes of the same space, as near to Cartesian ones as can be, each pointing forwards."""
    if len(axes) > 1:
        shadow = axes.T @ axes  # projection of the Cartesian axes onto the space
        chosen = np.sort(np.argsort(-np.diag(shadow).round(9), kind="stable")[: len(axes)])
        left, _, right = np.linalg.svd(shadow[chosen])
        axes = left @ right[: len(axes)]
    axes = np.where(np.abs(axes) < 1e-9, 0.0, axes)
    lead = np.take_along_axis(axes, np.abs(axes).round(6).argmax(axis=1)[:, None], axis=1)
    return np.asarray(axes * np.where(lead < 0, -1.0, 1.0)) + 0.0


def _tilts(axes: NDArray, values: NDArray, groups: tuple[tuple[int, ...], ...], noise: _Noise) -> NDArray[np.float64]:
    """Standard error of the directions, degrees."""
    group = {i: n for n, members in enumerate(groups) for i in members}
    tilt = np.zeros(3)
    for i, j in itertools.permutations(range(3), 2):
        if group[i] != group[j]:
            tilt[i] += (noise.of(axes[i], axes[j]) / (values[i] - values[j])) ** 2
    return np.degrees(np.sqrt(tilt))


def _name(axis: NDArray, lattice: NDArray | None) -> str:
    """Nearest lattice direction with small indices, or the Cartesian vector."""
    vectors = np.eye(3) if lattice is None else lattice
    span = range(-MAX_INDEX, MAX_INDEX + 1)
    indices = np.array([n for n in itertools.product(span, span, span) if np.gcd.reduce(n) == 1])
    pointing = indices @ vectors
    cosine = pointing @ axis / np.linalg.norm(pointing, axis=1)
    near = np.flatnonzero(cosine > np.cos(np.radians(ALIGNED)))
    if len(near) == 0:
        return "(" + ", ".join(f"{x:.3f}" for x in axis) + ")"
    simplest = near[np.lexsort((-cosine[near], np.abs(indices[near]).sum(axis=1)))[0]]
    return "[" + " ".join(map(str, indices[simplest])) + "]"
