"""`Transport`: what an evaluation gives, every number with error, unit and kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.errors import KinosonWarning
from ase_kinoson.kinetics.weights import EnergyDrift
from ase_kinoson.kinosons.coefficients import Averages, Composition
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.kinosons.vacancy_fraction import VacancyFraction
from ase_kinoson.mson import Storable, build, encode_fields, label

if TYPE_CHECKING:
    import pandas

__all__ = ["BOUND", "CORRECTED", "ESTIMATE", "EXACT", "KMC", "NO_BOUND", "RATIO", "Transport"]

BOUND, ESTIMATE, EXACT, NO_BOUND = "bound", "estimate", "exact", "not a bound"
KMC, CORRECTED, RATIO = "kmc", "corrected", "ratio estimate"


@dataclass(frozen=True, eq=False)
class Transport(Storable):
    """Transport coefficients of one temperature.

    Every number is a :class:`Quantity` with value, error, unit and kind. Coefficients of atoms are proportional to
    the site
    fraction of vacancies c_v; without ``vacancy_fraction`` they are given per c_v, and their unit says so.

    Attributes
    ----------
    species : tuple of str
        Mobile species, the order of all matrices.
    temperature_K : float or None
        K; None where rates do not depend on it.
    vacancy_diffusivity : Quantity
        D_v = Λ_vv (for an interstitial: its diffusivity), m²/s.
    vacancy_diffusivity_tensor : Quantity, value shape (3, 3)
        The same by Cartesian direction, m²/s.
    tracer_diffusivity : dict of Quantity
        D*_a = (c_v / x_a) Λ*_a of each species, m²/s.
    tracer_diffusivity_tensor : dict of Quantity, value shape (3, 3) each
        The same by Cartesian direction, m²/s.
    onsager_matrix : Quantity, value shape (n, n)
        L_ab = c_v Λ_ab / (Ω k_BT), 1/(m J s) in three dimensions; its diagonal is a bound. None without a temperature.
    lambda_matrix : Quantity, value shape (n, n)
        Λ_ab per carrier, Å²/s.
    correlation_factor : dict of Quantity
        Tracer correlation factors f_a = Λ*_a[y] / Λ*_a[0], no unit.
    collective_correlation_factor : dict of Quantity
        Λ_qq[y] / Λ_qq[0] for ``"vacancy"`` and each species, no unit.
    kinosons : KinosonTable
        Every jump of every state with its weight, barrier and contributions.
    drift : EnergyDrift or None
        Energy drift of the states; zero in equilibrium.
    ensemble : str
        That of the states: ``"equilibrium"``, ``"quenched"`` or ``"random"``.
    effective_sample_size : float
        Kish's 1/Σw² of the weights of the states.
    contribution_sample_size : float
        The same number of what independent groups of states contribute to D_v: it sees the tail that carries diffusion.
    largest_share : float
        Largest share of one group in D_v.
    n_states, n_barriers, n_rejected : int
        How many states, valid barriers and rejected jumps went in.
    vacancy_fraction : float or None
        c_v at this temperature.
    vacancy_fraction_error : float
        Standard error of the site fraction, which the errors of D* and L_ab hold; in ratios of them it cancels.
    vacancy_fraction_source : str
        Where it comes from.
    settings : mapping
        What is needed to repeat the evaluation.
    states : States or None
        The states it is an average over.
    relaxation : Relaxation or None
        The relaxation y; None means y = 0. It is not stored in JSON.
    averages : Averages or None
        The averages behind the coefficients and their resamples.
    composition : Composition or None
        Species and their fractions.
    network : JumpNetwork or None
        The jumps.
    warnings : tuple of KinosonWarning
        What one should know before using these numbers; each was given as a Python warning too.
    """

    not_stored: ClassVar[tuple[str, ...]] = ("relaxation",)

    species: tuple[str, ...]
    temperature_K: float | None
    vacancy_diffusivity: Quantity
    vacancy_diffusivity_tensor: Quantity
    tracer_diffusivity: dict[str, Quantity]
    tracer_diffusivity_tensor: dict[str, Quantity]
    onsager_matrix: Quantity | None
    lambda_matrix: Quantity
    correlation_factor: dict[str, Quantity]
    collective_correlation_factor: dict[str, Quantity]
    kinosons: KinosonTable
    drift: EnergyDrift | None
    ensemble: str
    effective_sample_size: float
    contribution_sample_size: float
    largest_share: float
    n_states: int
    n_barriers: int
    n_rejected: int
    vacancy_fraction: float | None = None
    vacancy_fraction_error: float = 0.0
    vacancy_fraction_source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    states: States | None = field(default=None, repr=False)
    relaxation: Relaxation | None = field(default=None, repr=False)
    averages: Averages | None = field(default=None, repr=False)
    composition: Composition | None = field(default=None, repr=False)
    network: JumpNetwork | None = field(default=None, repr=False)
    warnings: tuple[KinosonWarning, ...] = ()

    @property
    def given_fraction(self) -> VacancyFraction | None:
        """c_v of this result as it can be given to another evaluation of it."""
        if self.vacancy_fraction is None:
            return None
        return VacancyFraction.constant(
            self.vacancy_fraction, self.vacancy_fraction_error, source=self.vacancy_fraction_source
        )

    def numbers(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        return {
            "temperature_K": self.temperature_K,
            "species": list(self.species),
            "ensemble": self.ensemble,
            "n_states": self.n_states,
            "effective_sample_size": self.effective_sample_size,
            "contribution_sample_size": self.contribution_sample_size,
            "largest_share": self.largest_share,
            "n_reference_barriers": self.n_barriers,
            "n_rejected_jumps": self.n_rejected,
            "vacancy_fraction": self.vacancy_fraction,
            "vacancy_fraction_error": self.vacancy_fraction_error,
            "vacancy_fraction_source": self.vacancy_fraction_source,
            "vacancy_diffusivity": self.vacancy_diffusivity.as_dict(),
            "vacancy_diffusivity_tensor": self.vacancy_diffusivity_tensor.as_dict(),
            "tracer_diffusivity": {s: q.as_dict() for s, q in self.tracer_diffusivity.items()},
            "tracer_diffusivity_tensor": {s: q.as_dict() for s, q in self.tracer_diffusivity_tensor.items()},
            "onsager_matrix": self.onsager_matrix.as_dict() if self.onsager_matrix else None,
            "lambda_matrix": self.lambda_matrix.as_dict(),
            "correlation_factor": {s: q.as_dict() for s, q in self.correlation_factor.items()},
            "collective_correlation_factor": {s: q.as_dict() for s, q in self.collective_correlation_factor.items()},
            "energy_drift": _drift_dict(self.drift) if self.drift else None,
            "settings": dict(self.settings),
        }

    def as_dict(self) -> dict[str, Any]:
        """:meth:`numbers`, and under ``"fields"`` what it takes to build the result again (MSONable).

        Averages and their resamples, states, jumps and kinosons are kept, so that all that is derived from a result
        can be derived from one that was read. The relaxation is not: it has files of its own
        (:meth:`Relaxation.save`).
        """
        return {**self.numbers(), **label(type(self)), "fields": encode_fields(self)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """Undo :meth:`as_dict`.

        Parameters
        ----------
        d
            What :meth:`as_dict` gave, also after JSON.

        Raises
        ------
        KinosonError
            If the fields are missing.
        """
        return build(cls, d.get("fields", {}))

    def to_dataframe(self) -> pandas.DataFrame:
        """All coefficients, one per row; see :func:`~ase_kinoson.kinosons.dataframe.to_dataframe`."""
        from ase_kinoson.kinosons.dataframe import to_dataframe

        return to_dataframe(self)

    def __str__(self) -> str:
        at = f" at {self.temperature_K:g} K" if self.temperature_K else ""
        lines = [f"transport{at}: {self.n_states} states ({self.ensemble}), {self.n_barriers} barriers"]
        if self.vacancy_fraction is not None:
            about = f"{self.vacancy_fraction:.4g} ± {self.vacancy_fraction_error:.2g}"
            lines.append(f"  c_v  = {about} ({self.vacancy_fraction_source})")
        lines.append(f"  D_v  = {self.vacancy_diffusivity}")
        lines += [f"  D*({s}) = {q}" for s, q in self.tracer_diffusivity.items()]
        lines += [f"  f({s}) = {q}" for s, q in self.correlation_factor.items()]
        if self.warnings:
            names = ", ".join(dict.fromkeys(type(w).__name__ for w in self.warnings))
            lines.append(f"  know before you use these numbers: {names}; see .warnings")
        return "\n".join(lines)


def _drift_dict(drift: EnergyDrift) -> dict[str, Any]:
    species = {s: {"value": v, "error": e, "unit": "1"} for s, (v, e) in drift.by_species.items()}
    return {
        "value": drift.value,
        "error": drift.error,
        "unit": "1",
        "consistent": drift.consistent,
        "by_species": species,
    }
