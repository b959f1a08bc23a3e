"""Relaxation y(χ): how far each atom will still go, as a function of the state.

``lookahead=0``: y = v, a network of the occupants around the carrier. ``lookahead=1`` and ``2``: the Poisson equation
solved on the state, or on the state and its neighbours, with the rates of a model (see :mod:`.paths`) and with v for
what lies beyond. Either v stands on the rim of that ball and nothing else is assumed (``closure="exact"``), or factors
of the paths are learned too and v is asked one jump away only, which costs little and is tighter for the same effort
(``closure="learned"``). Without network and without learned factors the first is the bias, the mean next displacement.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.ball import Ball, RelaxedJumps, relaxed_displacements
from ase_kinoson.kinosons.closure import Closure
from ase_kinoson.kinosons.deeper import Surroundings, deeper_jumps
from ase_kinoson.kinosons.field import EquivariantField
from ase_kinoson.kinosons.paths import InnerRates, Paths

__all__ = ["Relaxation"]

MAX_LOOKAHEAD = 2
CLOSURES = ("learned", "exact")
FORMS = ("network", "paths", "clusters", "scaled-bias")
GATES = 32


@dataclass(eq=False)
class Relaxation:
    """A relaxation model: the network v, the paths that are followed, and the model rates they use.

    Attributes
    ----------
    network : JumpNetwork
        The jumps.
    environment : CarrierEnvironment
        Sites around the carrier that the network v sees.
    field : Module or None
        The network v (:class:`EquivariantField`, or a linear :class:`ClusterField`); None: v = 0.
    lookahead : int
        Jumps that are followed with the rates of the model: 0, 1 or 2.
    rates : Rates or None
        Model rates for the look-ahead; not needed for 0.
    closure : Closure or None
        Learned factors of the paths; None: the Poisson equation exactly, with v on the rim.
    report : dict
        How it was trained and what it reached.
    scales : ndarray, shape (n_species,), or None
        Factors θ of one jump more, y + θ r̄, for each species, no unit; see
        :func:`~ase_kinoson.kinosons.deeper.deepen`.
    device : torch.device
        Where the weights are and fields are computed; see :meth:`to`.

    Raises
    ------
    KinosonError
        If the look-ahead is not 0 to 2, has no model rates, or there is neither a network nor a look-ahead.
    """

    network: JumpNetwork
    environment: CarrierEnvironment
    field: nn.Module | None
    lookahead: int = 1
    rates: Rates | None = None
    closure: Closure | None = None
    report: dict[str, Any] = dataclass_field(default_factory=dict)
    scales: NDArray[np.float64] | None = None
    device: torch.device = dataclass_field(default_factory=lambda: torch.device("cpu"))
    _balls: dict[tuple[int, torch.dtype], Ball] = dataclass_field(default_factory=dict, repr=False)
    _around: dict[int, Surroundings] = dataclass_field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.lookahead <= MAX_LOOKAHEAD:
            raise KinosonError(
                f"found lookahead={self.lookahead}; expected 0 or more jumps, at most {MAX_LOOKAHEAD}; what lies "
                "farther is what correct() adds"
            )
        if self.lookahead > 0 and self.rates is None:
            raise KinosonError(
                f"found lookahead={self.lookahead} without model rates; expected a model and a temperature; pass them"
            )
        if self.lookahead == 0 and self.field is None:
            raise KinosonError("found neither a network nor a look-ahead; expected one of them; raise hidden=")

    @classmethod
    def create(
        cls,
        network: JumpNetwork,
        *,
        rates: Rates | None = None,
        lookahead: int = 1,
        closure: str = "learned",
        cutoff: float | None = None,
        hidden: int = 24,
        n_blocks: int = 2,
        gates: int | None = None,
        form: str = "network",
        seed: int = 0,
    ) -> Relaxation:
        """Make an untrained relaxation: y = 0 for ``lookahead=0``, the bias for 1, its next order for 2.

        Parameters
        ----------
        network
            Jumps.
        rates
            Model rates, needed for look-ahead.
        lookahead
            Number of jumps, 0 to 2. With m, the rates of the states up to m jumps away are needed in an evaluation.
        closure
            ``"learned"`` or ``"exact"``.
        cutoff
            Reach of the environment, Å; default twice the shortest jump.
        hidden, n_blocks
            See :class:`EquivariantField`; ``hidden=0``: no network.
        gates
            Width of the gates of a learned closure; 0: one factor per species and kind of path. Default 32, and 0 for
            forms that shall be linear.
        form
            ``"network"``; ``"paths"``: no v at all; ``"clusters"``: v linear in the counts of pairs and triplets
            around the carrier; ``"scaled-bias"``: no v and no gates, a factor per species and kind of path.
        seed
            Of the initial weights.

        Raises
        ------
        KinosonError
            If form or closure is unknown, or the class refuses the combination.
        """
        if closure not in CLOSURES:
            raise KinosonError(f"found closure={closure!r}; expected one of {CLOSURES}; choose one")
        if form not in FORMS:
            raise KinosonError(f"found form={form!r}; expected one of {FORMS}; choose one")
        environment = CarrierEnvironment.build(network, cutoff=cutoff)
        net: nn.Module | None = None
        if form == "clusters":
            from ase_kinoson.kinosons.cluster_field import ClusterField

            net, gates = ClusterField(environment, network), gates or 0
        elif form == "scaled-bias":
            gates, closure, lookahead = 0, "learned", max(lookahead, 1)
        elif hidden and form == "network":
            net = EquivariantField(environment, network, hidden=hidden, n_blocks=n_blocks, seed=seed)
        factors = None
        if closure == "learned" and 0 < lookahead <= MAX_LOOKAHEAD:
            width = GATES if gates is None else gates
            factors = Closure(len(network.supercell.species), lookahead, hidden=width, seed=seed)
        return cls(network, environment, net, lookahead, rates, factors)

    @property
    def form(self) -> str:
        """One of the forms of :meth:`create`."""
        if self.field is None:
            return "scaled-bias" if self.closure is not None and not self.closure.hidden else "paths"
        return "network" if isinstance(self.field, EquivariantField) else "clusters"

    @property
    def modules(self) -> nn.ModuleDict:
        """All that is trained."""
        parts = {"field": self.field, "closure": self.closure}
        return nn.ModuleDict({k: v for k, v in parts.items() if v is not None})

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the network and of the closure."""
        return self.modules.parameters()

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the arithmetic."""
        return next((p.dtype for p in self.parameters()), torch.float32)

    def to(self, dtype: torch.dtype | None = None, *, device: torch.device | str | None = None) -> Relaxation:
        """Return a copy with another floating-point type, or on another device.

        Parameters
        ----------
        dtype
            For example ``torch.float32``; None: as it is.
        device
            Where fields are computed, for example ``"cuda"``; None: as it is. States come from and results go to the
            memory of the host whatever it is.
        """
        there = self.device if device is None else torch.device(device)
        net = None if self.field is None else copy.deepcopy(self.field).to(device=there, dtype=dtype)
        factors = None if self.closure is None else copy.deepcopy(self.closure).to(device=there, dtype=dtype)
        report = dict(self.report)
        return replace(self, field=net, closure=factors, device=there, report=report, _balls={}, _around={})

    def on(self, network: JumpNetwork, rates: Rates | None) -> Relaxation:
        """Use the relaxation with the same jumps on another supercell, and with other rates.

        Parameters
        ----------
        network
            The jumps there.
        rates
            Model rates on them; None where the relaxation has no look-ahead.

        Raises
        ------
        ModelError
            If the jumps or species differ, or the environment fits into one of the cells only.
        """
        self.check(network)
        environment = CarrierEnvironment.build(network, cutoff=self.environment.cutoff)
        if environment.is_wrapped != self.environment.is_wrapped:
            raise ModelError(
                f"found a relaxation made on {self.network.supercell.n_sites} sites for {network.supercell.n_sites} "
                "sites; expected its environment to fit into both cells or neither; make it on the second cell"
            )
        return replace(
            self, network=network, environment=environment, rates=rates, report=dict(self.report), _balls={}, _around={}
        )

    def at(self, temperature_K: float, states: States) -> Relaxation:
        """Ask the relaxation at another temperature.

        Rates enter as they are; the scale that learned factors see is taken anew from the states, without training.
        Training with ``start=`` is tighter.

        Parameters
        ----------
        temperature_K
            K.
        states
            Equilibrium states at that temperature; some hundreds suffice.

        Returns
        -------
        Relaxation
            A copy.

        Raises
        ------
        ModelError
            If the relaxation has no rates, or the states belong to another supercell.
        """
        from ase_kinoson.kinosons.objective import Objective

        if self.rates is None or states.supercell != self.network.supercell:
            raise ModelError(
                "found a relaxation without model rates, or states of another supercell; expected rates that depend on "
                "temperature, and states on the supercell of the relaxation; train one here"
            )
        moved = replace(self.to(self.dtype), rates=replace(self.rates, temperature_K=float(temperature_K)))
        if moved.closure is not None:
            Objective.of(moved, states).calibrate(moved)
        moved.report["scaled_to_temperature_K"] = float(temperature_K)
        return moved

    def check(self, network: JumpNetwork) -> None:
        """Raise :class:`ModelError` if this relaxation does not belong to the jumps.

        Parameters
        ----------
        network
            The jumps.

        Raises
        ------
        ModelError
            If it does not.
        """
        own = self.network
        if own.fingerprint != network.fingerprint or own.supercell.species != network.supercell.species:
            raise ModelError(
                f"found a relaxation for {own!r} and {own.supercell.species[1:]}; expected the jumps and species "
                f"asked for, {network!r} and {network.supercell.species[1:]}; train one for this network"
            )

    # -- the ball of states ---------------------------------------------------------------------------------------

    @property
    def _far(self) -> bool:
        """Whether the network stands on the rim of a ball of two jumps."""
        return self.lookahead == 2 and self.closure is None and self.field is not None

    def ball(self, basis_site: int) -> Ball:
        """Tables of the states around a carrier on ``basis_site``, built once.

        Parameters
        ----------
        basis_site
            Basis index of the site of the carrier.
        """
        key = (int(basis_site), self.dtype)
        if key not in self._balls:
            self._balls[key] = Ball.build(
                self.environment,
                self.network,
                int(basis_site),
                lookahead=self.lookahead,
                far=self._far,
                dtype=self.dtype,
                device=self.device,
            )
        return self._balls[key]

    def inner_rates(self, basis_site: int, occupations: NDArray, carriers: ArrayLike) -> InnerRates:
        """Model rates of the states whose jumps the look-ahead needs, shape (n, n_inner, J).

        Parameters
        ----------
        basis_site
            Basis index of the site on which all carriers are.
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        stencil = self.ball(basis_site).stencil
        if self.rates is None or self.lookahead == 0:
            return InnerRates.none(len(occupations), self.network.n_jumps)
        shape = (len(occupations), int((stencil.level <= self.lookahead).sum()), self.network.n_jumps)
        forward, backward = np.zeros(shape), np.zeros(shape)
        for m, occ, where in stencil.visit(occupations, carriers, levels=self.lookahead):
            forward[:, m], backward[:, m] = self.rates.with_reverse(occ, where)
        return InnerRates(forward, backward)

    def paths(self, ball: Ball, inner: InnerRates) -> Paths | None:
        """Weights of the paths that are followed; None for ``lookahead=0``.

        Parameters
        ----------
        ball
            Sites and jumps around the carrier.
        inner
            What :meth:`inner_rates` gave.
        """
        return Paths.of(ball.stencil, self.network, inner, jumps=self.lookahead, dtype=self.dtype, device=self.device)

    def ball_fields(self, ball: Ball, codes: Tensor, paths: Paths | None) -> Tensor:
        """Relaxation of every labelled atom in state 0 and in the states one jump away.

        Parameters
        ----------
        ball
            Tables for the basis site of the carriers.
        codes : Tensor of int64, shape (n, n_window)
            Species codes in the window.
        paths : Paths or None
            Weights of the paths; None for ``lookahead=0``.

        Returns
        -------
        Tensor, shape (3, n_first, n_window, n)
            Å; states in stencil order up to level 1.
        """
        n, n_window = codes.shape
        first = ball.n_first
        y = codes.new_zeros((3, first * n_window, n), dtype=self.dtype)
        if self.field is not None:
            ends = None
            if paths is not None:
                found = paths.onward if self._far else paths.probability
                assert found is not None
                ends = found.reshape(n, -1).T
            columns = codes.T.contiguous()
            parts = zip(ball.states, ball.labels, ball.out_labels, ball.frames, ball.edges, strict=True)
            for c, (own, env, out, frame, (start, path, end)) in enumerate(parts):
                around = columns.index_select(0, env.T.reshape(-1)).view(env.shape[1], len(env) * n)
                v = self._columns(around, c).view(3, -1, len(env), n)
                if frame is not None:
                    v = torch.einsum("mij,jsmn->ismn", frame, v)
                if ends is None:
                    rows = own * n_window + out.T
                else:
                    v = v.index_select(2, end) * ends.index_select(0, start * (len(ends) // first) + path)
                    rows = start * n_window + out[end].T
                y = y.index_add(1, rows.reshape(-1), v.reshape(3, -1, n))
        y = self._without_carrier(ball, y.view(3, first, n_window, n))
        return y if paths is None else y + self._along_paths(ball, codes, paths).view(y.shape)

    def _columns(self, codes: Tensor, kind: int) -> Tensor:
        return cast(EquivariantField, self.field).columns(codes, kind)

    def _along_paths(self, ball: Ball, codes: Tensor, paths: Paths) -> Tensor:
        """Displacements of the jumps that are followed, with the factors of the closure."""
        n, n_window = codes.shape
        first = ball.n_first
        behind = ball.next_state[:first]
        two = self.lookahead == 2
        weight: Tensor
        onward: Tensor | None
        if self.closure is not None:
            weight, onward = self.closure(paths, *self._movers(ball, codes))
        else:
            weight, onward = (paths.direct, paths.onward) if two else (paths.probability, None)  # type: ignore[assignment]
        y = codes.new_zeros((3, first * n_window, n), dtype=self.dtype)
        vectors = ball.jump_vectors[:first].reshape(-1, 3).T[..., None]
        begin = torch.arange(first, device=codes.device) * n_window
        y = y.index_add(1, (begin[:, None] + ball.mover[:first]).reshape(-1), vectors * weight.reshape(n, -1).T)
        if onward is not None:
            vectors = ball.jump_vectors[behind].reshape(-1, 3).T[..., None]
            rows = (begin[:, None, None] + ball.mover[behind]).reshape(-1)
            y = y.index_add(1, rows, vectors * onward.reshape(n, -1).T)
        return y

    def _movers(self, ball: Ball, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Species of the atoms of first and of second jumps."""
        first, behind = ball.mover[: ball.n_first], ball.next_state[: ball.n_first]
        return codes[:, first], codes[:, ball.mover[behind]] if self.lookahead == 2 else None

    @torch.no_grad()
    def freeze_gates(self, ball: Ball, codes: Tensor, paths: Paths, *, chunk: int = 64) -> Paths:
        """Return paths that know what the gates of the closure say about them, for as long as these do not change.

        Parameters
        ----------
        ball
            Tables for the basis site of the carriers.
        codes : Tensor of int64, shape (n, n_window)
            Species codes in the window.
        paths
            Weights of the paths.
        chunk
            States at a time; bounds memory.
        """
        if self.closure is None or not self.closure.hidden or not len(codes):
            return paths
        rows = torch.arange(len(codes)).split(chunk)
        found = [self.closure.gates(paths[r], *self._movers(ball, codes[r.to(codes.device)])) for r in rows]
        first, second = zip(*found, strict=True)
        return replace(paths, gate=torch.cat(first), gate_behind=None if second[0] is None else torch.cat(second))

    def relaxed_jumps(self, basis_site: int, occupations: NDArray, carriers: ArrayLike) -> RelaxedJumps:
        """Relaxed displacements of all jumps of states whose carriers are on ``basis_site``.

        Parameters
        ----------
        basis_site
            Basis index of the site on which all carriers are.
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        c = np.asarray(carriers, dtype=np.int64)
        if self.scales is not None:
            return deeper_jumps(self, basis_site, occupations, c)
        return self.plain_jumps(basis_site, occupations, c)

    def surroundings(self, basis_site: int) -> Surroundings:
        """Sites that one jump more has to do with, listed once.

        Parameters
        ----------
        basis_site
            Basis index of the site of the carrier.
        """
        if basis_site not in self._around:
            self._around[basis_site] = Surroundings.build(self, basis_site)
        return self._around[basis_site]

    @torch.no_grad()
    def plain_jumps(self, basis_site: int, occupations: NDArray, carriers: ArrayLike) -> RelaxedJumps:
        """:meth:`relaxed_jumps` without the jump more of :attr:`scales`.

        Parameters
        ----------
        basis_site
            Basis index of the site on which all carriers are.
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        ball = self.ball(basis_site)
        stencil = ball.stencil
        c = np.asarray(carriers, dtype=np.int64)
        codes = stencil.window(occupations, c)
        inner = self.inner_rates(basis_site, occupations, c)
        y = self.ball_fields(ball, torch.as_tensor(codes, device=self.device), self.paths(ball, inner))
        moved = relaxed_displacements(ball, y)
        return RelaxedJumps(
            self.network.supercell.neighbors(c, stencil.window_basis, stencil.window_cells),
            codes,
            y[:, 0].permute(2, 1, 0).contiguous().double().cpu().numpy(),
            moved.permute(3, 1, 2, 0).contiguous().double().cpu().numpy(),
            inner.forward[:, 0] if self.lookahead else None,
        )

    def _without_carrier(self, ball: Ball, y: Tensor) -> Tensor:
        """In a cell smaller than the environment the vacancy sees its own images; they are no atoms."""
        if self.network.mechanism == "interstitial" or not self.environment.is_wrapped:
            return y
        keep = torch.ones(y.shape[2], dtype=y.dtype, device=y.device)
        keep[ball.stencil.carrier_slot] = 0.0
        return y * keep[:, None]

    @torch.no_grad()
    def __call__(self, occupations: NDArray, carriers: ArrayLike) -> NDArray[np.float64]:
        """Return y of the atom on every site (0 far from the carrier), Å, shape (n, n_sites, 3)."""
        c = np.asarray(carriers, dtype=np.int64)
        cell = self.network.supercell
        result = np.zeros((len(c), cell.n_sites, 3))
        for b in np.unique(self.network.basis_of(c)):
            rows = np.flatnonzero(self.network.basis_of(c) == b)
            found = self.relaxed_jumps(int(b), occupations[rows], c[rows])
            result[rows[:, None], found.sites] = found.field
        return result

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (weights) and ``path.json`` (the rest), each in one step.

        Parameters
        ----------
        path
            Without ending; ``.json`` and ``.safetensors`` are taken off.
        """
        from ase_kinoson.kinosons.relaxation_files import save_relaxation

        save_relaxation(self, path)

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
        from ase_kinoson.kinosons.relaxation_files import load_relaxation

        return load_relaxation(path, network, model=model, temperature_K=temperature_K)
