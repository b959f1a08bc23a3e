"""From bounds to the coefficients themselves.

The residual ladder on a model's rates, and its first rung on reference barriers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import BarrierError, KinosonError, KinosonWarning, StatesError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.coefficients import Averages, Composition, coefficients
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.ladder import Ladder, Rungs
from ase_kinoson.kinosons.moments import follow, pairs_of_neighbors
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import BOUND, CORRECTED, ESTIMATE, NO_BOUND, RATIO, Transport
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.transport import transport
from ase_kinoson.kinosons.verdict import check_temperature

__all__ = ["CorrectedTransport", "Diagnosis", "correct", "first_rung"]

MODEL_TRAJECTORIES = 1024
"""Trajectories, and sampled states, where the result has no states of the model."""

LOOSE = 1.25
"""A bound that exceeds the corrected value by more than this factor is reported as loose."""


@dataclass(frozen=True)
class Diagnosis:
    """How much of the distance between Λ[0], the bound and the corrected value is whose.

    Attributes
    ----------
    looseness : mapping of str to Quantity
        Λ[y]/Λ of every quantity on the model's own states: what a better y could still gain.
    surrogate : mapping of str to Quantity
        Λ_ref[y]/Λ_mod[y] of the reference over the model, same y: what the model's barriers get wrong. Empty where the
        result is of the model itself.
    """

    looseness: Mapping[str, Quantity]
    surrogate: Mapping[str, Quantity]

    def __str__(self) -> str:
        lines = [f"bound over corrected value of {name}: {q}" for name, q in self.looseness.items()]
        lines += [f"reference over model of {name}: {q}" for name, q in self.surrogate.items()]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class CorrectedTransport(Transport):
    """Coefficients after the residual ladder.

    Attributes
    ----------
    ladder : Ladder
        All rungs, the plain ladder beside them as a check, and what trajectories it took.
    diagnosis : Diagnosis
    """

    ladder: Ladder | None = field(default=None, repr=False)
    diagnosis: Diagnosis | None = None

    def tail(self, name: str) -> float:
        """Estimated part that is still missing below the chosen rung, relative to the value (≥ 0, NaN if unknown)."""
        assert self.ladder is not None
        rungs = self.ladder.rungs[name]
        return float(rungs.tail / rungs.value[rungs.chosen])

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        assert self.ladder is not None and self.diagnosis is not None
        return {
            **super().as_dict(),
            "ladder": {name: _rungs_dict(r) for name, r in self.ladder.rungs.items()},
            "ladder_jumps": self.ladder.n_jumps,
            "looseness": {name: q.as_dict() for name, q in self.diagnosis.looseness.items()},
            "surrogate": {name: q.as_dict() for name, q in self.diagnosis.surrogate.items()},
        }


def correct(
    result: Transport,
    model: Any,
    *,
    n_steps: int = 32,
    n_trajectories: int | None = None,
    states: States | None = None,
    max_rung: int | None = None,
    tracers: bool = True,
    n_resamples: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> CorrectedTransport:
    """Climb the residual ladder with the rates of a model, and carry the gain over to the result.

    Λ = Λ[y] − (what the residual of y correlates with itself along trajectories). With more steps the bound becomes
    exact. Where the result was evaluated with other barriers than the model's, it is the ratio estimate Λ_ref[y] ·
    Λ_mod/Λ_mod[y], whose bias is of second order in the error of the model; if its states were drawn with the model's
    energies, Λ_mod[y] is taken on the same states and most of the noise cancels.

    Parameters
    ----------
    result
        An evaluation with :func:`transport`; its relaxation is corrected (none: y = 0).
    model
        Barrier model or lattice gas whose rates are cheap.
    n_steps
        Jumps per trajectory, ≥ 1.
    n_trajectories
        Default: one per state, at least 1024.
    states
        Equilibrium states of the model; default those of the result if they are, else Monte Carlo of the model.
    max_rung
        Go no higher (default: stop where noise does).
    tracers
        Tracers take most of the time for long trajectories.
    n_resamples, seed
        Bootstrap over groups of states; seed of trajectories too.
    progress
        Show a bar.

    Returns
    -------
    CorrectedTransport
        Of kind ``"corrected"``, or ``"ratio estimate"`` where the barriers are not the model's.

    Raises
    ------
    KinosonError
        If there are too few independent states.
    ModelError
        If the model does not belong to the jumps.
    """
    if result.states is None or result.averages is None or result.composition is None:
        raise KinosonError("found a result without its states; expected one made by transport(); evaluate it again")
    if n_steps < 1:
        raise KinosonError(f"found n_steps={n_steps}; expected at least 1; raise it")
    if n_trajectories is not None and n_trajectories < 1:
        raise KinosonError(f"found n_trajectories={n_trajectories}; expected at least 1; raise it")
    if "attempt_frequency" not in result.settings:
        raise KinosonError("found a result that transport() did not make; expected one; evaluate states with it first")
    if result.ensemble == "quenched":
        raise StatesError(
            "found a result of the quenched ensemble; expected the equilibrium one: atoms move along trajectories, and "
            "frozen ones have no ladder; use the bound"
        )
    network = _network_of(result)
    temperature_K = result.temperature_K
    rates = Rates.of(
        model,
        network,
        temperature_K=temperature_K,
        attempt_frequency=float(result.settings["attempt_frequency"]),
    )
    own_states = _of_model(result.states, rates)
    start = states
    if start is None:
        start = result.states if own_states == "equilibrium" else None
    if start is None:
        start = sample_states(
            result.states.supercell,
            MODEL_TRAJECTORIES if n_trajectories is None else n_trajectories,
            method="monte-carlo",
            model=rates.source,
            temperature_K=rates.temperature_K or 300.0,
            seed=int(np.random.SeedSequence([int(seed), 7]).generate_state(1)[0]),
            progress=progress,
        )
    elif start.supercell != network.supercell:
        raise StatesError(
            f"found states on {start.supercell.n_sites} sites; expected the supercell of the result, "
            f"{network.supercell.n_sites} sites; sample them on it"
        )
    elif start.ensemble != "equilibrium" and getattr(rates.source, "energy", None) is not None:
        raise StatesError(
            f"found {start.ensemble} states; expected equilibrium states of the model, whose energies differ; use "
            "sample_states(..., method='monte-carlo', model=model)"
        )
    if not isinstance(rates.source, RateSource) and start.ensemble != "random":
        check_temperature(start, rates.temperature_K)
    moments = follow(
        start,
        network,
        rates,
        result.relaxation,
        n_steps=n_steps,
        n_trajectories=max(len(start), MODEL_TRAJECTORIES) if n_trajectories is None else n_trajectories,
        tracers=tracers,
        seed=seed,
        progress=progress,
    )
    rows = len(result.averages.collective) - 1 if result.averages.has_errors else 0
    ladder = _climb(moments, network, result.composition, max(rows, n_resamples), seed, max_rung)
    same_source = _same_barriers(result, model, rates)
    if same_source:
        averages = Averages(ladder.collective, ladder.bare, ladder.tracer, _diagonal(ladder.bare))
        kind, surrogate = CORRECTED, dict[str, Quantity]()
    else:
        averages, surrogate = _ratio(result, ladder, rates, own_states != "")
        # a ratio cannot make good what is wrong with the states
        kind = NO_BOUND if result.vacancy_diffusivity.kind == NO_BOUND else RATIO
    return _finish(result, network, averages, ladder, kind, surrogate)


def first_rung(
    states: States,
    neighbors: States,
    jumps: JumpNetwork,
    barriers: Any,
    relaxation: Relaxation | None = None,
    temperature_K: float | None = None,
    *,
    vacancy_fraction: float | None = None,
    attempt_frequency: float | None = None,
    n_resamples: int = 400,
    seed: int = 0,
) -> CorrectedTransport:
    """Correct a bound with reference barriers of one neighbour per state.

    The first rung of the ladder needs c₀ and c₁ only: the barriers of a state and those of one neighbour, drawn by the
    probability of its jump (:func:`draw_neighbors`). It is a bound again, of the relaxation y + θ r̄ with θ fitted on
    other groups of states than those it is evaluated on.

    Parameters
    ----------
    states
        Equilibrium states, held out from all fits, with weights.
    neighbors
        Their neighbours, row by row.
    jumps
        Jumps of the carrier.
    barriers
        Barriers of both, or any source.
    relaxation, temperature_K, vacancy_fraction, attempt_frequency, n_resamples, seed
        As in :func:`transport`.

    Returns
    -------
    CorrectedTransport
        Of kind ``"bound"`` where the evaluation of the states alone is one.
    """
    options: dict[str, Any] = {} if attempt_frequency is None else {"attempt_frequency": attempt_frequency}
    result = transport(
        states,
        jumps,
        barriers,
        relaxation,
        temperature_K,
        vacancy_fraction=vacancy_fraction,
        n_resamples=n_resamples,
        seed=seed,
        **options,
    )
    rates = Rates.of(barriers, jumps, temperature_K=temperature_K, **options)
    w = rates(states.occupations, states.carriers)
    chosen, drawn = _chosen(states, neighbors, w.shape[1])
    rows = np.arange(len(states))
    escape = w.sum(axis=1)
    if not np.all(w[rows, chosen] > 0):
        raise StatesError(
            "a neighbour was reached by a jump that the barriers do not allow; expected jumps with a finite barrier; "
            "draw the neighbours with these barriers"
        )
    weights = states.weights * w[rows, chosen] / (drawn if drawn is not None else w[rows, chosen] / escape)
    kind, lost = result.vacancy_diffusivity.kind, 0
    if hasattr(rates.source, "missing"):
        failed, never = rates.source.missing(neighbors.occupations, neighbors.carriers)
        if never.any():
            raise BarrierError(
                f"found {int(never.sum())} jumps of the neighbours whose barriers were not computed; expected all "
                "jumps of a neighbour; run compute_barriers without jumps="
            )
        lost = int(failed.sum())
        if lost and kind == BOUND:
            kind = ESTIMATE
            warnings.warn(
                f"{lost} barrier searches of the neighbours failed and count as rates of zero; expected none; see "
                "Barriers.reasons, and compute them with other settings",
                KinosonWarning,
                stacklevel=2,
            )
    after = rates(neighbors.occupations, neighbors.carriers)
    assert result.composition is not None
    moments = pairs_of_neighbors(
        states, neighbors, chosen, jumps, relaxation, weights=weights / weights.sum(), rates=(w, after)
    )
    ladder = _climb(moments, jumps, result.composition, n_resamples, seed, 1, widen=False)
    averages = Averages(ladder.collective, ladder.bare, ladder.tracer, _diagonal(ladder.bare))
    more = int((jumps.exists[jumps.basis_of(neighbors.carriers)] & (after > 0)).sum())
    made = _finish(result, jumps, averages, ladder, kind, {})
    return replace(made, n_barriers=result.n_barriers + more, n_rejected=result.n_rejected)


# -- pieces --------------------------------------------------------------------------------------------------------


def _climb(
    moments: Any,
    network: JumpNetwork,
    composition: Composition,
    n_resamples: int,
    seed: int,
    max_rung: int | None,
    *,
    widen: bool = True,
) -> Ladder:
    return Ladder.climb(
        moments,
        composition.index,
        composition.species,
        carrier="vacancy" if network.mechanism == "vacancy" else "carrier",
        projector=network.projector,
        dimension=network.dimension,
        n_resamples=n_resamples,
        seed=seed,
        max_rung=max_rung,
        widen=widen,
    )


def _finish(
    result: Transport,
    network: JumpNetwork,
    averages: Averages,
    ladder: Ladder,
    kind: str,
    surrogate: Mapping[str, Quantity],
) -> CorrectedTransport:
    assert result.composition is not None
    derived = coefficients(
        averages,
        network,
        result.composition,
        kind=kind,
        off_diagonal=ESTIMATE if kind == BOUND else None,
        temperature_K=result.temperature_K,
        vacancy_fraction=result.vacancy_fraction,
    )
    looseness = _looseness(ladder, result.composition, network)
    kept = {f.name: getattr(result, f.name) for f in fields(Transport)}
    made = CorrectedTransport(
        **{**kept, **derived, "settings": {**result.settings, "ladder_powers": ladder.blocks}},
        ladder=ladder,
        diagnosis=Diagnosis(looseness, surrogate),
    )
    for name, rungs in ladder.rungs.items():
        spread = float(rungs.error[rungs.chosen])
        if kind == CORRECTED and rungs.tail > 2.0 * spread and rungs.tail > 0.01 * rungs.value[rungs.chosen]:
            warnings.warn(
                f"the ladder of {name} may still be {100 * rungs.tail / rungs.value[rungs.chosen]:.0f} % too high; "
                "expected less than its error; raise n_steps (slow modes) or n_trajectories (noise)",
                KinosonWarning,
                stacklevel=3,
            )
            break
    for name, (gap, error) in ladder.apart.items():
        value = float(ladder.rungs[name].value[ladder.rungs[name].chosen])
        if kind == CORRECTED and gap > 2.5 * error and gap > 0.02 * value:
            warnings.warn(
                f"mean squared displacements say that {name} lies {100 * gap / value:.0f} % lower than its ladder; "
                "expected agreement; there are modes slower than the trajectories: raise n_steps",
                KinosonWarning,
                stacklevel=3,
            )
            break
    for name, q in looseness.items():
        if float(q.value) > LOOSE and not name.startswith("tracer"):
            warnings.warn(
                f"the bound of {name} is loose: {float(q.value):.3g} ± {float(q.error):.1g} times the corrected value; "
                "expected less than "
                f"{LOOSE:g}; use the corrected value, or train a better relaxation",
                KinosonWarning,
                stacklevel=3,
            )
            break
    return made


def _looseness(ladder: Ladder, composition: Composition, network: JumpNetwork) -> dict[str, Quantity]:
    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, network.projector)

    def quantity(top: NDArray, bottom: NDArray) -> Quantity:
        rows = top / bottom
        return Quantity(float(rows[0]), float(rows[1:].std(ddof=1)), "1", CORRECTED)

    found = {}
    carrier = "vacancy" if network.mechanism == "vacancy" else "carrier"
    found[carrier] = quantity(scalar(ladder.uncorrected.sum(axis=(1, 2))), scalar(ladder.collective.sum(axis=(1, 2))))
    for a, name in enumerate(composition.species):
        found[name] = quantity(scalar(ladder.uncorrected[:, a, a]), scalar(ladder.collective[:, a, a]))
        if ladder.tracer is not None and ladder.uncorrected_tracer is not None:
            found[f"tracer {name}"] = quantity(scalar(ladder.uncorrected_tracer[:, a]), scalar(ladder.tracer[:, a]))
    return found


def _ratio(result: Transport, ladder: Ladder, rates: Rates, paired: bool) -> tuple[Averages, dict[str, Quantity]]:
    """Λ_ref[y] · Λ_mod/Λ_mod[y], element by element of the diagonal, by the geometric mean elsewhere."""
    ours, composition = result.averages, result.composition
    assert ours is not None and composition is not None
    network = _network_of(result)
    n_rows = min(len(ours.collective), len(ladder.collective))

    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, network.projector)

    model_collective, model_tracer = ladder.uncorrected, ladder.uncorrected_tracer
    bare = ours.collective_bare[:n_rows]
    if paired:
        model_collective, model_tracer, model_bare = _on_states(result, rates, len(ours.collective) - 1)
        ratio = np.sqrt(np.einsum("raa->ra", scalar(bare)) / np.einsum("raa->ra", scalar(model_bare[:n_rows])))
        bare = (ratio[:, :, None] * ratio[:, None, :])[..., None, None] * ladder.bare[:n_rows]
    top = scalar(ours.collective[:n_rows])
    bottom = scalar(model_collective[:n_rows])
    scale = np.sqrt(np.einsum("raa->ra", top) / np.einsum("raa->ra", bottom))
    pairs = scale[:, :, None] * scale[:, None, :]
    if paired:
        collective = pairs[..., None, None] * ladder.collective[:n_rows]
    else:
        change = ladder.collective[:n_rows] - ladder.uncorrected[:n_rows]
        collective = ours.collective[:n_rows] + pairs[..., None, None] * change
    tracer = None
    if ladder.tracer is not None and ours.tracer is not None and model_tracer is not None:
        share = scalar(ours.tracer[:n_rows]) / scalar(model_tracer[:n_rows])
        tracer = share[..., None, None] * ladder.tracer[:n_rows]
        if not paired:
            gain = scalar(ladder.tracer[:n_rows]) / scalar(ladder.uncorrected_tracer[:n_rows])  # type: ignore[index]
            tracer = gain[..., None, None] * ours.tracer[:n_rows]
    has_errors = ours.has_errors and n_rows > 2
    averages = Averages(
        collective,
        bare,
        tracer,
        None if tracer is None else _diagonal(bare),
        has_errors=has_errors,
    )
    own = np.einsum("rabxy,xy->r", ours.collective[:n_rows], network.projector)
    theirs = np.einsum("rabxy,xy->r", model_collective[:n_rows], network.projector)
    names = ["vacancy" if network.mechanism == "vacancy" else "carrier", *composition.species]
    rows = [own / theirs, *np.moveaxis(np.square(scale), 1, 0)]
    surrogate = {name: averages.quantity(r, unit="1", kind=ESTIMATE) for name, r in zip(names, rows, strict=True)}
    return averages, surrogate


def _on_states(result: Transport, rates: Rates, n_resamples: int) -> tuple[NDArray, NDArray, NDArray]:
    """Λ_mod[y] and Λ_mod[0] on the states of the result with the weights they were drawn with, resampled like it."""
    states, composition = result.states, result.composition
    assert states is not None and composition is not None
    network = _network_of(result)
    before = states.report.get("drawn_weights") if states.report.get("reweighted") else None
    drawn = states if before is None else states.with_weights(before)
    boot = Bootstrap.over(drawn.weights, drawn.groups, n_resamples=n_resamples, seed=int(result.settings["seed"]))
    terms = jump_terms(result.relaxation, states.occupations, states.carriers, network=network)
    w = rates(states.occupations, states.carriers)
    x = terms.displacement[:, :, composition.index]
    collective = boot.rows(0.5 * np.einsum("nk,nkax,nkby->nabxy", w, x, x, optimize=True))
    tracer = boot.rows(0.5 * np.einsum("nk,nkaxy->naxy", w, terms.tracer[:, :, composition.index], optimize=True))
    x = terms.bare[:, :, composition.index]
    bare = boot.rows(0.5 * np.einsum("nk,nkax,nkby->nabxy", w, x, x, optimize=True))
    return collective, tracer, bare


def _diagonal(collective: NDArray) -> NDArray[np.float64]:
    """Tracers without relaxation move like their species without relaxation."""
    return np.einsum("raaxy->raxy", collective)


def _network_of(result: Transport) -> JumpNetwork:
    if result.network is None:
        raise KinosonError("found a result without its jumps; expected one made by transport(); evaluate it again")
    return result.network


def _of_model(states: States, rates: Rates) -> str:
    """``"equilibrium"``: states of the model as they are; ``"drawn"``: of the model, but reweighted; else ``""``."""
    energy = getattr(rates.source, "energy", None)
    if states.ensemble not in ("equilibrium", "random"):
        return ""
    if energy is None:
        # all states of a gas are alike: random ones are its equilibrium
        flat = hasattr(rates.source, "energy") or isinstance(rates.source, RateSource)
        other = states.model_energies is not None and float(np.std(states.model_energies)) > 1e-6
        return "equilibrium" if flat and not other and not states.report.get("reweighted") else ""
    if states.model_energies is None or states.ensemble != "equilibrium":
        return ""
    if states.temperature_K not in (None, rates.temperature_K):
        return ""
    gap = float(np.std(energy.energies(states.occupations) - states.model_energies))
    if gap > 1e-6:
        return ""
    return "drawn" if states.report.get("reweighted") else "equilibrium"


def _same_barriers(result: Transport, model: Any, rates: Rates) -> bool:
    """Whether the result was evaluated with the rates of the model."""
    states = result.states
    assert states is not None
    n = min(len(states), 8)
    w = rates(states.occupations[:n], states.carriers[:n])
    table = result.kinosons
    first = table["state"] < n
    found = np.zeros_like(w)
    found[table["state"][first], table["jump"][first]] = table["rate"][first]
    return bool(np.allclose(found, w, rtol=1e-9, atol=0.0))


def _chosen(states: States, neighbors: States, n_jumps: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Jumps that lead from states to neighbours, and the probabilities they were drawn with, if noted."""
    if len(states) != len(neighbors):
        raise StatesError(
            f"found {len(states)} states and {len(neighbors)} neighbours; expected one neighbour per state, row by row"
        )
    about = neighbors.report
    if "jumps" not in about:
        raise StatesError(
            "found neighbours without the jumps that led to them; expected States made by draw_neighbors(), or a "
            "report with 'jumps'; draw them again"
        )
    chosen = np.asarray(about["jumps"], dtype=np.int64)
    drawn = None if about.get("probabilities") is None else np.asarray(about["probabilities"], dtype=float)
    for name, noted in (("jumps", chosen), ("probabilities", drawn)):
        if noted is not None and noted.shape != (len(states),):
            raise StatesError(
                f"found {noted.size} {name} in the report of {len(neighbors)} neighbours; expected one each; draw the "
                "neighbours after selecting states, not before"
            )
    if np.any((chosen < 0) | (chosen >= n_jumps)):
        raise StatesError(
            f"found jumps {chosen.min()} to {chosen.max()} in the report of the neighbours; expected 0 to "
            f"{n_jumps - 1}; draw the neighbours on these jumps"
        )
    if drawn is not None and not np.all((drawn > 0) & (drawn <= 1)):
        raise StatesError(
            "found probabilities of jumps in the report of the neighbours that are not above 0 and at most 1; expected "
            "those of the draws; draw the neighbours again"
        )
    return chosen, drawn


def _rungs_dict(rungs: Rungs) -> dict[str, Any]:
    return {
        "value": rungs.value.tolist(),
        "error": rungs.error.tolist(),
        "chosen": rungs.chosen,
        "tail": rungs.tail,
        "unit": "Å^2/s",
    }
