"""From bounds to the coefficients themselves: the residual ladder on a model's rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.coefficients import Averages, Composition
from ase_kinoson.kinosons.continuation import go_on, unsettled
from ase_kinoson.kinosons.corrected import CorrectedTransport, climb, diagonal, finish, network_of
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.ladder import Ladder
from ase_kinoson.kinosons.moments import follow
from ase_kinoson.kinosons.result import CORRECTED, ESTIMATE, NO_BOUND, RATIO, Transport
from ase_kinoson.kinosons.statistics import Bootstrap, Quantity
from ase_kinoson.kinosons.verdict import check_temperature

__all__ = ["correct"]

MODEL_TRAJECTORIES = 1024
"""Trajectories, and sampled states, where the result has no states of the model."""

SAME_COUNTS = 0.6
"""Atoms of a species by which the states of a result and those of the model may differ, on average."""


def correct(
    result: Transport,
    model: Any,
    *,
    n_steps: int = 32,
    n_trajectories: int | None = None,
    states: States | None = None,
    max_rung: int | None = None,
    tracers: bool = True,
    long_jumps: int = 0,
    n_resamples: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> CorrectedTransport:
    """Climb the residual ladder with the rates of a model, and carry the gain over to the result.

    Λ = Λ[y] − (what the residual of y correlates with itself along trajectories). With more steps the bound becomes
    exact. Where the result was evaluated with other barriers than the model's, it is the ratio estimate Λ_ref[y] ·
    Λ_mod/Λ_mod[y], whose bias is a product of two small errors: that of the model, and that of the model or of y,
    whichever is larger (docs/derivations.md). If its states were drawn with the model's energies, Λ_mod[y] is taken on
    the same states and most of the noise cancels.

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
    long_jumps
        Where the ladder may not have settled (its tail, or mean squared displacements, say so), let walkers go on for
        so many jumps each, and take the coefficients from their displacements: the way near percolation. 0: only warn.
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
        If there are too few independent states, if the ladder leaves nothing but rounding (a trapped carrier), or if a
        species moves in the result and not in the model.
    ModelError
        If the model does not belong to the jumps.

    Notes
    -----
    Derivations: docs/derivations.md#the-residual-ladder, docs/derivations.md#slopes-of-mean-squared-displacements and
    docs/derivations.md#the-ratio-estimate.
    """
    if result.states is None or result.averages is None or result.composition is None:
        raise KinosonError("found a result without its states; expected one made by transport(); evaluate it again")
    if n_steps < 1:
        raise KinosonError(f"found n_steps={n_steps}; expected at least 1; raise it")
    if long_jumps < 0:
        raise KinosonError(f"found long_jumps={long_jumps}; expected 0 or more jumps per walker; correct it")
    if n_trajectories is not None and n_trajectories < 1:
        raise KinosonError(f"found n_trajectories={n_trajectories}; expected at least 1; raise it")
    if "attempt_frequency" not in result.settings:
        raise KinosonError("found a result that transport() did not make; expected one; evaluate states with it first")
    network = network_of(result)
    if result.ensemble == "quenched" and "quenched" not in _kept(network):
        raise StatesError(
            "found a result of the quenched ensemble; expected the equilibrium one: atoms move along trajectories, and "
            "frozen ones have no ladder; use the result as it is"
        )
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
            ensemble="quenched" if result.ensemble == "quenched" else "equilibrium",
            seed=int(np.random.SeedSequence([int(seed), 7]).generate_state(1)[0]),
            progress=progress,
        )
    elif start.supercell != network.supercell:
        raise StatesError(
            f"found states on {start.supercell.n_sites} sites; expected the supercell of the result, "
            f"{network.supercell.n_sites} sites; sample them on it"
        )
    elif start.ensemble not in _kept(network) and getattr(rates.source, "energy", None) is not None:
        raise StatesError(
            f"found {start.ensemble} states; expected equilibrium states of the model, whose energies differ; use "
            "sample_states(..., method='monte-carlo', model=model)"
        )
    if not isinstance(rates.source, RateSource) and start.ensemble != "random":
        check_temperature(start, rates.temperature_K)
    _check_composition(start, result)
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
    ladder = climb(moments, network, result.composition, max(rows, n_resamples), seed, max_rung)
    walked = None
    if long_jumps and unsettled(ladder):
        ladder, walked = go_on(
            ladder,
            start,
            rates,
            n_jumps=long_jumps,
            n_walkers=max(len(start), MODEL_TRAJECTORIES),
            tracers=tracers,
            seed=seed,
            progress=progress,
        )
    if walked is None:
        ladder.refuse_rounding()
    same_source = _same_barriers(result, model, rates)
    if same_source:
        averages = walked or Averages(ladder.collective, ladder.bare, ladder.tracer, diagonal(ladder.bare))
        kind, surrogate = CORRECTED, dict[str, Quantity]()
    else:
        averages, surrogate = _ratio(result, ladder, rates, own_states != "")
        # a ratio cannot make good what is wrong with the states
        kind = NO_BOUND if result.vacancy_diffusivity.kind == NO_BOUND else RATIO
    return finish(result, network, averages, ladder, kind, surrogate)


# -- pieces -------------------------------------------------------------------------------------------------------


def _ratio(result: Transport, ladder: Ladder, rates: Rates, paired: bool) -> tuple[Averages, dict[str, Quantity]]:
    """Λ_ref[y] · Λ_mod/Λ_mod[y], element by element of the diagonal, by the geometric mean elsewhere."""
    ours, composition = result.averages, result.composition
    assert ours is not None and composition is not None
    network = network_of(result)
    n_rows = min(len(ours.collective), len(ladder.collective))

    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, network.projector)

    model_collective, model_tracer = ladder.uncorrected, ladder.uncorrected_tracer
    bare = ours.collective_bare[:n_rows]
    if paired:
        model_collective, model_tracer, model_bare = _on_states(result, rates, len(ours.collective) - 1)
        ratio = _root_ratio(np.einsum("raa->ra", scalar(bare)), np.einsum("raa->ra", scalar(model_bare[:n_rows])))
        bare = (ratio[:, :, None] * ratio[:, None, :])[..., None, None] * ladder.bare[:n_rows]
    top = scalar(ours.collective[:n_rows])
    bottom = scalar(model_collective[:n_rows])
    still = np.einsum("raa->ra", bottom)[0] <= 0
    if np.any(still & (np.einsum("raa->ra", top)[0] > 0)):
        names = [s for s, here in zip(composition.species, still, strict=True) if here]
        raise KinosonError(
            f"found no motion of {', '.join(names)} with the rates of the model, and some in the result; expected "
            "both, to take their ratio; correct the model's barriers"
        )
    scale = _root_ratio(np.einsum("raa->ra", top), np.einsum("raa->ra", bottom))
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
        None if tracer is None else diagonal(bare),
        has_errors=has_errors,
    )
    own = np.einsum("rabxy,xy->r", ours.collective[:n_rows], network.projector)
    theirs = np.einsum("rabxy,xy->r", model_collective[:n_rows], network.projector)
    names = ["vacancy" if network.mechanism == "vacancy" else "carrier", *composition.species]
    rows = [own / theirs, *np.moveaxis(np.square(scale), 1, 0)]
    surrogate = {name: averages.quantity(r, unit="1", kind=ESTIMATE) for name, r in zip(names, rows, strict=True)}
    return averages, surrogate


def _root_ratio(top: NDArray, bottom: NDArray) -> NDArray[np.float64]:
    """√(top/bottom); 1 where nothing moves in either, NaN in resamples in which only one of them moves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(top / bottom)
    found[(top == 0) & (bottom == 0)] = 1.0
    found[~np.isfinite(found)] = np.nan
    return np.asarray(found)


def _on_states(result: Transport, rates: Rates, n_resamples: int) -> tuple[NDArray, NDArray, NDArray]:
    """Λ_mod[y] and Λ_mod[0] on the states of the result with the weights they were drawn with, resampled like it."""
    states, composition = result.states, result.composition
    assert states is not None and composition is not None
    network = network_of(result)
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


def _check_composition(start: States, result: Transport) -> None:
    """Refuse states of another alloy: what they correct is another coefficient."""
    ours, theirs = result.composition, Composition.of(start)
    assert ours is not None
    x, y = (dict(zip(c.species, c.fractions, strict=True)) for c in (ours, theirs))
    apart = max(abs(x.get(s, 0.0) - y.get(s, 0.0)) for s in {*x, *y})
    if apart * len(start.supercell.mobile_sites) > SAME_COUNTS:

        def text(c: dict[str, float]) -> str:
            return ", ".join(f"{s} {v:.3f}" for s, v in c.items())

        raise StatesError(
            f"found model states of {text(y)} atoms per site for a result of {text(x)}; expected one composition; pass "
            "states= of the model with the atoms of the result"
        )


def _kept(network: JumpNetwork) -> tuple[str, ...]:
    """Ensembles that trajectories keep: an interstitial leaves the arrangement of its host as it is."""
    return ("equilibrium", "quenched") if network.mechanism == "interstitial" else ("equilibrium",)


def _of_model(states: States, rates: Rates) -> str:
    """``"equilibrium"``: states of the model as they are; ``"drawn"``: of the model, but reweighted; else ``""``."""
    energy = getattr(rates.source, "energy", None)
    if states.ensemble not in ("random", *_kept(rates.network)):
        return ""
    if energy is None:
        # all states of a gas are alike: random ones are its equilibrium
        flat = hasattr(rates.source, "energy") or isinstance(rates.source, RateSource)
        other = states.model_energies is not None and float(np.std(states.model_energies)) > 1e-6
        return "equilibrium" if flat and not other and not states.report.get("reweighted") else ""
    if states.model_energies is None or states.ensemble == "random":
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
