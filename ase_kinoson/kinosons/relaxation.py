"""Relaxation y(χ): how far each atom will still go, as a function of the state.

Plain (``lookahead=0``): y = v, the network. Look-ahead m: m steps of the Poisson equation with the rates of a model,
from v on the
rim of the ball of states around χ,

    y(χ) = Σ_k p_k(χ) (δx_k + y'(χ_k)),   p_k = W_k / Γ,   Γ = Σ_k W_k,

with y' of one step less. v = 0 and one step is the bias, the mean next displacement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load, save
from torch import Tensor

from ase_kinoson.barriers.model_file import read_model, write_model
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.field import EquivariantField
from ase_kinoson.kinosons.stencil import Stencil

__all__ = ["Relaxation"]

FORMAT = "ase_kinoson.Relaxation"
VERSION = 1


@dataclass(frozen=True, eq=False)
class _Ball:
    """Index tensors of one stencil, ready for torch."""

    stencil: Stencil
    lookahead: int
    states: tuple[Tensor, ...]  # per class: states of that class
    labels: tuple[Tensor, ...]  # per class: (M_c, n_env) labels of the environment
    out_labels: tuple[Tensor, ...]  # per class: (M_c, n_out) labels the vectors belong to
    frames: tuple[Tensor, ...]  # per class: (M_c, 3, 3)
    edges: tuple[
        tuple[Tensor, Tensor, Tensor], ...
    ]  # per class: parent, jump, position of the child among states of the class
    jump_vectors: Tensor  # (n_inner, J, 3) displacement of the labelled atom
    mover: Tensor  # (n_inner, J)
    next_state: Tensor  # (n_inner, J)


@dataclass(eq=False)
class Relaxation:
    """A relaxation model: the network v, the number of look-ahead steps, and the model rates they use.

    Attributes
    ----------
    network : JumpNetwork
    environment : CarrierEnvironment
    field : EquivariantField
        The network v.
    lookahead : int
        Steps of the Poisson equation, ≥ 0.
    rates : Rates or None
        Model rates for the look-ahead; not needed for 0.
    report : dict
        How it was trained and what it reached.
    """

    network: JumpNetwork
    environment: CarrierEnvironment
    field: EquivariantField
    lookahead: int = 1
    rates: Rates | None = None
    report: dict[str, Any] = field(default_factory=dict)
    _balls: dict[tuple[int, torch.dtype], _Ball] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.lookahead < 0:
            raise KinosonError(f"found lookahead={self.lookahead}; expected 0 or more steps; correct it")
        if self.lookahead > 0 and self.rates is None:
            raise KinosonError(
                f"found lookahead={self.lookahead} without model rates; expected a model and a temperature; pass them"
            )

    @classmethod
    def create(
        cls,
        network: JumpNetwork,
        *,
        rates: Rates | None = None,
        lookahead: int = 1,
        cutoff: float | None = None,
        hidden: int = 24,
        n_blocks: int = 2,
        seed: int = 0,
    ) -> Relaxation:
        """Make an untrained relaxation: y = 0 for ``lookahead=0``, the bias for 1.

        Parameters
        ----------
        network
            Jumps.
        rates
            Model rates, needed for look-ahead.
        lookahead
            Number of steps.
        cutoff
            Reach of the environment, Å; default twice the shortest jump.
        hidden, n_blocks, seed
            See :class:`EquivariantField`.
        """
        environment = CarrierEnvironment.build(network, cutoff=cutoff)
        net = EquivariantField(environment, network, hidden=hidden, n_blocks=n_blocks, seed=seed)
        return cls(network, environment, net, lookahead, rates)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network."""
        return next(self.field.parameters()).dtype

    def to(self, dtype: torch.dtype) -> Relaxation:
        """Return a copy whose network has another floating-point type."""
        import copy

        return Relaxation(
            self.network,
            self.environment,
            copy.deepcopy(self.field).to(dtype),
            self.lookahead,
            self.rates,
            dict(self.report),
        )

    # -- the ball of states ---------------------------------------------------------------------------------------

    def ball(self, basis_site: int) -> _Ball:
        """Tables of the states around a carrier on ``basis_site``, built once."""
        key = (int(basis_site), self.dtype)
        if key not in self._balls:
            self._balls[key] = self._build_ball(int(basis_site))
        return self._balls[key]

    def _build_ball(self, basis_site: int) -> _Ball:
        stencil = Stencil.build(self.environment, self.network, basis_site=basis_site, depth=self.lookahead + 1)
        kinds = self.environment.class_of_basis[stencil.carrier_basis]
        mobile = self.network.supercell.alloy.mobile_basis
        interstitial = self.network.mechanism == "interstitial"
        states, labels, outs, frames, edges = [], [], [], [], []
        n_inner = len(stencil.next_state)
        for c, kind in enumerate(self.environment.classes):
            own = np.flatnonzero(kinds == c)
            env = np.array([stencil.environment[m] for m in own], dtype=np.int64).reshape(len(own), kind.n_sites)
            slots = np.flatnonzero(mobile[kind.basis])
            out = np.full((len(own), 1), stencil.carrier_slot) if interstitial else env[:, slots]
            place = np.full(stencil.n_states, -1)
            place[own] = np.arange(len(own))
            child = np.where(stencil.next_state >= 0, place[stencil.next_state], -1)
            parent, jump = np.nonzero(child >= 0)
            states.append(torch.as_tensor(own))
            labels.append(torch.as_tensor(env))
            outs.append(torch.as_tensor(out))
            frames.append(torch.as_tensor(self.environment.frames[stencil.carrier_basis[own]], dtype=self.dtype))
            edges.append((torch.as_tensor(parent), torch.as_tensor(jump), torch.as_tensor(child[parent, jump])))
        vectors = self.network.vectors[stencil.carrier_basis[:n_inner]]
        sign = 1.0 if interstitial else -1.0
        return _Ball(
            stencil,
            self.lookahead,
            tuple(states),
            tuple(labels),
            tuple(outs),
            tuple(frames),
            tuple(edges),
            torch.as_tensor(sign * vectors, dtype=self.dtype),
            torch.as_tensor(np.maximum(stencil.mover, 0)),
            torch.as_tensor(np.maximum(stencil.next_state, 0)),
        )

    def inner_rates(self, basis_site: int, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        """Model rates of the states whose jumps the look-ahead needs, s⁻¹, shape (n, n_inner, J)."""
        stencil = self.ball(basis_site).stencil
        if self.rates is None:
            return np.zeros((len(occupations), 0, self.network.n_jumps))
        occ, where = stencil.inner_states(occupations, carriers, levels=self.lookahead)
        n, m = where.shape
        return self.rates(occ.reshape(n * m, -1), where.reshape(-1)).reshape(n, m, -1)

    def ball_fields(self, ball: _Ball, codes: Tensor, probabilities: Tensor | None) -> Tensor:
        """Relaxation of every labelled atom in state 0 and in the states one jump away.

        Parameters
        ----------
        ball
            Tables for the basis site of the carriers.
        codes : Tensor of int64, shape (n, n_window)
            Species codes in the window.
        probabilities : Tensor or None, shape (n, n_inner, J)
            Jump probabilities p_k of the inner states; None for ``lookahead=0``.

        Returns
        -------
        Tensor, shape (n, n_inner_1, n_window, 3)
            Å; states in stencil order up to level 1.
        """
        n, n_window = codes.shape
        stencil = ball.stencil
        n_first = int((stencil.level <= 1).sum())
        vectors = []
        for c, (own, env, frame) in enumerate(zip(ball.states, ball.labels, ball.frames, strict=True)):
            around = codes[:, env].reshape(n * len(own), -1)
            v = self.field(around, c).view(n, len(own), -1, 3)
            vectors.append(torch.einsum("bmsj,mij->bmsi", v, frame))
        if self.lookahead == 0:
            y = codes.new_zeros((n, stencil.n_states * n_window, 3), dtype=self.dtype)
            for own, out, v in zip(ball.states, ball.out_labels, vectors, strict=True):
                index = (own[:, None] * n_window + out).reshape(-1)
                y = y.index_add(1, index, v.reshape(n, -1, 3))
            y = y.view(n, stencil.n_states, n_window, 3)[:, :n_first]
            return self._without_carrier(ball, y)
        assert probabilities is not None
        n_inner = probabilities.shape[1]
        y = self._next_displacement(ball, probabilities, n_window)
        for (parent, jump, child), out, v in zip(ball.edges, ball.out_labels, vectors, strict=True):
            p = probabilities[:, parent, jump]
            index = (parent[:, None] * n_window + out[child]).reshape(-1)
            y = y.index_add(1, index, (p[:, :, None, None] * v[:, child]).reshape(n, -1, 3))
        y = self._without_carrier(ball, y.view(n, n_inner, n_window, 3))
        for step in range(1, self.lookahead):
            n_inner = int((stencil.level <= self.lookahead - step).sum())
            p = probabilities[:, :n_inner]
            base = self._next_displacement(ball, p, n_window).view(n, n_inner, n_window, 3)
            y = base + torch.einsum("bmk,bmkwx->bmwx", p, y[:, ball.next_state[:n_inner]])
        return y

    def _next_displacement(self, ball: _Ball, probabilities: Tensor, n_window: int) -> Tensor:
        n, n_inner, _ = probabilities.shape
        y = probabilities.new_zeros((n, n_inner * n_window, 3))
        index = (torch.arange(n_inner)[:, None] * n_window + ball.mover[:n_inner]).reshape(-1)
        return y.index_add(1, index, (probabilities[..., None] * ball.jump_vectors[:n_inner]).reshape(n, -1, 3))

    def _without_carrier(self, ball: _Ball, y: Tensor) -> Tensor:
        """In a cell smaller than the environment the vacancy sees its own images; they are no atoms."""
        if self.network.mechanism == "interstitial" or not self.environment.is_wrapped:
            return y
        keep = torch.ones(y.shape[2], dtype=y.dtype)
        keep[ball.stencil.carrier_slot] = 0.0
        return y * keep[:, None]

    def probabilities(self, rates: NDArray) -> Tensor | None:
        """Jump probabilities W/Γ as a tensor; None for ``lookahead=0``. A state without jumps stays where it is."""
        if self.lookahead == 0:
            return None
        total = rates.sum(axis=-1, keepdims=True)
        return torch.as_tensor(np.divide(rates, total, out=np.zeros_like(rates), where=total > 0), dtype=self.dtype)

    @torch.no_grad()
    def __call__(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        """Return y of the atom on every site (0 far from the carrier), Å, shape (n, n_sites, 3)."""
        c = np.asarray(carriers, dtype=np.int64)
        cell = self.network.supercell
        result = np.zeros((len(c), cell.n_sites, 3))
        for b in np.unique(self.network.basis_of(c)):
            rows = np.flatnonzero(self.network.basis_of(c) == b)
            ball = self.ball(int(b))
            stencil = ball.stencil
            codes = torch.as_tensor(stencil.window(occupations[rows], c[rows]))
            p = self.probabilities(self.inner_rates(int(b), occupations[rows], c[rows]))
            y = self.ball_fields(ball, codes, p)[:, 0].double().numpy()
            sites = cell.neighbors(c[rows], stencil.window_basis, stencil.window_cells)
            result[rows[:, None], sites] = y
        return result

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (weights) and ``path.json`` (the rest), each in one step."""
        about = {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network.fingerprint,
            "species": list(self.network.supercell.species),
            "cutoff": self.environment.cutoff,
            "hidden": self.field.hidden,
            "n_blocks": self.field.n_blocks,
            "lookahead": self.lookahead,
            "temperature_K": self.rates.temperature_K if self.rates else None,
            "attempt_frequency": self.rates.attempt_frequency if self.rates else None,
            "report": self.report,
        }
        write_model(path, about, save({k: v.contiguous() for k, v in self.field.state_dict().items()}))

    @classmethod
    def load(
        cls, path: str | Path, network: JumpNetwork, *, model: Any = None, temperature_K: float | None = None
    ) -> Relaxation:
        """Read a relaxation for the jumps it was trained on.

        Parameters
        ----------
        path
            As given to :meth:`save`.
        network
            The jumps (any supercell of the same lattice).
        model
            Barrier model or lattice gas for the look-ahead.
        temperature_K
            Temperature of the model rates; default that of the training.

        Raises
        ------
        ModelError
            If a file is missing or damaged, or belongs to other jumps or species.
        """
        about, data = read_model(path, FORMAT, VERSION)
        tensors = load(data)
        stem = Path(path)
        if about["network"] != network.fingerprint or about["species"] != list(network.supercell.species):
            raise ModelError(
                f"the relaxation in {stem.name} was trained on other jumps or species ({about['species'][1:]}); "
                "expected "
                f"{list(network.supercell.species[1:])} on {network!r}; train one for this network"
            )
        rates = None
        if about["lookahead"] > 0:
            if model is None:
                raise ModelError(
                    f"the relaxation in {stem.name} looks {about['lookahead']} step ahead; expected the model "
                    "whose rates it uses; "
                    "pass model="
                )
            rates = Rates.of(
                model,
                network,
                temperature_K=temperature_K or about["temperature_K"],
                attempt_frequency=about["attempt_frequency"],
            )
        made = cls.create(
            network,
            rates=rates,
            lookahead=about["lookahead"],
            cutoff=about["cutoff"],
            hidden=about["hidden"],
            n_blocks=about["n_blocks"],
        )
        if any(t.dtype == torch.float64 for t in tensors.values()):
            made = made.to(torch.float64)
        try:
            made.field.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(
                f"the weights in {stem.name} do not fit this supercell ({error}); expected those of its JSON file; "
                "save it again"
            ) from error
        made.report = dict(about["report"])
        return made
