"""Paths of one and two jumps from a state, with the rates of a model.

The relaxation of a state is what the Poisson equation Σ_k W_k (δx_k + y(χ_k) − y(χ)) = 0 makes of the rates around it.
Kept inside a ball of states, it is a sum over paths. With p_k = W_k/Γ and q_k the probability that the state behind
jump k goes straight back,

    one jump:   y = Σ_k p_k (δx_k + …)
    two jumps:  y = Σ_k p_k/ε [(1 − q_k) δx_k + Σ_{j≠back} p_kj (δx_kj + …)],     ε = Σ_k p_k (1 − q_k),

the second being the exact solution on a state and its neighbours: the returns are summed to all orders, which is what
removes the fast back-and-forth pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinosons.stencil import Stencil

__all__ = ["InnerRates", "Paths"]

TINY = 1e-6
"""Probabilities below this are alike for the learned part."""


@dataclass(frozen=True, eq=False)
class InnerRates:
    """Model rates of the states in the ball whose jumps matter.

    Attributes
    ----------
    forward, backward : ndarray, shape (n, n_inner, J)
        Rate of every jump and of its reverse, s⁻¹; 0 where there is no jump.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]

    @classmethod
    def none(cls, n: int, n_jumps: int) -> InnerRates:
        """No rates at all, for ``lookahead=0``."""
        empty = np.zeros((n, 0, n_jumps))
        return cls(empty, empty)


@dataclass(frozen=True, eq=False)
class Paths:
    """Weights of the paths from a state and from its neighbours, as tensors.

    M states (level ≤ 1 of the stencil), J jumps. Tensors of the second jump are None for paths of one jump.

    Attributes
    ----------
    probability : Tensor, shape (n, M, J)
        p_k.
    log_rate : Tensor, shape (n, M)
        ln Γ of the state.
    log_back : Tensor, shape (n, M, J)
        ln of the rate back.
    direct : Tensor, shape (n, M, J)
        p_k (1 − q_k)/ε.
    onward : Tensor, shape (n, M, J, J)
        p_k/ε p_kj of the second jump j, 0 for the jump back.
    log_return, log_exit, log_rate_behind : Tensor
        ln q_k (n, M, J), ln ε (n, M), ln Γ behind the jump (n, M, J).
    log_second, log_second_back : Tensor, shape (n, M, J, J)
        ln p_kj and ln of the rate back of the second jump.
    gate, gate_behind : Tensor, or None
        What :meth:`Closure.gates` gave, where they stay as they are; None: they are asked every time.
    """

    probability: Tensor
    log_rate: Tensor
    log_back: Tensor
    direct: Tensor | None = None
    onward: Tensor | None = None
    log_return: Tensor | None = None
    log_exit: Tensor | None = None
    log_rate_behind: Tensor | None = None
    log_second: Tensor | None = None
    log_second_back: Tensor | None = None
    gate: Tensor | None = None
    gate_behind: Tensor | None = None

    @classmethod
    def of(
        cls,
        stencil: Stencil,
        network: JumpNetwork,
        inner: InnerRates,
        *,
        jumps: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> Paths | None:
        """Sum up the rates; None without any (``jumps=0``).

        A state without jumps stays where it is: all its weights are 0.
        """
        if jumps == 0:
            return None
        w, back = inner.forward, inner.backward
        m = int((stencil.level <= 1).sum())
        total = w.sum(axis=-1)
        p = _divide(w, total[..., None])

        def tensor(x: NDArray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=device)

        first = dict(
            probability=tensor(p[:, :m]), log_rate=tensor(_log(total[:, :m])), log_back=tensor(_log(back[:, :m]))
        )
        if jumps == 1:
            return cls(**first)
        behind = np.maximum(stencil.next_state[:m], 0)
        exists = stencil.next_state[:m] >= 0
        reverse = network.reverse[stencil.carrier_basis[:m]]
        second = p[:, behind] * exists[..., None]  # (n, M, J, J)
        to_back = np.zeros(second.shape[1:], dtype=bool)
        np.put_along_axis(to_back, reverse[..., None], exists[..., None], axis=-1)
        returns = (second * to_back).sum(axis=-1)
        second = np.where(to_back, 0.0, second)
        escape = second.sum(axis=-1)  # 1 − q without cancellation
        # a neighbour that has no jump but the one back, or none at all, is a dead end
        leave = p[:, :m] * escape
        out = leave.sum(axis=-1)
        return cls(
            **first,
            direct=tensor(_divide(leave, out[..., None])),
            onward=tensor(_divide(p[:, :m], out[..., None])[..., None] * second),
            log_return=tensor(np.log(np.maximum(returns, TINY))),
            log_exit=tensor(np.log(np.maximum(out, TINY))),
            log_rate_behind=tensor(_log(total)[:, behind]),
            log_second=tensor(np.log(np.maximum(second, TINY))),
            log_second_back=tensor(_log(back)[:, behind]),
        )

    def __getitem__(self, rows: Tensor) -> Paths:
        """Paths of some of the states."""
        rows = rows.to(self.probability.device)
        chosen: dict[str, Any] = {k: None if x is None else x[rows] for k, x in vars(self).items()}
        return Paths(**chosen)

    @staticmethod
    def concatenate(parts: list[Paths]) -> Paths:
        """Join paths of several sets of states."""

        def join(name: str) -> Any:
            found = [getattr(part, name) for part in parts]
            return None if found[0] is None else torch.cat(found)

        return Paths(**{name: join(name) for name in vars(parts[0])})


def _divide(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    # a sum that is hardly a number has no shares: it counts as none
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 1e-300)


def _log(rate: NDArray) -> NDArray[np.float64]:
    """Logarithm of rates; those that do not exist are put far below."""
    return np.log(np.where(rate > 0, rate, 1e-30))
