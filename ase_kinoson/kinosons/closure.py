"""What lies beyond the paths that are followed: learned factors of their weights.

A relaxation that stops after one or two jumps does not know what the carrier does next. How far each step of a path
survives depends, on average, on what the rates along the path look like: a trap, a fast pair, an open road. The factors
are scalars made of rates and species, so that the result is equivariant whatever they are. They start as the exact
solution of the Poisson equation with nothing beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ase_kinoson.kinosons.paths import Paths

__all__ = ["Closure"]

SPAN = 5.0
"""Logarithms of probabilities are given to the gates in units of this."""


class Closure(nn.Module):
    """Factors of the weights of paths.

    Parameters
    ----------
    n_codes
        Number of species codes.
    jumps
        Length of the paths, 1 or 2.
    hidden
        Width of the gates; 0: one factor per species and kind of path, nothing else.
    seed
        Seed of the gates. Their last layer starts at zero.

    Attributes
    ----------
    factor : Parameter, shape (n_kinds, n_codes)
        For paths of one jump: of p_k. For two jumps: of p_k, of p_k (1 − q_k)/ε, and of the second jump.
    """

    rate_mean: Tensor
    rate_scale: Tensor
    back_mean: Tensor
    back_scale: Tensor

    def __init__(self, n_codes: int, jumps: int, *, hidden: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.n_codes, self.jumps, self.hidden = n_codes, jumps, hidden
        start = torch.tensor([1.0] if jumps == 1 else [0.0, 1.0, 1.0])
        self.factor = nn.Parameter(start[:, None].repeat(1, n_codes))
        for name, value in (("rate_mean", 0.0), ("rate_scale", 1.0), ("back_mean", 0.0), ("back_scale", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self.first = self.second = None
        if hidden:
            generator = torch.Generator().manual_seed(int(seed))
            n = 3 if jumps == 1 else 6
            self.first = _Gate(n + n_codes, hidden, 1 if jumps == 1 else 2, generator)
            if jumps == 2:
                self.second = _Gate(n + 2 + 2 * n_codes, hidden, 1, generator)

    @torch.no_grad()
    def calibrate(self, *parts: tuple[Paths, Tensor]) -> None:
        """Take the scale of the rates from typical paths of weighted states, once, before training.

        Parameters
        ----------
        *parts
            Paths of some states and the weights of these, shape (n,). Balls around unlike sites are of unlike size,
            so that each basis site is a part of its own.
        """
        rates, rate_weights, back, back_weights = [], [], [], []
        for paths, weights in parts:
            rates.append(paths.log_rate.reshape(-1))
            rate_weights.append(weights[:, None].expand_as(paths.log_rate).reshape(-1))
            exists = paths.probability > 0
            back.append(paths.log_back[exists])
            back_weights.append(weights[:, None, None].expand_as(paths.log_back)[exists])
        self.rate_mean, self.rate_scale = _moments(torch.cat(rates), torch.cat(rate_weights))
        if any(len(x) for x in back):
            self.back_mean, self.back_scale = _moments(torch.cat(back), torch.cat(back_weights))

    def forward(self, paths: Paths, movers: Tensor, second_movers: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the coefficients of the displacements along the paths.

        Parameters
        ----------
        paths
        movers : Tensor of int64, shape (n, M, J)
            Species code of the atom of the first jump.
        second_movers : Tensor of int64, shape (n, M, J, J), or None

        Returns
        -------
        first : Tensor, shape (n, M, J)
        second : Tensor, shape (n, M, J, J), or None
        """
        p = paths.probability
        factor = self.factor[:, movers]  # (kind, n, M, J)
        gate, again = (
            (paths.gate, paths.gate_behind) if paths.gate is not None else self.gates(paths, movers, second_movers)
        )
        if self.jumps == 1:
            return p * (factor[0] if gate is None else factor[0] + gate[:, 0]), None
        assert paths.direct is not None and paths.onward is not None and second_movers is not None
        first, direct, last = factor[0], factor[1], self.factor[2][second_movers]
        if gate is not None and again is not None:
            first, direct, last = first + gate[:, 0], direct + gate[:, 1], last + again
        return p * first + paths.direct * direct, paths.onward * last

    def gates(self, paths: Paths, movers: Tensor, second_movers: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return what the gates add to the factors; None without gates.

        Parameters
        ----------
        paths, movers, second_movers
            As in :meth:`forward`.

        Returns
        -------
        first : Tensor, shape (n, n_kinds, M, J), or None
            Of p_k, and for paths of two jumps of p_k (1 − q_k)/ε.
        second : Tensor, shape (n, M, J, J), or None
            Of the second jump.
        """
        if self.first is None:
            return None, None
        p = paths.probability
        who = nn.functional.one_hot(movers, self.n_codes).to(p.dtype)
        # far from what was seen, gates say the same as at the border of it
        rate = ((paths.log_rate - self.rate_mean) / self.rate_scale).clamp(-4.0, 4.0)[..., None].expand_as(p)
        back = ((paths.log_back - self.back_mean) / self.back_scale).clamp(-4.0, 4.0)
        known = [p.clamp_min(1e-6).log() / SPAN, rate, back]
        if self.second is None:
            return self.first(torch.cat([torch.stack(known, -1), who], -1)).movedim(-1, 1), None
        assert second_movers is not None
        assert paths.log_return is not None and paths.log_exit is not None and paths.log_rate_behind is not None
        assert paths.log_second is not None and paths.log_second_back is not None
        behind = ((paths.log_rate_behind - self.rate_mean) / self.rate_scale).clamp(-4.0, 4.0)
        known += [paths.log_return / SPAN, behind, (paths.log_exit / SPAN)[..., None].expand_as(p)]
        about = torch.cat([torch.stack(known, -1), who], -1)
        again = ((paths.log_second_back - self.back_mean) / self.back_scale).clamp(-4.0, 4.0)
        more = torch.stack([paths.log_second / SPAN, again], -1)
        # the first layer is linear: what is common to all second jumps goes through it once
        common, own = self.second.split(about, more, self.n_codes)
        last = self.second.rest(common[..., None, :] + own + self.second.species(second_movers, self.n_codes))
        return self.first(about).movedim(-1, 1), last[..., 0]


def _moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, the latter not below 0.5."""
    total = weights.sum()
    mean = (weights * x).sum() / total
    return mean, ((weights * (x - mean).square()).sum() / total).sqrt().clamp_min(0.5)


class _Gate(nn.Module):
    """A small network whose last layer starts at zero."""

    def __init__(self, n_in: int, hidden: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inlet = nn.Parameter(torch.randn(n_in, hidden, generator=generator) / n_in**0.5)
        self.offset = nn.Parameter(torch.zeros(hidden))
        self.mix = nn.Parameter(torch.randn(hidden, hidden, generator=generator) / hidden**0.5)
        self.shift = nn.Parameter(torch.zeros(hidden))
        self.outlet = nn.Parameter(torch.zeros(hidden, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x @ self.inlet + self.offset)

    def rest(self, h: Tensor) -> Tensor:
        """All but the first linear layer."""
        h = nn.functional.silu(h)
        h = h + nn.functional.silu(h @ self.mix + self.shift)
        return h @ self.outlet

    def split(self, common: Tensor, own: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
        """First layer of inputs that are ordered as common, own, species."""
        a, b = common.shape[-1], own.shape[-1]
        assert len(self.inlet) == a + b + n_codes
        return common @ self.inlet[:a] + self.offset, own @ self.inlet[a : a + b]

    def species(self, codes: Tensor, n_codes: int) -> Tensor:
        """First layer of a one-hot species, the last inputs."""
        return nn.functional.embedding(codes, self.inlet[-n_codes:])
