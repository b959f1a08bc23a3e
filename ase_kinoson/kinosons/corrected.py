"""Coefficients after the residual ladder, and what there is to say about them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import FarFromTraining, KinosonError, KinosonWarning, LooseBound, SlowModes
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.coefficients import Averages, Composition, coefficients
from ase_kinoson.kinosons.continuation import contradicted, incomplete
from ase_kinoson.kinosons.ladder import Ladder, Rungs
from ase_kinoson.kinosons.result import BOUND, CORRECTED, ESTIMATE, Transport
from ase_kinoson.kinosons.statistics import Quantity

__all__ = ["CorrectedTransport", "Diagnosis", "climb", "diagonal", "finish", "network_of"]

LOOSE = 1.25
"""A bound that exceeds the corrected value by more than this factor is reported as loose."""
MODEL_ERROR = 0.25
"""A D of the reference that differs by more than this from that of the model makes ratio estimates doubtful."""


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
    """Coefficients after the residual ladder; see :class:`Transport` for the rest.

    Attributes
    ----------
    ladder : Ladder
        All rungs, the plain ladder beside them as a check, and what trajectories it took.
    diagnosis : Diagnosis
        How much of the way from Λ[0] to the corrected value is whose.
    """

    ladder: Ladder | None = field(default=None, repr=False)
    diagnosis: Diagnosis | None = None

    def tail(self, name: str) -> float:
        """Estimated part that is still missing below the chosen rung, relative to the value (≥ 0, NaN if unknown).

        0 where walkers went on: what their lags leave is warned of.

        Parameters
        ----------
        name
            ``"vacancy"`` (or ``"carrier"``), a species, or ``"tracer <species>"``.
        """
        assert self.ladder is not None
        if self.ladder.n_continued:
            return 0.0
        rungs = self.ladder.rungs[name]
        return float(rungs.tail / rungs.value[rungs.chosen])

    def numbers(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        assert self.ladder is not None and self.diagnosis is not None
        return {
            **super().numbers(),
            "ladder": {name: _rungs_dict(r) for name, r in self.ladder.rungs.items()},
            "ladder_jumps": self.ladder.n_jumps,
            "continued_jumps": self.ladder.n_continued,
            "looseness": {name: q.as_dict() for name, q in self.diagnosis.looseness.items()},
            "surrogate": {name: q.as_dict() for name, q in self.diagnosis.surrogate.items()},
        }


def climb(
    moments: Any,
    network: JumpNetwork,
    composition: Composition,
    n_resamples: int,
    seed: int,
    max_rung: int | None,
    *,
    widen: bool = True,
) -> Ladder:
    """Climb the ladder for the species of a composition; see :meth:`Ladder.climb`."""
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


def finish(
    result: Transport,
    network: JumpNetwork,
    averages: Averages,
    ladder: Ladder,
    kind: str,
    surrogate: Mapping[str, Quantity],
) -> CorrectedTransport:
    """Derive all coefficients from corrected averages, and warn of what a user should know."""
    assert result.composition is not None
    derived = coefficients(
        averages,
        network,
        result.composition,
        kind=kind,
        off_diagonal=ESTIMATE if kind == BOUND else None,
        temperature_K=result.temperature_K,
        vacancy_fraction=result.given_fraction,
    )
    looseness = _looseness(ladder, result.composition, network)
    kept = {f.name: getattr(result, f.name) for f in fields(Transport)}
    made = CorrectedTransport(
        **{**kept, **derived, "settings": {**result.settings, "ladder_powers": ladder.blocks}},
        ladder=ladder,
        diagnosis=Diagnosis(looseness, surrogate),
    )
    told = _slow_modes(ladder) if kind != BOUND and not ladder.n_continued else []
    told += [*_loose(looseness), *_far(surrogate)]
    for warning in told:
        warnings.warn(warning, stacklevel=3)
    return replace(made, warnings=(*result.warnings, *told))


def _slow_modes(ladder: Ladder) -> list[KinosonWarning]:
    """Say so where the ladder is not at its end; the first of each kind is enough."""
    said: list[KinosonWarning] = []
    for name, rungs in ladder.rungs.items():
        if incomplete(ladder, name):
            height = float(rungs.value[rungs.chosen])
            said.append(
                SlowModes(
                    f"the ladder of {name} may still be {100 * rungs.tail / height:.0f} % too high; expected less "
                    "than its error",
                    number=100 * rungs.tail / height,
                    limit=100 * float(rungs.error[rungs.chosen]) / height,
                    unit="%",
                    advice="raise n_steps (slow modes) or n_trajectories (noise), or let walkers go on with "
                    "long_jumps=",
                )
            )
            break
    for name, rungs in ladder.rungs.items():
        if contradicted(ladder, name):
            part = ladder.apart[name][0] / float(rungs.value[rungs.chosen])
            said.append(
                SlowModes(
                    f"mean squared displacements say that {name} lies {100 * part:.0f} % lower than its ladder; "
                    "expected agreement; there are modes slower than the trajectories",
                    number=100 * part,
                    limit=0,
                    unit="%",
                    advice="raise n_steps, or let walkers go on with long_jumps=",
                )
            )
            break
    return said


def _loose(looseness: Mapping[str, Quantity]) -> list[KinosonWarning]:
    """Say so where a bound lies far above the corrected value; the first is enough."""
    for name, q in looseness.items():
        if float(q.value) > LOOSE and not name.startswith("tracer"):
            return [
                LooseBound(
                    f"the bound of {name} is loose: {float(q.value):.3g} ± {float(q.error):.1g} times the corrected "
                    f"value; expected less than {LOOSE:g}",
                    number=float(q.value),
                    limit=LOOSE,
                    advice="use the corrected value, or train a better relaxation",
                )
            ]
    return []


def _far(surrogate: Mapping[str, Quantity]) -> list[KinosonWarning]:
    """Say so where the model gives another D than the reference, with one y and one set of states."""
    for name in ("vacancy", "carrier"):
        q = surrogate.get(name)
        if q is not None and abs(float(q.value) - 1.0) > max(MODEL_ERROR, 2.0 * float(q.error)):
            return [
                FarFromTraining(
                    f"reference barriers give {float(q.value):.3g} ± {float(q.error):.1g} times the D of the model's, "
                    f"with the same y and states; expected 1 within {100 * MODEL_ERROR:.0f} %",
                    number=float(q.value),
                    limit=1.0 + math.copysign(MODEL_ERROR, float(q.value) - 1.0),
                    advice="fit the model again with these barriers; until then take the bound, not the ratio estimate",
                )
            ]
    return []


def _looseness(ladder: Ladder, composition: Composition, network: JumpNetwork) -> dict[str, Quantity]:
    def scalar(x: NDArray) -> NDArray:
        return np.einsum("...xy,xy->...", x, network.projector)

    def quantity(top: NDArray, bottom: NDArray) -> Quantity:
        rows = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)  # of atoms that never move
        return Quantity(float(rows[0]), float(standard_error(rows[1:])), "1", CORRECTED)

    found = {}
    carrier = "vacancy" if network.mechanism == "vacancy" else "carrier"
    found[carrier] = quantity(scalar(ladder.uncorrected.sum(axis=(1, 2))), scalar(ladder.collective.sum(axis=(1, 2))))
    for a, name in enumerate(composition.species):
        found[name] = quantity(scalar(ladder.uncorrected[:, a, a]), scalar(ladder.collective[:, a, a]))
        if ladder.tracer is not None and ladder.uncorrected_tracer is not None:
            found[f"tracer {name}"] = quantity(scalar(ladder.uncorrected_tracer[:, a]), scalar(ladder.tracer[:, a]))
    return found


def diagonal(collective: NDArray) -> NDArray[np.float64]:
    """Tracers without relaxation move like their species without relaxation."""
    return np.einsum("raaxy->raxy", collective)


def network_of(result: Transport) -> JumpNetwork:
    """Jumps of a result."""
    if result.network is None:
        raise KinosonError("found a result without its jumps; expected one made by transport(); evaluate it again")
    return result.network


def _rungs_dict(rungs: Rungs) -> dict[str, Any]:
    return {
        "value": rungs.value.tolist(),
        "error": rungs.error.tolist(),
        "chosen": rungs.chosen,
        "tail": rungs.tail,
        "unit": "Å^2/s",
    }
