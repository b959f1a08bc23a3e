"""Minimising Λ[y]: the relaxation learns by lowering the upper bound itself.

First what is linear, in closed form; then the factors of the paths, which cost little; then the network. See
:mod:`.objective` for the loss. Training states are equilibrium states of the very rates that are used, and fresh ones
replace old ones as training goes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.device import device_of
from ase_kinoson.errors import KinosonWarning, ModelError, NotConverged, StatesError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import MonteCarlo, sample_states
from ase_kinoson.kinosons.deeper import deepen
from ase_kinoson.kinosons.distributed import Columns, Ranks, SharedObjective, owners, share_out, summary
from ase_kinoson.kinosons.field import EquivariantField
from ase_kinoson.kinosons.field_memory import free_memory
from ase_kinoson.kinosons.galerkin import solve_linear
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.side_by_side import n_side_by_side, on_all_cores, threads_for_a_while
from ase_kinoson.kinosons.verdict import check_temperature
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["fine_tune", "train_relaxation"]

_log = logging.getLogger(__name__)

GATE_RATE = 1e-2
"""Step size of the factors of paths; the network's is an argument."""

WORTH_A_THREAD = 4
"""States of a batch; fewer cost more in what each thread does for itself."""

PART = 32
"""States of a batch that one core takes at a time: more do not stay in its cache."""

FALLING = 0.01
"""Relative fall of the validation bound in the last quarter of the epochs from which on a training was too short."""
WORSE = 0.01
"""Rise of the validation bound, by all that was tried, that no chance explains."""
REFRESH_SWEEPS = 10
"""Monte Carlo sweeps between the training states of two epochs."""


def train_relaxation(
    cell: Supercell,
    jumps: JumpNetwork,
    model: Any,
    *,
    temperature_K: float | None = None,
    lookahead: int = 2,
    closure: str = "learned",
    form: str = "clusters",
    seed: int = 0,
    states: States | None = None,
    n_states: int = 2048,
    epochs: int = 8,
    closure_epochs: int = 8,
    refresh: float = 0.25,
    patience: int | None = None,
    batch_size: int = 32,
    hidden: int = 24,
    n_blocks: int = 2,
    gates: int | None = 32,
    cutoff: float | None = None,
    learning_rate: float = 1.5e-2,
    ridge: float = 1e-4,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    start: Relaxation | None = None,
    deeper: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Relaxation:
    """Train a relaxation on equilibrium states of a model's rates.

    Parameters
    ----------
    cell
        Supercell of the training states.
    jumps
        Jumps of the carrier.
    model
        Barrier model or lattice gas whose rates are cheap.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    lookahead, closure, form, hidden, n_blocks, gates, cutoff
        The relaxation; see :meth:`Relaxation.create`. The coefficients of clusters and the factors of paths are solved
        for in closed form (Galerkin); gates, and a network, are trained after that. ``form="clusters"`` is the default
        because it is as tight as a network for a fraction of the cost; ``"paths"`` is the cheapest with many species.
    seed
        Seed of states, weights and batches: equal seeds give equal results.
    states
        Equilibrium states of the model to train on; default: sampled here by Monte Carlo.
    n_states
        Number of states to sample.
    epochs, closure_epochs, batch_size, learning_rate
        Adam with a one-cycle schedule: first ``closure_epochs`` of the factors of paths, then ``epochs`` of all.
    refresh
        Share of the training states (no unit) that fresh Monte Carlo states replace after each epoch of the network.
        Only for states of the equilibrium ensemble whose energies the model knows.
    patience
        Stop a phase after so many epochs without a better validation loss; default: go through all of them.
    ridge
        Regularisation of the closed form, relative to the curvature of each parameter.
    attempt_frequency
        s⁻¹; common to all jumps.
    start
        A trained relaxation to start from (another temperature or composition).
    deeper
        In the end follow one jump more, with factors found on so many of the training states; see
        :func:`~ase_kinoson.kinosons.deeper.deepen`. 0: do not.
    device
        Where gradients are computed: ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``. The relaxation
        returned is on the processor.
    progress
        Show a bar with the current bound.

    Returns
    -------
    Relaxation
        With the weights that were best on the validation states (one fifth, never trained on). Its ``report`` holds the
        loss Λ[y]/Λ[0] of the untrained and the trained model on them, and the bound ratio of every quantity.

    Raises
    ------
    StatesError
        If the states are no equilibrium states of the model, or too few.
    ModelError
        If model, jumps and ``start`` do not belong together, or there is no such device.
    KinosonError
        If processes that train together are called with unlike arguments.

    Warns
    -----
    NotConverged
        If the validation bound still fell by more than 1 % in the last quarter of the epochs, or all training made it
        worse.

    Notes
    -----
    Derivation of the fields and of the Galerkin equations: docs/derivations.md#fields-that-look-one-or-two-jumps-ahead.

    In a process group of ``torch.distributed`` (:func:`~ase_kinoson.kinosons.distributed.join_processes`) every process
    calls this with the same arguments, has a share of the states, and returns the relaxation that one process alone
    would return, to rounding; unlike arguments are an error. ``batch_size`` is that of all processes together. Monte
    Carlo states at the start and :func:`~ase_kinoson.kinosons.deeper.deepen` at the end are computed by each process
    for itself.
    """
    ranks = Ranks.present()
    progress = progress and ranks.first
    options = {
        "lookahead": lookahead,
        "closure": closure,
        "form": form,
        "seed": seed,
        "epochs": epochs,
        "closure_epochs": closure_epochs,
        "refresh": refresh,
        "patience": patience,
        "batch_size": batch_size,
        "hidden": hidden,
        "n_blocks": n_blocks,
        "gates": gates,
        "cutoff": cutoff,
        "learning_rate": learning_rate,
        "ridge": ridge,
        "start": _fingerprint(start),
        "deeper": deeper,
    }
    place = device_of(device)
    if jumps.supercell != cell:
        jumps = jumps.with_supercell(cell)
    rates = Rates.of(model, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    given = states is not None
    if states is None:
        states = sample_states(
            cell,
            n_states,
            method="monte-carlo",
            model=rates.source,
            # a gas of rates has no energies and is as random at any temperature
            temperature_K=rates.temperature_K or 300.0,
            # a stream of its own: states that a user samples with the same seed must not be the training states
            seed=_stream(seed, 1),
            progress=progress,
        )
    _check_states(states, cell, rates)
    states = states[states.weights > 0]
    ranks.agree(**options, **(summary(states, rates) if ranks.size > 1 else {}))
    relaxation = Relaxation.create(
        jumps,
        rates=rates,
        lookahead=lookahead,
        closure=closure,
        form=form,
        cutoff=cutoff,
        hidden=hidden,
        n_blocks=n_blocks,
        gates=gates,
        seed=seed,
    )
    if start is not None:
        _take_over(relaxation, start)
    relaxation = _on(relaxation, place)
    rng = np.random.default_rng(seed)
    held = _held_out(states, rng)
    owner = owners(states[~held].groups, ranks)
    objective = share_out(ranks, relaxation, states[~held], owner)
    # each set in units of its own Λ[0], so that the ratio reported has no noise from other states
    check = share_out(ranks, relaxation, states[held], np.arange(held.sum()) % ranks.size)
    with threads_for_a_while(place):
        run = _Run(relaxation, objective, check, batch_size, patience, rng, progress, ranks)
        run.calibrate(ridge, untrained=start is None)
        learns_paths = relaxation.closure is not None and relaxation.closure.hidden > 0
        if learns_paths and closure_epochs:
            trained = start is not None or not isinstance(relaxation.field, EquivariantField)
            with _without_field(relaxation, not trained):
                run.fit(
                    [(_closure(relaxation).parameters(), GATE_RATE)], closure_epochs, "training paths", best_of=trained
                )
            if relaxation.form == "clusters":
                run.calibrate(ridge, untrained=False)  # the gates have changed what is left to the clusters
        run.note()
        chain = None
        if isinstance(relaxation.field, EquivariantField) and epochs:
            groups = [(relaxation.field.parameters(), learning_rate)]
            if relaxation.closure is not None:
                groups.append((relaxation.closure.parameters(), 0.2 * GATE_RATE))
            if refresh > 0 and not given and states.ensemble == "equilibrium":
                chain = _Fresh(states[~held], relaxation, refresh, _stream(seed, 2), ranks, owner)
            run.fit(groups, epochs, "training y", chain=chain)
        run.finish()
    relaxation = _on(relaxation, torch.device("cpu"))
    relaxation.report |= {
        "n_training_states": int((~held).sum()),
        "n_validation_states": int(held.sum()),
        "seed": int(seed),
        "ensemble": states.ensemble,
        "temperature_K": rates.temperature_K,
        # in a cell smaller than its environment a relaxation sees periodic images: good for this cell only
        "wrapped_environment": relaxation.environment.is_wrapped,
        "training_keys": sorted({*states.keys, *(ranks.union(chain.keys) if chain is not None else ())}),
    }
    if deeper > 0:
        relaxation = deepen(relaxation, states[rng.permutation(np.flatnonzero(~held))[:deeper]], progress=progress)
    for doubt in run.doubts() if ranks.first else ():
        warnings.warn(doubt, stacklevel=2)
    return relaxation


def fine_tune(
    relaxation: Relaxation,
    states: States,
    barriers: Any,
    *,
    temperature_K: float | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Relaxation:
    """Go on with reference barriers in the functional; the paths keep the rates of the model.

    A fifth of the groups of states validates; where they do not get better, nothing changes. All states given count as
    seen: a bound evaluated on them is an estimate, so keep those of the evaluation apart.

    Parameters
    ----------
    relaxation
        A trained relaxation; it is left alone.
    states
        Equilibrium states of the reference energies, with their weights.
    barriers
        Reference barriers of these states.
    temperature_K
        K; default that of the relaxation's rates.
    epochs, batch_size, learning_rate, attempt_frequency, seed, device, progress
        As in :func:`train_relaxation`.

    Returns
    -------
    Relaxation

    Raises
    ------
    ModelError
        If the relaxation was deepened already, or there is no such device.
    StatesError
        If there are fewer than five independent groups of states.
    """
    ranks = Ranks.present()
    place = device_of(device)
    if relaxation.scales is not None:
        raise ModelError(
            "found a relaxation that was deepened; expected one as training leaves it; fine-tune that one, then deepen "
            "the result"
        )
    own = relaxation.rates
    if temperature_K is None and own is not None:
        temperature_K = own.temperature_K
    rates = Rates.of(barriers, relaxation.network, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    check_temperature(states, temperature_K)
    if ranks.size > 1:
        options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
        ranks.agree(**options, relaxation=_fingerprint(relaxation), **summary(states, rates))
    tuned = _on(relaxation.to(relaxation.dtype), place)
    rng = np.random.default_rng(seed)
    held = _held_out(states, rng)
    objective = share_out(ranks, tuned, states[~held], owners(states[~held].groups, ranks), rates=rates)
    check = share_out(ranks, tuned, states[held], np.arange(held.sum()) % ranks.size, rates=rates)
    with threads_for_a_while(place):
        run = _Run(tuned, objective, check, batch_size, None, rng, progress and ranks.first, ranks)
        run.note()
        run.fit([(tuned.parameters(), learning_rate)], epochs, "fine-tuning y")
        run.finish()
    tuned = _on(tuned, torch.device("cpu"))
    before = relaxation.report.get("training_keys", [])
    tuned.report |= {"training_keys": sorted({*before, *states.keys}), "fine_tuned_on": len(states)}
    return tuned


class _Run:
    """One training: keeps the best weights and the history of the validation loss."""

    def __init__(
        self,
        relaxation: Relaxation,
        objective: Objective | SharedObjective,
        check: Objective | SharedObjective,
        batch_size: int,
        patience: int | None,
        rng: np.random.Generator,
        progress: bool,
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        ranks.equalise(relaxation.parameters())
        self.relaxation, self.objective, self.check = relaxation, objective, check
        self.batch_size, self.patience, self.rng, self.progress = batch_size, patience, rng, progress
        self.untrained, _ = check.evaluate(relaxation)
        self.history = [self.untrained]
        self.best = self.untrained
        self.falling = 0.0
        self.weights = copy.deepcopy(relaxation.modules.state_dict())

    def calibrate(self, ridge: float, *, untrained: bool) -> None:
        """Set what needs no epochs: the scale of the rates, and all that is linear, in closed form."""
        relaxation = self.relaxation
        if relaxation.closure is not None:
            self.objective.calibrate(relaxation)
            if not untrained:
                self.note()
        linear: list[nn.Parameter] = [] if relaxation.closure is None else [relaxation.closure.factor]
        if relaxation.form == "clusters":
            linear += list(relaxation.field.parameters())  # type: ignore[union-attr]
        if linear:
            # an untrained network is zero: leaving it out changes nothing and saves its cost
            with _without_field(relaxation, untrained and isinstance(relaxation.field, EquivariantField)):
                solve_linear(relaxation, self.objective, linear, ridge=ridge)
            self.note()

    def note(self) -> float:
        """Evaluate on the validation states and keep the weights if they are the best so far."""
        value, _ = self.check.evaluate(self.relaxation)
        self.history.append(value)
        if value < self.best:
            self.best, self.weights = value, copy.deepcopy(self.relaxation.modules.state_dict())
        return value

    def fit(
        self,
        groups: list[tuple[Any, float]],
        epochs: int,
        name: str,
        *,
        chain: _Fresh | None = None,
        best_of: bool = True,
    ) -> None:
        """Adam with a one-cycle schedule; ``groups`` are parameters and their step sizes."""
        objective = self.objective
        params = [{"params": list(p), "lr": rate} for p, rate in groups]
        every = [p for g in params for p in g["params"]]  # type: ignore[attr-defined]
        steps = epochs * len(objective.batches(self.batch_size, np.random.default_rng(0)))
        optimizer = torch.optim.Adam(params)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [rate for _, rate in groups], total_steps=steps + 1, pct_start=0.15
        )
        best = copy.deepcopy([p.detach() for p in every])
        lowest = self.check.evaluate(self.relaxation)[0]
        bar = tqdm(total=steps, desc=name, unit="batch", disable=not self.progress)
        bar.set_postfix({"bound": f"{lowest:.4f}"})
        waited, values = 0, [lowest]
        for epoch in range(epochs):
            for which, rows in objective.batches(self.batch_size, self.rng):
                set_gradients(every, self.relaxation, objective, which, rows)
                self.ranks.sum_gradients(every)
                torch.nn.utils.clip_grad_norm_(every, 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
            self.ranks.equalise(every)
            value = self.note() if best_of else self.check.evaluate(self.relaxation)[0]
            bar.set_postfix({"bound": f"{value:.4f}"})
            values.append(value)
            waited += 1
            if value < lowest:
                lowest, waited, best = value, 0, copy.deepcopy([p.detach() for p in every])
            if self.patience is not None and waited >= self.patience:
                break
            if chain is not None and epoch + 1 < epochs:
                objective = chain.renew()
        bar.close()
        tail = max(1, epochs // 4)
        if len(values) == epochs + 1:  # not stopped by its own patience
            self.falling = max(0.0, 1.0 - min(values) / min(values[:-tail]))
        for p, kept in zip(every, best, strict=True):
            p.data = kept

    def doubts(self) -> list[KinosonWarning]:
        """Warnings of a training that was too short, or of too few states."""
        said: list[KinosonWarning] = []
        if self.falling > FALLING:
            said.append(
                NotConverged(
                    f"the bound on the validation states still fell by {100 * self.falling:.1f} % in the last quarter "
                    f"of the epochs; expected at most {100 * FALLING:g} %; y is not as good as it can be",
                    number=100 * self.falling,
                    limit=100 * FALLING,
                    unit="%",
                    advice="raise epochs, or go on from this relaxation with start=",
                )
            )
        tried = self.history[1:]
        if tried and min(tried) > (1.0 + WORSE) * self.untrained:
            said.append(
                NotConverged(
                    f"training makes the bound on the validation states {min(tried) / self.untrained:.3f} times what "
                    "it is without; expected less than 1; y has learned its training states by heart, and was left "
                    "untrained",
                    number=min(tried) / self.untrained,
                    limit=1,
                    advice="train on more states, or raise ridge",
                )
            )
        return said

    def finish(self) -> None:
        """Put the best weights back and write the report."""
        self.relaxation.modules.load_state_dict(self.weights)
        _, ratios = self.check.evaluate(self.relaxation)
        self.relaxation.report |= {
            "untrained_bound_ratio": self.untrained,
            "trained_bound_ratio": self.best,
            "bound_ratios": ratios,
            "history": self.history,
        }
        free_memory()
        _log.info("relaxation: validation bound ratio %.4f -> %.4f", self.untrained, self.best)


def set_gradients(
    parameters: Sequence[nn.Parameter],
    relaxation: Relaxation,
    objective: Objective | SharedObjective,
    which: int,
    rows: torch.Tensor,
) -> None:
    """Set the gradients of the loss of a batch; each core takes parts of its states.

    Parameters
    ----------
    parameters
        What learns.
    relaxation
        The relaxation that they belong to.
    objective
        Λ of the training states.
    which, rows
        A batch of :meth:`Objective.batches`.
    """

    def one(part: torch.Tensor) -> Sequence[torch.Tensor | None]:
        loss = objective.loss(relaxation, which, part)
        if not loss.requires_grad:  # this process has none of these states
            return [None] * len(parameters)
        return torch.autograd.grad(loss * (len(part) / len(rows)), parameters, allow_unused=True)

    for p in parameters:
        p.grad = None
    size = min(max(-(-len(rows) // n_side_by_side()), WORTH_A_THREAD), PART)
    for found in on_all_cores(one, rows.split(size)):
        for p, g in zip(parameters, found, strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g


class _Fresh:
    """Training states that go on by Monte Carlo; the oldest make room for new ones.

    Of several processes each goes on with its own chains, by the random numbers that one process would use.
    """

    def __init__(
        self,
        states: States,
        relaxation: Relaxation,
        share: float,
        seed: int,
        ranks: Ranks | None = None,
        owner: NDArray[np.int64] | None = None,
    ) -> None:
        assert relaxation.rates is not None
        self.ranks = Ranks() if ranks is None else ranks
        self.owner = np.zeros(len(states), dtype=np.int64) if owner is None else owner
        self.relaxation = relaxation
        self.count = max(1, round(share * len(states)))
        self.keys: set[str] = set()
        self.next = 0
        # the last state of every chain
        last = {int(g): i for i, g in enumerate(states.groups)}
        self.groups, rows = np.array(list(last)), np.array(list(last.values()))
        self.owner_of_chain = self.owner[rows]
        self.own = np.flatnonzero(self.owner_of_chain == self.ranks.rank)
        self.states = states[self.owner == self.ranks.rank]
        assert states.temperature_K is not None
        self.chain = MonteCarlo(
            states.supercell,
            relaxation.rates.source,
            states.temperature_K,
            seed=seed,
            occupations=states.occupations[rows[self.own]],
        )
        if self.ranks.size > 1:
            self.chain._rng = Columns(self.chain._rng, len(rows), self.own)  # type: ignore[assignment]

    def renew(self) -> Objective | SharedObjective:
        """Replace the oldest states by new ones."""
        kept = self.states[int((self.owner[: self.count] == self.ranks.rank).sum()) :]
        occupations, carriers, groups, missing = [kept.occupations], [kept.carriers], [kept.groups], self.count
        owner = [self.owner[self.count :]]
        while missing > 0:
            self.chain.run(REFRESH_SWEEPS)
            turn = (self.next + np.arange(min(missing, len(self.groups)))) % len(self.groups)
            here = turn[self.owner_of_chain[turn] == self.ranks.rank]
            chains = np.searchsorted(self.own, here)
            occupations.append(self.chain.occupations[chains])
            carriers.append(self.chain.carriers[chains])
            groups.append(self.groups[here])
            owner.append(self.owner_of_chain[turn])
            self.next, missing = (self.next + len(turn)) % len(self.groups), missing - len(turn)
        old = self.states
        self.owner = np.concatenate(owner)
        self.states = States.from_occupations(
            old.supercell,
            np.concatenate(occupations),
            carriers=np.concatenate(carriers),
            groups=np.concatenate(groups),
            ensemble=old.ensemble,
            temperature_K=old.temperature_K,
            source=old.source,
        )
        self.keys |= set(self.states[len(kept) :].keys)
        if self.ranks.size == 1:
            return Objective.of(self.relaxation, self.states)
        rows = np.flatnonzero(self.owner == self.ranks.rank)
        n = len(self.owner)
        return SharedObjective.of(self.ranks, self.relaxation, self.states, rows, n, weight=len(rows) / n)


def _on(relaxation: Relaxation, place: torch.device) -> Relaxation:
    """The relaxation on a device; itself where it is there already."""
    return relaxation if relaxation.device == place else relaxation.to(device=place)


@contextmanager
def _without_field(relaxation: Relaxation, when: bool = True) -> Iterator[None]:
    kept = relaxation.field
    if when:
        relaxation.field = None
    try:
        yield
    finally:
        relaxation.field = kept


def _fingerprint(relaxation: Relaxation | None) -> float | None:
    """One number that tells weights apart."""
    if relaxation is None:
        return None
    return float(sum(p.detach().double().square().sum() for p in relaxation.parameters()))


def _closure(relaxation: Relaxation) -> nn.Module:
    assert relaxation.closure is not None
    return relaxation.closure


def _stream(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([int(seed), number]).generate_state(1)[0])


def _take_over(relaxation: Relaxation, start: Relaxation) -> None:
    start.check(relaxation.network)
    try:
        relaxation.modules.load_state_dict(start.modules.state_dict())
    except RuntimeError as error:
        raise ModelError(
            f"found a start with lookahead={start.lookahead} and form={start.form!r} for one with "
            f"lookahead={relaxation.lookahead} and form={relaxation.form!r}; expected the same form, cutoff and "
            "widths; pass the options it was trained with"
        ) from error


def _check_states(states: States, cell: Supercell, rates: Rates) -> None:
    if states.supercell != cell:
        raise StatesError(
            "the training states belong to another supercell; expected the one to train on; sample them again"
        )
    if states.ensemble == "random" and getattr(rates.source, "energy", None) is not None:
        raise StatesError(
            "found random training states for a model with energies; expected its equilibrium states; use "
            "method='monte-carlo'"
        )
    if not isinstance(rates.source, RateSource):
        check_temperature(states, rates.temperature_K)


def _held_out(states: States, rng: np.random.Generator) -> NDArray[np.bool_]:
    groups = np.unique(states.groups)
    if len(groups) < 5:
        raise StatesError(
            f"found {len(groups)} independent groups of training states; expected at least 5, so that some can "
            "validate; sample more"
        )
    chosen = rng.permutation(groups)[: max(1, len(groups) // 5)]
    return np.isin(states.groups, chosen)
