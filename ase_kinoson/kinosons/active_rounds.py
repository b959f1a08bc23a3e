"""Rounds of choosing, computing and estimating, behind :func:`active_barriers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.errors import (
    FailedCalculations,
    FewKinosons,
    KinosonWarning,
    NotAtEquilibrium,
    SeenStates,
    SmallSample,
)
from ase_kinoson.kinosons.active_reference import Reference
from ase_kinoson.kinosons.candidates import Calibration, Candidates, Forecast, Known
from ase_kinoson.kinosons.ordered_sampling import OrderedEstimate
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, ESTIMATE, NO_BOUND
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.verdict import HEAVY_SHARE, heavy_share
from ase_kinoson.units import thermal_energy

__all__ = ["ActiveRound", "Rounds"]

DEFENCE = 0.1
"""Share of the probability that does not trust the uncertainties: ∝ expected kinoson, and evenly."""

LEAST_OVERLAP, LEAST_STATES = 0.3, 5
"""Effective sample size that weights must leave, relative to the pool's own and as such; as in :func:`reweight`."""


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
        Because not all jumps of the pool are computed: from the scatter seen, or as expected from the errors of the
        models, whichever is larger.
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


class Rounds:
    """What is known of a pool after some rounds, and the next one.

    Numerator and denominator of D are totals over units (jumps or states) of the pool. A unit's part in both is what it
    adds to Σ w kinosons and, of the weight of its state, a fixed share.
    """

    def __init__(
        self,
        candidates: Candidates,
        ask: Reference,
        members: list[Any],
        target: str,
        unit: str,
        choice: str,
        costs: tuple[float, float],
        seed: int,
    ) -> None:
        self.candidates, self.ask = candidates, ask
        self.target, self.choice, self.costs = candidates.names.index(target), choice, costs
        self.kT = thermal_energy(candidates.temperature_K)
        self.rng = np.random.default_rng([seed, 7])
        exists = candidates.exists
        self.of_state: NDArray[np.int64] = np.arange(len(exists))
        self.jump: NDArray[np.int64] | None = None
        if unit == "jump":
            self.of_state, self.jump = np.nonzero(exists)
        self.n_jumps = int(exists.sum())
        self.per_unit = self.n_jumps / len(self.of_state)
        self.left = np.ones(len(self.of_state), dtype=bool)
        self.asked = np.zeros(exists.shape, dtype=bool)
        self.estimate = OrderedEstimate(len(self.of_state))
        self.known = Known.nothing(candidates)
        self.barrier_errors, self.energy_errors = Calibration(), Calibration()
        self.use(members)
        # a common zero of energies, a factor of numerator and denominator; the first round finds that of the reference
        drawn = candidates.states.model_energies if candidates.reweighted else None
        self.shift = 0.0 if drawn is None else float(np.mean(self.predicted[0] - drawn))
        # the weight of a state is shared among its jumps in fixed parts, by what they are expected to carry
        own = candidates.kinosons[self.target] * self.forecast().factor + 1e-300 * exists
        self.share = own / own.sum(axis=1, keepdims=True)
        self.history: list[ActiveRound] = []
        self.units: list[NDArray] = []
        self.probabilities: list[NDArray] = []
        self.n_failed = 0
        self.barriers: Barriers
        self.best: NDArray

    def use(self, members: list[Any]) -> None:
        """Take the next models."""
        self.members = members
        self.predicted = self.candidates.predict(members)

    def forecast(self) -> Forecast:
        """What these models expect, given what is known."""
        return Forecast.of(self.candidates, *self.predicted, self.known, self.shift)

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
        forecast = self.forecast()
        guesses = self.gather(forecast.factor, forecast.lift)
        count = max(1, int(n / self.per_unit))
        units, probability = self.draw(min(count, int(self.left.sum())), forecast, guesses)
        if self.jump is None:
            self.asked[self.of_state[units]] = c.exists[self.of_state[units]]
        else:
            self.asked[self.of_state[units], self.jump[units]] = True
        rows = np.flatnonzero(self.asked.any(axis=1))
        self.barriers = self.ask(rows, self.asked[rows])
        known = Known.of(c, rows, self.barriers)
        self.learn(known, forecast)
        factor, lift = c.factors(known.energies, known.barriers, self.shift)
        # what relaxes away has no weight; a failed search tells nothing, so that its guess stays
        gone = known.unstable[:, None]
        failed = known.failed | (self.asked & ~gone & (np.isnan(known.barriers) | ~np.isfinite(factor)))
        self.n_failed = int(failed.sum())
        factor = np.where(gone, 0.0, np.where(self.asked & ~failed, factor, forecast.factor))
        lift = np.where(known.unstable, 0.0, np.where(np.isfinite(lift), lift, forecast.lift))
        values = self.gather(factor, lift)
        # a jump takes over what the search of its reverse, in another state of the pool, finds later
        lost = failed.any(axis=1) if self.jump is None else failed[self.of_state, self.jump]
        before = np.concatenate([np.empty(0, dtype=np.int64), *self.units])
        self.estimate.revise(values[:, before], ~lost[before])
        self.estimate.add(units, probability, values[:, units], guesses, self.left, rnd=len(self.history) + 1)
        self.left[units] = False
        self.known = known
        self.best, self.best_weight = np.einsum("qnk,nk->qn", c.kinosons, factor), c.weight * lift
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
            gap = (known.energies - forecast.energies.mean(axis=0))[first]
            if len(gap) and not np.isfinite(self.known.energies).any():
                # energies are compared for the first time: what they differ by on average is their zero
                self.shift += float(gap.mean())
                gap = gap - gap.mean()
            self.energy_errors.add(gap, forecast.energy_variance[first])

    def draw(self, count: int, forecast: Forecast, guesses: NDArray) -> tuple[NDArray, NDArray]:
        """Draw units without replacement; return them and their probabilities."""
        left, fresh = self.left.copy(), self.fresh
        units, probability = np.empty(count, dtype=np.int64), np.empty(count)
        chances = self.chances(forecast, guesses)
        for m in range(count):
            p = chances(left, fresh)
            units[m] = self.rng.choice(len(p), p=p)
            probability[m] = p[units[m]]
            left[units[m]] = False
            fresh &= self.of_state != self.of_state[units[m]]
        return units, probability

    def chances(self, forecast: Forecast, guesses: NDArray) -> Callable[[NDArray, NDArray], NDArray[np.float64]]:
        """How probabilities to be drawn follow from which units are left and which of them are of new states."""
        if self.choice == "random":
            return lambda left, fresh: left / left.sum()
        first, again = self.scores(forecast, guesses, self.target)
        per_unit = self.costs[1] * self.per_unit
        first, again = first / np.sqrt(self.costs[0] + per_unit), again / np.sqrt(per_unit)
        kinoson, weight = guesses[self.target], guesses[-1]
        defence = kinoson / kinoson.sum() + weight / weight.sum() + 1.0 / len(kinoson)

        def chances(left: NDArray, fresh: NDArray) -> NDArray[np.float64]:
            score, spare = np.where(fresh, first, again) * left, defence * left
            p = spare / spare.sum()
            if score.sum() > 0:
                p = (1.0 - DEFENCE) * score / score.sum() + DEFENCE * p
            return p / p.sum()

        return chances

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """Units whose state was not relaxed yet."""
        return ~self.known.relaxed[self.of_state]

    def scores(self, forecast: Forecast, guesses: NDArray, coefficient: int) -> tuple[NDArray, NDArray]:
        """Expected error of each unit's part in numerator − D·denominator: in a new and in a relaxed state."""
        c = self.candidates
        kinoson, weight = guesses[coefficient], guesses[-1]
        value = kinoson[self.left].sum() / max(weight[self.left].sum(), 1e-300)
        of_barrier = self.barrier_errors.relative_variance(forecast.barrier_variance, self.kT)
        of_barrier = np.where(np.isfinite(of_barrier), of_barrier, 0.0)
        single = (c.kinosons[coefficient] * forecast.factor) ** 2 * of_barrier
        again = single.sum(axis=1) if self.jump is None else single[self.of_state, self.jump]
        first = again
        if c.reweighted:
            of_energy = self.energy_errors.relative_variance(forecast.energy_variance, self.kT)
            first = again + (kinoson - value * weight) ** 2 * of_energy[self.of_state]
        return np.sqrt(first), np.sqrt(again)

    def selected(self, coefficient: int) -> tuple[float, float]:
        """Estimate of a coefficient of the pool, and its error because not all jumps are computed."""
        value, seen = self.estimate.ratio(coefficient, -1)
        if self.estimate.is_complete:
            return value, seen
        # few draws have not met the rare large errors yet: the models' own expectation of them is the least error
        forecast = self.forecast()
        guesses = self.gather(forecast.factor, forecast.lift)
        chance = self.chances(forecast, guesses)(self.left, self.fresh)[self.left]
        squares = self.expected_squares(forecast, guesses, coefficient, value)[self.left]
        planned = self.estimate.planned(float((squares / chance).sum())) / self.estimate.mean()[-1]
        return value, max(seen, float(planned))

    def expected_squares(
        self, forecast: Forecast, guesses: NDArray, coefficient: int, value: float
    ) -> NDArray[np.float64]:
        """Expected square of what each unit's part in numerator − D·denominator is off its guess, shape (n_units,).

        The guess is a mean of exponentials over the members. Where these disagree it lies above the exponential of
        their mean barrier, whose errors are known (:class:`Calibration`), and where it is largest it does so most:
        a relative error times the guess would overstate what is to be expected two- to fourfold.
        """
        c = self.candidates
        energies, barriers = forecast.energies.mean(axis=0), forecast.barriers.mean(axis=0)
        factor, lift = c.factors(energies, barriers, self.shift)
        of_barrier = self.barrier_errors.relative_variance(forecast.barrier_variance, self.kT)
        of_barrier = np.where(np.isfinite(of_barrier), of_barrier, 0.0)
        factor = factor * np.sqrt(1.0 + of_barrier)  # mean of a lognormal variable
        factor[self.known.unstable], lift[self.known.unstable] = 0.0, 0.0
        likely = self.gather(factor, lift)
        apart = likely - guesses
        single = (c.kinosons[coefficient] * factor) ** 2 * of_barrier
        found = single.sum(axis=1) if self.jump is None else single[self.of_state, self.jump]
        found = found + (apart[coefficient] - value * apart[-1]) ** 2
        if c.reweighted:
            of_energy = self.energy_errors.relative_variance(forecast.energy_variance, self.kT)[self.of_state]
            found = found + self.fresh * (likely[coefficient] - value * likely[-1]) ** 2 * of_energy
        return np.asarray(found)

    def record(self, rows: NDArray) -> ActiveRound:
        """Estimate and errors of the target."""
        value, selection = self.selected(self.target)
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
        labels, group = np.unique(c.pool.groups, return_inverse=True)
        if len(labels) < 2:
            return float("nan"), spread
        parts = np.bincount(group, c.pooled(per_state))
        return float(np.sqrt(len(labels) / (len(labels) - 1.0) * ((parts - parts.mean()) ** 2).sum())), spread

    def judge(self, relaxation: Relaxation | None) -> tuple[str, list[KinosonWarning]]:
        """Kind of the coefficients, and what a user should know of it, as :func:`transport` says it."""
        pool = self.candidates.pool
        reasons: list[KinosonWarning] = []
        kind = {"equilibrium": BOUND, "random": NO_BOUND}.get(pool.ensemble, ESTIMATE)
        if kind == NO_BOUND:
            reasons.append(
                NotAtEquilibrium(
                    "the pool is no equilibrium sample, so that its average is neither the diffusivity nor a bound; "
                    "expected Monte Carlo states",
                    advice="sample with method='monte-carlo'",
                )
            )
        drawn = self.candidates.states.model_energies
        if not self.candidates.reweighted and drawn is not None and not pool.report.get("reweighted"):
            gap = (self.known.energies - drawn)[np.isfinite(self.known.energies)]
            if len(gap) and np.std(gap) > 1e-6:
                kind = NO_BOUND
                reasons.append(
                    NotAtEquilibrium(
                        f"the pool was drawn with model energies that differ from those of the barriers by "
                        f"{np.std(gap):.3f} eV (standard deviation); expected weights of the energies used",
                        number=float(np.std(gap)),
                        limit=0,
                        unit="eV",
                        advice="leave reweight to its default",
                    )
                )
        if self.candidates.reweighted:
            weights = self.candidates.pooled(self.best_weight)
            size, before = weights.sum() ** 2 / np.square(weights).sum(), pool.effective_sample_size
            if not (size >= LEAST_OVERLAP * before and size >= LEAST_STATES):
                kind = NO_BOUND if kind == NO_BOUND else ESTIMATE
                reasons.append(
                    SmallSample(
                        f"the effective sample size of the pool after weighting is {size:.1f} of {before:.1f}; "
                        f"expected at least {100 * LEAST_OVERLAP:.0f} % and {LEAST_STATES}",
                        number=float(size),
                        limit=max(LEAST_OVERLAP * before, LEAST_STATES),
                        unit="states",
                        advice="fit the model again with these energies and draw a new pool, or use "
                        "sample_with_calculator",
                    )
                )
        largest = heavy_share(self.candidates.pooled(self.best[self.target]), pool.groups)[1]
        if len(np.unique(pool.groups)) > 1 and largest > HEAVY_SHARE:
            reasons.append(
                FewKinosons(
                    f"one of {len(np.unique(pool.groups))} independent groups of states carries {100 * largest:.0f} % "
                    f"of D ({self.candidates.names[self.target]}); expected less than {100 * HEAVY_SHARE:.0f} %; its "
                    "error bar is too small",
                    number=100 * largest,
                    limit=100 * HEAVY_SHARE,
                    unit="%",
                    advice="add independent states to the pool",
                )
            )
        keys: set[str] = set()
        if relaxation is not None:
            source = getattr(relaxation.rates, "source", None)
            keys = {*relaxation.report.get("training_keys", ()), *getattr(source, "training_keys", ())}
        seen = sum(key in keys for key in pool.keys)
        if seen or self.n_failed:
            kind = NO_BOUND if kind == NO_BOUND else ESTIMATE
        if seen:
            reasons.append(
                SeenStates(
                    f"{seen} of {len(pool)} states trained the relaxation or the barrier model behind it; the result "
                    "is no held-out bound",
                    number=seen,
                    limit=0,
                    unit="states",
                    advice="use a pool of fresh states",
                )
            )
        if self.n_failed:
            reasons.append(
                FailedCalculations(
                    f"{self.n_failed} of {self.n_barriers} searches failed; the models' guesses stand for them; "
                    "expected none",
                    number=self.n_failed,
                    limit=0,
                    unit="searches",
                    advice="see barriers.reasons",
                )
            )
        return kind, reasons

    def quantities(self, kind: str, *, per_cv: bool) -> dict[str, Quantity]:
        """All coefficients with their errors."""
        c = self.candidates
        found = {}
        for n, name in enumerate(c.names):
            value, selection = self.selected(n)
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
