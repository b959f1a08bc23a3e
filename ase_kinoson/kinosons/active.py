"""Active learning: compute the barriers that matter for D, and stop when D is known well enough.

From a pool of equilibrium states, single jumps are drawn with probability ∝ kinoson × its uncertainty, so that barriers
are spent where they change D. What they give is not averaged but weighted by the inverse of those probabilities, on top
of what the barrier models expect of all the others (:class:`OrderedEstimate`): for a number of barriers fixed
beforehand the totals of the pool are estimated without bias however wrong the models are, and the models may learn from
every round. Stopping when the error looks small favours runs that have not met the rare large kinosons yet. The error
that the models expect therefore has to be small as well, and the larger of the two is stated.
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

from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, KinosonWarning, LargeError, StatesError
from ase_kinoson.kinosons.active_reference import Reference, is_source
from ase_kinoson.kinosons.active_rounds import ActiveRound, Rounds
from ase_kinoson.kinosons.candidates import Candidates
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.kinosons.verdict import check_temperature
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ActiveResult", "ActiveRound", "active_barriers", "fit_members"]

CHOICES = ("active", "random")


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
        What was known after each round.
    barriers : Barriers
        All that were computed; ``"not-computed"`` elsewhere.
    models : tuple
        The barrier models of the last round.
    chosen : ndarray of int, shape (n, 2)
        State of the pool and jump (−1: all of the state), in the order of choice.
    probability : ndarray, shape (n,)
        Of each choice among what was left; no unit.
    reached : bool
        Whether the requested error was reached.
    settings : mapping
        What is needed to repeat it.
    warnings : tuple of KinosonWarning
        What one should know before using these numbers.
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
    warnings: tuple[KinosonWarning, ...] = ()

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
    vacancy_fraction: float | VacancyFraction | None = None,
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
        Requested standard error of the target, relative to its value; the pool's own scatter included. Both the error
        seen and that expected from the models must be as small. None: go on to ``max_barriers``, without the small bias
        of stopping when things look good.
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
        s⁻¹; of jumps whose reference knows none of its own.
    vacancy_fraction
        As in :func:`transport`.
    costs
        Number of force calls, no unit, of a relaxed state and of a jump. Default: from ``training``.
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
    BarrierError
        If a source lacks barriers of chosen jumps.

    Warns
    -----
    KinosonWarning
        If the requested error is out of reach of this pool, its weights leave few effective states, one group of
        states carries much of the target, or searches failed.

    Notes
    -----
    Estimator and choice: docs/derivations.md#chosen-barriers-unbiased, after D. Raj, J. Am. Stat. Assoc. 51, 269
    (1956).
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
    if relative_error is not None and len(np.unique(pool.groups)) < 2:
        raise StatesError(
            "found a pool of one group of states, whose error nobody knows; expected several; sample with n_chains, "
            "or pass relative_error=None"
        )
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
        if store is None and not is_source(reference):
            store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "barriers.db"
        ask = Reference(candidates, reference, store, executor, settings)
        run = Rounds(candidates, ask, _members(models), target, unit, choice, costs or ask.costs(training), seed)
        limit = min(max_barriers or run.n_jumps, run.n_jumps)
        with tqdm(total=limit, desc="chosen barriers", unit="barrier", disable=not progress) as bar:
            while True:
                before = run.n_barriers
                run.round(min(batch, limit - before))
                bar.update(run.n_barriers - before)
                if run.is_done(relative_error) or run.n_barriers >= limit:
                    break
                if fit is not None:
                    known = [run.barriers] if training is None else [training, run.barriers]
                    run.use(_members(fit(Barriers.concatenate(known), seed + len(run.history))))
    kind, reasons = run.judge(relaxation)
    last = run.history[-1]
    if relative_error is not None and last.pool_error > relative_error * abs(last.value):
        reasons.append(
            LargeError(
                f"the scatter of the {len(pool)} states of the pool alone is "
                f"{100 * last.pool_error / abs(last.value):.1f} % of D; expected less than "
                f"{100 * relative_error:g} %",
                number=100 * last.pool_error / abs(last.value),
                limit=100 * relative_error,
                unit="%",
                advice="add states to the pool, which costs no barriers",
            )
        )
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
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
        run.quantities(kind, per_cv=vacancy_fraction is None),
        target,
        tuple(run.history),
        run.barriers,
        tuple(run.members),
        run.chosen(),
        np.concatenate(run.probabilities),
        relative_error is not None and last.error <= relative_error * abs(last.value),
        about,
        tuple(reasons),
    )


def _members(models: Any) -> list[Any]:
    found = getattr(models, "members", models)
    found = list(found) if isinstance(found, Sequence) else [found]
    if not found:
        raise KinosonError("found no barrier model; expected at least one; pass models=")
    return found
