"""Active learning: compute the barriers that matter for D, and stop when D is known well enough.

From a pool of equilibrium states, single jumps are drawn with probability ∝ kinoson × its uncertainty, so that barriers
are spent where they change D. What they give is not averaged but weighted by the inverse of those probabilities, on top
of what the barrier models expect of all the others (:class:`OrderedEstimate`): the estimate of the pool's D is unbiased
however wrong the models are, and the models may learn from every round.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.reference import NO_JUMP, NOT_COMPUTED, Barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.barriers.source import BarrierSource
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.candidates import Calibration, Candidates, Forecast, Known
from ase_kinoson.kinosons.ordered_sampling import OrderedEstimate
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, NO_BOUND
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.verdict import check_temperature
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY, thermal_energy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ActiveResult", "ActiveRound", "active_barriers", "fit_members"]

CHOICES = ("active", "random")
DEFENCE = 0.1
"""Share of the probability that does not trust the uncertainties: ∝ expected kinoson, and evenly."""

TYPICAL_CALLS = (25.0, 16.0)
"""Force calls of a relaxed state and of a jump, where no barriers tell."""


@dataclass(frozen=True)
class ActiveRound:
    """What was known after a round.

    Attributes
    ----------
    n_barriers, n_states : int
        Jumps computed, and the states they belong to.
    force_calls : int
        Of both; 0 where the reference is no calculator.
    value : float
        The target coefficient, in its unit.
    error : float
        Its standard error: ``selection_error`` and ``pool_error`` together.
    selection_error : float
        Because not all jumps of the pool are computed.
    pool_error : float
        Because the pool is finite: over its groups.
    random_error : float
        What ``error`` would be had as many barriers been computed of whole states taken at random, without a model
        (computed from what is known now).
    """

    n_barriers: int
    n_states: int
    force_calls: int
    value: float
    error: float
    selection_error: float
    pool_error: float
    random_error: float


@dataclass(frozen=True, eq=False)
class ActiveResult:
    """Coefficients from chosen barriers, and the way there.

    Attributes
    ----------
    diffusivity : mapping of str to Quantity
        Of the carrier (``"vacancy"`` or ``"carrier"``) and the tracers by species: Λ[y] over the pool, a bound.
    target : str
        The one for which barriers were chosen.
    history : tuple of ActiveRound
    barriers : Barriers
        All that were computed; ``"not-computed"`` elsewhere.
    models : tuple
        The barrier models of the last round.
    chosen : ndarray of int, shape (n, 2)
        State of the pool and jump (−1: all of the state), in the order of choice.
    probability : ndarray, shape (n,)
        Of each choice among what was left.
    reached : bool
        Whether the requested error was reached.
    settings : mapping
    """

    diffusivity: Mapping[str, Quantity]
    target: str
    history: tuple[ActiveRound, ...]
    barriers: Barriers
    models: tuple[Any, ...]
    chosen: NDArray[np.int64]
    probability: NDArray[np.float64]
    reached: bool
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_barriers(self) -> int:
        """Number of jumps computed."""
        return self.history[-1].n_barriers

    def plot(self, *, random: ActiveResult | None = None, ax: Axes | None = None) -> Axes:
        """Relative error of the target against the number of barriers, chosen and at random.

        Parameters
        ----------
        random
            A run with ``choice="random"`` to draw instead of the expected curve.
        ax
            Where to draw.
        """
        from ase_kinoson.plotting import PALETTE, _axes

        axes = _axes(ax)
        value = self.history[-1].value
        n = [r.n_barriers for r in self.history]
        axes.plot(n, [100 * r.error / value for r in self.history], "o-", color=PALETTE[1], label="chosen")
        if random is None:
            expected = [100 * r.random_error / value for r in self.history]
            axes.plot(n, expected, "s--", color=PALETTE[0], label="at random (expected)")
        else:
            m = [r.n_barriers for r in random.history]
            axes.plot(m, [100 * r.error / value for r in random.history], "s--", color=PALETTE[0], label="at random")
        floor = 100 * self.history[-1].pool_error / value
        axes.axhline(floor, color="0.6", linewidth=1, linestyle=":", label="pool")
        axes.set(xlabel="reference barriers", ylabel=f"error of D ({self.target}), %", xscale="log", yscale="log")
        axes.legend(frameon=False)
        return axes

    def __str__(self) -> str:
        last = self.history[-1]
        lines = [f"{last.n_barriers} barriers of {last.n_states} states, chosen for {self.target}"]
        return "\n".join([*lines, *(f"  D({name}) = {q}" for name, q in self.diffusivity.items())])


def fit_members(barriers: Barriers, seed: int, *, n_members: int = 4, **options: Any) -> list[BarrierModel]:
    """Fit barrier models that differ in their seed and in the states held out for stopping."""
    options = {"test_fraction": 0.0, **options}
    return [BarrierModel.fit(barriers, seed=1000 * seed + i, **options) for i in range(n_members)]


def active_barriers(
    pool: States,
    jumps: JumpNetwork,
    reference: Any,
    *,
    temperature_K: float,
    relaxation: Relaxation | None = None,
    models: Any = None,
    training: Barriers | None = None,
    fit: Callable[[Barriers, int], Any] | None = fit_members,
    target: str | None = None,
    relative_error: float | None = 0.05,
    choice: str = "active",
    unit: str | None = None,
    batch: int = 100,
    max_barriers: int | None = None,
    reweight: bool | None = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    vacancy_fraction: float | None = None,
    costs: tuple[float, float] | None = None,
    store: str | Path | None = None,
    executor: Executor | None = None,
    settings: SaddleSettings | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ActiveResult:
    """Choose and compute barriers round by round until a diffusivity is known to a requested error.

    Parameters
    ----------
    pool : States
        Equilibrium states: of a model's Monte Carlo, or of the reference energies themselves. Cheap, so many.
    jumps
        Jumps of the carrier.
    reference
        A calculator factory, as in :func:`compute_barriers`, or any source of barriers.
    temperature_K
        K; that of the pool.
    relaxation
        Relaxation y, trained without reference barriers of the pool; None means y = 0.
    models
        Barrier models to start with: a list, an object with ``members``, or one model. Default: ``fit(training)``.
    training : Barriers, optional
        What is known beforehand; every fit uses it. None of it may be of the pool.
    fit : callable, optional
        ``fit(barriers, seed)`` returns models as above; called after every round. None: the models stay.
    target
        For which coefficient to choose: ``"vacancy"`` (``"carrier"`` of an interstitial; the default) or a species,
        for its tracer.
    relative_error
        Requested standard error of the target, relative to its value; the pool's own scatter included. None: go on to
        ``max_barriers``.
    choice
        ``"active"``, or ``"random"``: whole states with equal probability, for comparison.
    unit
        ``"jump"`` or ``"state"``: what is drawn. Default: jumps if active, states if random.
    batch
        Barriers per round.
    max_barriers
        Where to stop at the latest.
    reweight
        Whether states are weighted to the reference energies, exp(−(E_ref − E_model)/k_BT). Default: for pools drawn
        by Monte Carlo of a model; not for those of :func:`sample_with_calculator` or without model energies.
    attempt_frequency
        s⁻¹.
    vacancy_fraction
        As in :func:`transport`.
    costs
        Force calls of a relaxed state and of a jump. Default: from ``training``.
    store, executor, settings
        As in :func:`compute_barriers`.
    seed
        Of the choices and fits.
    progress
        Show a progress bar.

    Returns
    -------
    ActiveResult

    Raises
    ------
    StatesError, KinosonError
        If pool, jumps, models or options do not go together.

    Warns
    -----
    KinosonWarning
        If the requested error is out of reach of this pool, or searches failed.
    """
    if choice not in CHOICES:
        raise KinosonError(f"found choice={choice!r}; expected one of {CHOICES}; choose one")
    unit = unit or ("jump" if choice == "active" else "state")
    if unit not in ("jump", "state"):
        raise KinosonError(f"found unit={unit!r}; expected 'jump' or 'state'; choose one")
    for name, number in (("relative_error", relative_error), ("batch", batch), ("max_barriers", max_barriers)):
        if number is not None and not number > 0:
            raise KinosonError(f"found {name}={number!r}; expected a positive number; correct it")
    if pool.supercell != jumps.supercell:
        raise StatesError("the pool lives on another supercell than the jumps; expected the same; build both from one")
    check_temperature(pool, temperature_K)
    if reweight is None:
        reweight = pool.model_energies is not None and pool.report.get("method") != "delayed-acceptance"
        reweight = reweight and not pool.report.get("reweighted")
    candidates = Candidates.build(
        pool,
        jumps,
        relaxation,
        temperature_K,
        reweighted=reweight,
        attempt_frequency=attempt_frequency,
        vacancy_fraction=vacancy_fraction,
    )
    target = candidates.names[0] if target is None else target
    if target not in candidates.names:
        raise KinosonError(f"found target={target!r}; expected one of {candidates.names}; choose one")
    if models is None:
        if training is None or fit is None:
            raise KinosonError("found neither models nor training barriers and fit=; expected one; pass models=")
        models = fit(training, seed)
    with ExitStack() as stack:
        if store is None and not _is_source(reference):
            store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "barriers.db"
        ask = _Reference(candidates, reference, store, executor, settings)
        run = _Run(candidates, ask, _members(models), target, unit, choice, costs or _costs(training, ask), seed)
        limit = min(max_barriers or run.n_jumps, run.n_jumps)
        with tqdm(total=limit, desc="chosen barriers", unit="barrier", disable=not progress) as bar:
            while True:
                before = run.n_barriers
                record = run.round(min(batch, limit - before))
                bar.update(run.n_barriers - before)
                if run.is_done(relative_error) or run.n_barriers >= limit:
                    break
                if fit is not None:
                    known = [run.barriers] if training is None else [training, run.barriers]
                    run.members = _members(fit(Barriers.concatenate(known), seed + len(run.history)))
    _warn(run, relative_error)
    about = {
        "temperature_K": float(temperature_K),
        "relative_error": relative_error,
        "choice": choice,
        "unit": unit,
        "batch": batch,
        "reweighted": reweight,
        "seed": seed,
        "attempt_frequency": attempt_frequency,
        "n_pool": len(pool),
        "n_failed": run.n_failed,
    }
    return ActiveResult(
        run.quantities(per_cv=vacancy_fraction is None),
        target,
        tuple(run.history),
        run.barriers,
        tuple(run.members),
        run.chosen(),
        np.concatenate(run.probabilities),
        relative_error is not None and run.history[-1].error <= relative_error * abs(run.history[-1].value),
        about,
    )


def _members(models: Any) -> list[Any]:
    found = getattr(models, "members", models)
    found = list(found) if isinstance(found, Sequence) else [found]
    if not found:
        raise KinosonError("found no barrier model; expected at least one; pass models=")
    return found


def _is_source(reference: Any) -> bool:
    return isinstance(reference, BarrierSource | Rates) or hasattr(reference, "bind")


def _costs(training: Barriers | None, ask: _Reference) -> tuple[float, float]:
    if ask.source is not None and not isinstance(ask.source, Barriers):
        return 0.0, 1.0
    known = ask.source if isinstance(ask.source, Barriers) else training
    if known is None or not known.valid.any() or known.force_calls[known.valid].mean() == 0:
        return TYPICAL_CALLS
    states = known.settings.get("force_calls_initial", TYPICAL_CALLS[0] * len(known)) / len(set(known.states.keys))
    return float(states), float(known.force_calls[known.valid].mean())


class _Reference:
    """Barriers of chosen jumps, from a calculator or a source."""

    def __init__(
        self,
        candidates: Candidates,
        reference: Any,
        store: str | Path | None,
        executor: Executor | None,
        settings: SaddleSettings | None,
    ) -> None:
        self.candidates, self.factory = candidates, reference
        self.options: dict[str, Any] = {"store": store, "executor": executor, "settings": settings}
        self.source: Any = None
        if _is_source(reference):
            self.rates = Rates.of(reference, candidates.network, temperature_K=candidates.temperature_K)
            self.source = self.rates.source

    def __call__(self, rows: NDArray, asked: NDArray) -> Barriers:
        """All barriers asked for up to now: rows of the candidates (n,) and jumps (n, J)."""
        states, network = self.candidates.states[rows], self.candidates.network
        if self.source is None:
            wanted = {n: np.flatnonzero(asked[n]).tolist() for n in range(len(rows))}
            return compute_barriers(states, network, self.factory, jumps=wanted, **self.options)
        found = self.source.jump_energies(states.occupations, states.carriers)
        start = self.rates.state_energies(states.occupations)
        status = np.where(np.isfinite(found.barrier), "ok", "rejected").astype("U24")
        calls = None
        if isinstance(self.source, Barriers):
            own = self.source.rows(states.occupations, states.carriers)
            status, calls = self.source.status[own], np.where(asked, self.source.force_calls[own], 0)
        status = np.where(asked | (status == NO_JUMP), status, NOT_COMPUTED)
        forward = np.where(status == "ok", found.barrier, np.inf)
        return Barriers.from_arrays(
            states,
            network,
            forward,
            reverse_barrier=np.where(status == "ok", forward - found.delta_e, np.inf),
            energy_initial=start,
            status=status,
            force_calls=calls,
        )


class _Run:
    """Rounds of choosing, computing and estimating."""

    def __init__(
        self,
        candidates: Candidates,
        ask: _Reference,
        members: list[Any],
        target: str,
        unit: str,
        choice: str,
        costs: tuple[float, float],
        seed: int,
    ) -> None:
        self.candidates, self.ask, self.members = candidates, ask, members
        self.target, self.choice, self.costs = candidates.names.index(target), choice, costs
        self.kT = thermal_energy(candidates.temperature_K)
        self.rng = np.random.default_rng([seed, 7])
        exists = candidates.exists
        self.of_state, self.jump = (np.arange(len(exists)), None) if unit == "state" else np.nonzero(exists)
        self.n_jumps = int(exists.sum())
        self.per_unit = self.n_jumps / len(self.of_state)
        self.left = np.ones(len(self.of_state), dtype=bool)
        self.asked = np.zeros(exists.shape, dtype=bool)
        self.estimate = OrderedEstimate(len(self.of_state))
        self.known = Known.nothing(candidates)
        self.barrier_errors, self.energy_errors = Calibration(), Calibration()
        self.shift = self._shift()
        forecast = Forecast.of(candidates, members, self.known, self.shift)
        # the weight of a state is shared among its jumps in fixed parts, by what they are expected to carry
        own = candidates.kinosons[self.target] * forecast.factor + 1e-300 * exists
        self.share = own / own.sum(axis=1, keepdims=True)
        self.history: list[ActiveRound] = []
        self.units: list[NDArray] = []
        self.probabilities: list[NDArray] = []
        self.n_failed = 0
        self.barriers: Barriers
        self.best: NDArray

    def _shift(self) -> float:
        """Common zero of the models' energies, once and for all; a factor of numerator and denominator."""
        drawn = self.candidates.states.model_energies
        if not self.candidates.reweighted or drawn is None:
            return 0.0
        states = self.candidates.states
        gaps = []
        for member in self.members:
            rates = Rates.of(member, self.candidates.network, temperature_K=self.candidates.temperature_K)
            energies = rates.state_energies(states.occupations)
            if energies is None:
                raise StatesError(
                    f"found a model without energies, {type(member).__name__}; expected one that has them, to weight "
                    "the states; pass reweight=False if the pool needs no weights"
                )
            gaps.append(np.mean(energies - drawn))
        return float(np.mean(gaps))

    @property
    def n_barriers(self) -> int:
        """Number of jumps asked for."""
        return int(self.asked.sum())

    def is_done(self, relative_error: float | None) -> bool:
        """Whether the error is reached, or out of reach because there are too few states."""
        last = self.history[-1]
        if self.estimate.is_complete:
            return True
        if relative_error is None or len(self.history) < 2:
            return False
        goal = relative_error * abs(last.value)
        return last.error <= goal or (last.pool_error > goal and last.selection_error < 0.5 * last.pool_error)

    def gather(self, factor: NDArray, lift: NDArray) -> NDArray[np.float64]:
        """Values of all units, shape (n_coefficients + 1, n_units); the last is the weight."""
        c = self.candidates
        weight = c.weight * lift
        if self.jump is None:
            return np.concatenate([np.einsum("qnk,nk->qn", c.kinosons, factor), weight[None]])
        of, jump = self.of_state, self.jump
        shared = weight[of] * self.share[of, jump]
        return np.concatenate([c.kinosons[:, of, jump] * factor[of, jump], shared[None]])

    def round(self, n: int) -> ActiveRound:
        """Choose, compute and estimate."""
        c = self.candidates
        forecast = Forecast.of(c, self.members, self.known, self.shift)
        guesses = self.gather(forecast.factor, forecast.lift)
        count = max(1, round(n / self.per_unit))
        units, probability = self.draw(min(count, int(self.left.sum())), forecast, guesses)
        if self.jump is None:
            self.asked[self.of_state[units]] = c.exists[self.of_state[units]]
        else:
            self.asked[self.of_state[units], self.jump[units]] = True
        rows = np.flatnonzero(self.asked.any(axis=1))
        self.barriers = self.ask(rows, self.asked[rows])
        known = Known.of(c, rows, self.barriers)
        self.learn(known, forecast)
        factor, lift = c.factors(known.energies, np.nan_to_num(known.barriers, nan=np.inf), self.shift)
        lift = np.where(known.unstable, 0.0, np.where(np.isfinite(lift), lift, forecast.lift))
        lost = known.failed | (self.asked & ~np.isfinite(factor) & ~known.unstable[:, None])
        factor = np.where(known.unstable[:, None], 0.0, np.where(lost, forecast.factor, factor))
        self.n_failed = int(lost.sum())
        factor = np.where(self.asked, factor, forecast.factor)
        lift = np.where(known.relaxed, lift, forecast.lift)
        values = self.gather(factor, lift)
        self.estimate.add(units, probability, values[:, units], guesses, self.left, rnd=len(self.history) + 1)
        self.left[units] = False
        self.known, self.best = (
            known,
            np.einsum("qnk,nk->qn", c.kinosons, factor),
        )
        self.best_weight = c.weight * lift
        self.units.append(units)
        self.probabilities.append(probability)
        self.history.append(self.record(rows))
        return self.history[-1]

    def learn(self, known: Known, forecast: Forecast) -> None:
        """Compare what was expected with what came."""
        new = np.isfinite(known.barriers) & ~np.isfinite(self.known.barriers)
        self.barrier_errors.add((known.barriers - forecast.barriers.mean(axis=0))[new], forecast.barrier_variance[new])
        if self.candidates.reweighted:
            first = np.isfinite(known.energies) & ~self.known.relaxed
            gap = known.energies - forecast.energies.mean(axis=0)
            self.energy_errors.add(gap[first], forecast.energy_variance[first])

    def draw(self, count: int, forecast: Forecast, guesses: NDArray) -> tuple[NDArray, NDArray]:
        """Draw units without replacement; return them and their probabilities."""
        left = self.left.copy()
        units, probability = np.empty(count, dtype=np.int64), np.empty(count)
        first, again, cost_first, cost_again = self.scores(forecast, guesses)
        fresh = ~self.known.relaxed[self.of_state]
        kinoson, weight = guesses[self.target], guesses[-1]
        defence = kinoson / kinoson.sum() + weight / weight.sum() + 1.0 / len(kinoson)
        for m in range(count):
            if self.choice == "random":
                p = left / left.sum()
            else:
                score = np.where(fresh, first / np.sqrt(cost_first), again / np.sqrt(cost_again)) * left
                spare = defence * left
                p = spare / spare.sum()
                if score.sum() > 0:
                    p = (1.0 - DEFENCE) * score / score.sum() + DEFENCE * p
            units[m] = self.rng.choice(len(p), p=p / p.sum())
            probability[m] = p[units[m]] / p.sum()
            left[units[m]] = False
            fresh &= self.of_state != self.of_state[units[m]]
        return units, probability

    def scores(self, forecast: Forecast, guesses: NDArray) -> tuple[NDArray, NDArray, float, float]:
        """Expected error of each unit's part in numerator − D·denominator: in a new or a relaxed state; costs."""
        c = self.candidates
        kinoson, weight = guesses[self.target], guesses[-1]
        value = kinoson[self.left].sum() / max(weight[self.left].sum(), 1e-300)
        of_barrier = self.barrier_errors.relative_variance(forecast.barrier_variance, self.kT)
        of_barrier = np.where(np.isfinite(of_barrier), of_barrier, 0.0)
        single = (c.kinosons[self.target] * forecast.factor) ** 2 * of_barrier
        again = single.sum(axis=1) if self.jump is None else single[self.of_state, self.jump]
        first = again
        if c.reweighted:
            of_energy = self.energy_errors.relative_variance(forecast.energy_variance, self.kT)
            first = again + (kinoson - value * weight) ** 2 * of_energy[self.of_state]
        per_unit = self.costs[1] * self.per_unit
        return np.sqrt(first), np.sqrt(again), self.costs[0] + per_unit, per_unit

    def record(self, rows: NDArray) -> ActiveRound:
        """Estimate and errors of the target."""
        value, selection = self.estimate.ratio(self.target, -1)
        pool, spread = self.pool_errors(self.target, value)
        states = self.n_barriers / self.n_jumps * len(self.candidates.weight)
        scatter = spread * np.sqrt(max(0.0, 1.0 / states - 1.0 / len(self.candidates.weight)))
        calls = int(self.barriers.force_calls.sum() + self.barriers.settings.get("force_calls_initial", 0))
        return ActiveRound(
            self.n_barriers,
            len(rows),
            calls,
            value,
            float(np.hypot(selection, pool)),
            selection,
            pool,
            float(np.hypot(scatter, pool)),
        )

    def pool_errors(self, coefficient: int, value: float) -> tuple[float, float]:
        """Standard error over the pool's groups, and the scatter of whole states: the estimate from one of them."""
        c = self.candidates
        per_state = (self.best[coefficient] - value * self.best_weight) / self.best_weight.sum()
        spread = len(per_state) * float(per_state.std(ddof=1)) if len(per_state) > 1 else float("inf")
        rows = per_state[c.row] * c.pool.weights / c.weight[c.row]
        labels, group = np.unique(c.pool.groups, return_inverse=True)
        if len(labels) < 2:
            return float("nan"), spread
        parts = np.bincount(group, rows)
        return float(np.sqrt(len(labels) / (len(labels) - 1.0) * ((parts - parts.mean()) ** 2).sum())), spread

    def quantities(self, *, per_cv: bool) -> dict[str, Quantity]:
        """All coefficients with their errors."""
        c = self.candidates
        kind = NO_BOUND if c.pool.ensemble == "random" else BOUND
        found = {}
        for n, name in enumerate(c.names):
            value, selection = self.estimate.ratio(n, -1)
            error = float(np.hypot(selection, self.pool_errors(n, value)[0]))
            atoms = n > 0 and c.network.mechanism == "vacancy" and per_cv
            found[name] = Quantity(value, error, "m^2/s per c_v" if atoms else "m^2/s", kind)
        return found

    def chosen(self) -> NDArray[np.int64]:
        """State of the pool and jump of each choice."""
        units = np.concatenate(self.units)
        first = np.unique(self.candidates.row, return_index=True)[1]
        jump = np.full(len(units), -1) if self.jump is None else self.jump[units]
        return np.stack([first[self.of_state[units]], jump], axis=1)


def _warn(run: _Run, relative_error: float | None) -> None:
    last = run.history[-1]
    if run.candidates.pool.ensemble == "random":
        warnings.warn(
            "the pool is no equilibrium sample, so that its average is neither the diffusivity nor a bound; expected "
            "Monte Carlo states; sample with method='monte-carlo'",
            KinosonWarning,
            stacklevel=3,
        )
    if run.n_failed:
        warnings.warn(
            f"{run.n_failed} of {last.n_barriers} searches failed; the models' guesses stand for them; expected none; "
            "see barriers.reasons",
            KinosonWarning,
            stacklevel=3,
        )
    if relative_error is not None and last.pool_error > relative_error * abs(last.value):
        warnings.warn(
            f"the scatter of the {len(run.candidates.pool)} states of the pool alone is "
            f"{100 * last.pool_error / abs(last.value):.1f} % of D; expected less than {100 * relative_error:g} %; add "
            "states to the pool, which costs no barriers",
            KinosonWarning,
            stacklevel=3,
        )
