"""Transport at several temperatures: states pooled, y trained from one to the next, models fitted to all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.pooling import pool_states
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.corrected import CorrectedTransport
from ase_kinoson.kinosons.correction import correct as correct_result
from ase_kinoson.kinosons.density import KinosonDensity
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.result import ESTIMATE, EXACT, NO_BOUND, Transport
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.temperature_curves import BoundCurve, betas
from ase_kinoson.kinosons.temperature_models import (
    SlopeComparison,
    TemperatureFits,
    compare_slopes,
    fit_logs,
    log_rows,
)
from ase_kinoson.kinosons.training import train_relaxation
from ase_kinoson.kinosons.transport import transport
from ase_kinoson.units import ANGSTROM2_PER_S_TO_M2_PER_S, DEFAULT_ATTEMPT_FREQUENCY

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from ase_kinoson.measured import MeasuredDiffusivity

__all__ = ["ActivationEnergy", "LeftOut", "TemperatureSeries", "temperature_series"]


@dataclass(frozen=True, eq=False)
class ActivationEnergy:
    """Activation energy of one diffusivity, −∂ln D/∂β, in three ways.

    Attributes
    ----------
    name : str
    temperatures_K : ndarray, shape (n,)
    hellmann_feynman : Quantity, value shape (n,)
        ⟨Q + E⟩_κ − ⟨E⟩_π at each temperature, eV; NaN where a result does not list its kinosons. Without the part of
        c_v.
    slopes : tuple of SlopeComparison
        Between neighbouring temperatures, without the part of c_v: Hellmann-Feynman beside the finite difference.
    fitted : Quantity
        Slope of the straight line through ln D of all temperatures, eV; c_v included where it is known.
    vacancy : Quantity or None
        −∂ln c_v/∂β of the straight line through ln c_v, eV: ``fitted`` holds it on top. None where c_v is not known.
    """

    name: str
    temperatures_K: NDArray[np.float64]
    hellmann_feynman: Quantity
    slopes: tuple[SlopeComparison, ...]
    fitted: Quantity
    vacancy: Quantity | None

    def __str__(self) -> str:
        value, error = np.atleast_1d(self.hellmann_feynman.value), np.atleast_1d(self.hellmann_feynman.error)
        at = ", ".join(
            f"{v:.3f} ± {e:.3f} at {t:g} K" for t, v, e in zip(self.temperatures_K, value, error, strict=True)
        )
        part = "" if self.vacancy is None else f", {self.vacancy} of it from c_v"
        return f"{self.name}: slope {self.fitted}{part}; Hellmann-Feynman {at} (eV, without c_v)"


@dataclass(frozen=True)
class LeftOut:
    """What a model fitted to the other temperatures says of one.

    Attributes
    ----------
    model : str
    temperature_K : float
    predicted, found : Quantity
    z_score : float
        ln(predicted/found) in standard errors of this difference; NaN where a model cannot predict or nothing is known
        of errors.
    """

    model: str
    temperature_K: float
    predicted: Quantity
    found: Quantity
    z_score: float

    @property
    def within_error(self) -> bool:
        """Whether prediction and value agree within two standard errors."""
        return bool(abs(self.z_score) <= 2.0)


@dataclass(frozen=True, eq=False)
class TemperatureSeries:
    """Results of one alloy at several temperatures.

    Attributes
    ----------
    results : tuple of Transport
        One per temperature, ascending; with their kinosons.
    corrected : tuple of CorrectedTransport
        The same after the residual ladder, or empty.

    Raises
    ------
    KinosonError
        If temperatures are missing or equal, or corrected results are those of other temperatures.
    """

    results: tuple[Transport, ...]
    corrected: tuple[CorrectedTransport, ...] = field(default=())

    def __post_init__(self) -> None:
        t = [r.temperature_K for r in self.results]
        if not t or any(x is None for x in t) or len(set(t)) < len(t):
            raise KinosonError(f"found results at {t} K; expected one or more different temperatures; drop or add some")
        object.__setattr__(self, "results", tuple(sorted(self.results, key=lambda r: r.temperature_K or 0.0)))
        object.__setattr__(self, "corrected", tuple(sorted(self.corrected, key=lambda r: r.temperature_K or 0.0)))
        if self.corrected and [r.temperature_K for r in self.corrected] != [r.temperature_K for r in self.results]:
            raise KinosonError(
                "found corrected results of other temperatures; expected one per result; pass all or none"
            )

    @property
    def temperatures_K(self) -> NDArray[np.float64]:
        """K, ascending, shape (n,)."""
        return np.array([r.temperature_K for r in self.results], dtype=float)

    @property
    def names(self) -> tuple[str, ...]:
        """Diffusivities: of the carrier, and of the tracers of every species."""
        vacancy = any(c == "kinoson_vacancy" for c in self.results[0].kinosons.columns)
        if not vacancy:
            return ("carrier",)
        return ("vacancy", *self.results[0].tracer_diffusivity)

    @property
    def best(self) -> tuple[Transport, ...]:
        """Corrected results where there are any, else the bounds."""
        return self.corrected or self.results

    def diffusivity(self, name: str = "vacancy") -> tuple[NDArray[np.float64], Quantity]:
        """One diffusivity at all temperatures.

        Parameters
        ----------
        name
            One of :attr:`names`: ``"vacancy"`` (or ``"carrier"``) or a species, for its D*.

        Returns
        -------
        temperatures_K : ndarray, shape (n,)
        diffusivity : Quantity, value and error of shape (n,)
            m²/s; D* per c_v where c_v is not known.

        Raises
        ------
        KinosonError
            If the series has no such diffusivity.
        """
        return self.temperatures_K, _stack([self._one(r, name) for r in self.best])

    def fit_models(self, name: str = "vacancy") -> TemperatureFits:
        """Arrhenius, Gaussian and third-cumulant forms fitted to one diffusivity at all temperatures together.

        Parameters
        ----------
        name
            As in :meth:`diffusivity`, in whose unit the models predict. Where c_v is known, D* contains it; its
            error is taken as common to all temperatures, like that of a formation energy.

        Returns
        -------
        TemperatureFits
            The measured density beside them carries kinosons and y of one temperature to the next, whose coefficient
            it bounds from above; it is of the uncorrected results.

        Raises
        ------
        KinosonError
            If the series has no such diffusivity.
        """
        column = self._column(name)
        rows = log_rows(self.best, column)
        atoms = name in self.results[0].species
        if atoms and all(r.vacancy_diffusivity.kind == EXACT for r in self.best) and any(map(_doubt, self.best)):
            rows = [np.full(401, r[0]) for r in rows]  # exact but for c_v
        n = min(map(len, rows))
        found = [self._one(r, name) for r in self.best]
        noise = _noise_of_fraction(self.best, n) if atoms else np.zeros((len(rows), n))
        logs = [r[:n] - r[0] + np.log(float(q)) + extra for r, q, extra in zip(rows, found, noise, strict=True)]
        densities: list[KinosonDensity] | str
        try:
            if self.corrected:
                raise KinosonError("it belongs to the bounds, not to corrected values")
            densities = [KinosonDensity.from_result(r, quantity=column) for r in self.results]
        except KinosonError as error:
            densities = str(error)
        kinds = [q.kind for q in found]
        return fit_logs(name, self.temperatures_K, logs, kinds, densities=densities, unit=found[0].unit)

    def predict_left_out(self, name: str = "vacancy") -> list[LeftOut]:
        """Leave out each temperature in turn and have every model predict it from the others.

        Parameters
        ----------
        name
            As in :meth:`diffusivity`.

        Returns
        -------
        list of LeftOut
            One per model and temperature; a model with too many parameters for the rest has none. The measured
            density predicts an upper bound.
        """
        found = self.diffusivity(name)[1]
        rows = []
        for model in self.fit_models(name).models.values():
            for i, t in enumerate(self.temperatures_K):
                if not np.isfinite(model.left_out[i]):
                    continue
                own = _item(found, i)
                value = float(own) * float(np.exp(model.left_out[i]))
                # carried kinosons know nothing of c_v, whose error the fitted forms have in their resamples
                doubt = _doubt(self.best[i]) if name in self.results[0].species and not model.parameters else 0.0
                error = value * float(np.hypot(model.prediction_error[i], doubt))
                predicted = replace(own, value=value, error=error, kind=ESTIMATE)
                rows.append(LeftOut(model.name, float(t), predicted, own, float(model.z_scores[i])))
        return rows

    def activation_energies(self) -> dict[str, ActivationEnergy]:
        """Activation energy of every diffusivity: Hellmann-Feynman at each temperature, and slopes of the series.

        Raises
        ------
        KinosonError
            If there are fewer than two temperatures.
        """
        if len(self.results) < 2:
            raise KinosonError("found one temperature; expected two or more for a slope; evaluate at more temperatures")
        cv = [r.vacancy_fraction for r in self.best]
        vacancy = None
        if all(x is not None for x in cv) and "vacancy" in self.names:
            lines = np.log(np.array(cv, dtype=float))[:, None] + _noise_of_fraction(self.best, 401)
            slope = -np.polyfit(betas(self.temperatures_K), lines, 1)[0]
            vacancy = Quantity(float(slope[0]), float(slope[1:].std(ddof=1)), "eV", ESTIMATE)
        found = {}
        for name in self.names:
            column = self._column(name)
            try:
                local = [KinosonDensity.from_result(r, quantity=column).activation_energy() for r in self.results]
                slopes = tuple(compare_slopes(self.results, quantity=column))
            except KinosonError:  # no barriers, no energies, or no list of the kinosons of this coefficient
                local = [Quantity(np.nan, np.nan, "eV", ESTIMATE)] * len(self.results)
                slopes = ()
            line = self.fit_models(name)["arrhenius"].parameters["mean_barrier"]
            part = None if name == "vacancy" else vacancy
            found[name] = ActivationEnergy(name, self.temperatures_K, _stack(local), slopes, line, part)
        return found

    def bound_curve(
        self, temperature_K: float, temperatures_K: ArrayLike, *, name: str = "vacancy", smallest_sample: float = 10.0
    ) -> BoundCurve:
        """Upper bound at any temperature from the states and y of one temperature of the series.

        Parameters
        ----------
        temperature_K
            Of the series.
        temperatures_K : array_like, shape (n,)
            Where the bound is wanted, K.
        name, smallest_sample
            As in :meth:`diffusivity` and :meth:`KinosonDensity.bound_curve`.

        Returns
        -------
        BoundCurve
            In m²/s, for D* per c_v where c_v is not known; else with the straight line through ln c_v against 1/T, and
            with the error of c_v.

        Raises
        ------
        KinosonError
            If the series has no such diffusivity or temperature.
        """
        near = int(np.abs(self.temperatures_K - temperature_K).argmin())
        if abs(self.temperatures_K[near] - temperature_K) > 1e-6:
            raise KinosonError(
                f"found temperature_K={temperature_K:g}; expected one of {self.temperatures_K.tolist()}; choose one"
            )
        density = KinosonDensity.from_result(self.results[near], quantity=self._column(name))
        curve = density.bound_curve(temperatures_K, smallest_sample=smallest_sample)
        scale = ANGSTROM2_PER_S_TO_M2_PER_S / self._fraction(self.results[near], name)
        cv, doubt = [r.vacancy_fraction for r in self.results], np.zeros(len(curve.value))
        if name in self.results[near].species and all(x is not None for x in cv):
            beta = betas(self.temperatures_K)[::-1]
            doubt = np.interp(betas(temperatures_K), beta, [_doubt(r) for r in self.results[::-1]])
            line = np.polyfit(betas(self.temperatures_K), np.log(np.array(cv, dtype=float)), min(1, len(cv) - 1))
            scale = scale * np.exp(np.polyval(line, betas(temperatures_K)))
        error = np.hypot(curve.error, curve.value * doubt)
        return replace(curve, value=curve.value * scale, error=error * scale)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per temperature and diffusivity, with columns for value, error, unit and kind (needs pandas)."""
        import pandas as pd

        return pd.DataFrame(self.as_rows())

    def as_rows(self) -> list[dict[str, Any]]:
        """Rows of :meth:`to_dataframe`."""
        rows = []
        for name in self.names:
            for result in self.best:
                q = self._one(result, name)
                rows.append(
                    {
                        "name": name,
                        "temperature [K]": float(result.temperature_K or np.nan),
                        "diffusivity": float(q),
                        "error": float(q.error),
                        "unit": q.unit,
                        "kind": q.kind,
                        "vacancy fraction [1]": result.vacancy_fraction,
                        "effective states [1]": result.effective_sample_size,
                    }
                )
        return rows

    def plot(
        self,
        names: Sequence[str] | None = None,
        *,
        measured: MeasuredDiffusivity | None = None,
        ax: Axes | None = None,
        **options: Any,
    ) -> Axes:
        """Arrhenius plot, see :func:`~ase_kinoson.arrhenius_plot.plot_series`.

        Parameters
        ----------
        names
            Diffusivities to draw; default as in that function.
        measured
            Measured points to draw beside them.
        ax
            Axes to draw on; default: new ones.
        **options
            As in :func:`~ase_kinoson.arrhenius_plot.plot_series`.
        """
        from ase_kinoson.arrhenius_plot import plot_series

        return plot_series(self, names, measured=measured, ax=ax, **options)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Transport]:
        return iter(self.best)

    def __str__(self) -> str:
        at = ", ".join(f"{t:g}" for t in self.temperatures_K)
        lines = [f"series at {at} K"]
        for name in self.names:
            value = self.diffusivity(name)[1]
            pairs = zip(np.atleast_1d(value.value), np.atleast_1d(value.error), strict=True)
            lines.append(f"  {name}: " + ", ".join(f"{v:.3g} ± {e:.1g}" for v, e in pairs) + f" {value.unit}")
        return "\n".join(lines)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _one(self, result: Transport, name: str) -> Quantity:
        self._column(name)
        return result.vacancy_diffusivity if name in ("vacancy", "carrier") else result.tracer_diffusivity[name]

    def _column(self, name: str) -> str:
        if name not in self.names:
            raise KinosonError(f"found {name!r}; expected one of {self.names}; choose one")
        return f"kinoson_{name}" if name in ("vacancy", "carrier") else f"tracer_{name}"

    def _fraction(self, result: Transport, name: str) -> float:
        """Atoms per mobile site, by which Λ*_a is divided; 1 for the carrier."""
        if name in ("vacancy", "carrier"):
            return 1.0
        assert result.composition is not None
        return float(result.composition.fractions[result.composition.species.index(name)])


def temperature_series(
    source: Any,
    jumps: JumpNetwork,
    model: Any = None,
    *,
    temperatures_K: Sequence[float] | None = None,
    relaxations: Mapping[float, Relaxation | None] | None = None,
    training: Mapping[str, Any] | None = None,
    n_states: int = 400,
    sampling: Mapping[str, Any] | None = None,
    pool: bool = True,
    smallest_sample: float = 10.0,
    one_model: bool = True,
    correct: Mapping[str, Any] | None = None,
    vacancy_fraction: Any = None,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    n_resamples: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> TemperatureSeries:
    """Evaluate transport at several temperatures.

    From the highest temperature down: states of all temperatures weighted to this one, y trained from that of the
    temperature above, and the functional.

    Parameters
    ----------
    source : Barriers, sequence of Barriers, or a barrier model
        Reference barriers of Monte Carlo states, one set per temperature (or fewer), as they were drawn; all of them
        serve every temperature, since a barrier does not depend on it. Or a barrier model or lattice gas, of which
        states are sampled at every temperature.
    jumps
        Jumps of the carrier.
    model
        Barrier model or lattice gas to train y on; default ``source``, where that is one. Not needed where all
        ``relaxations`` are given.
    temperatures_K
        K; default those at which the sets were drawn.
    relaxations
        y of each temperature (K), None for y = 0; default: trained here.
    training
        Options of :func:`train_relaxation`, such as ``lookahead`` and ``n_states``.
    n_states
        States sampled of a model at each temperature.
    sampling
        Further options of :func:`sample_states` for these.
    pool
        Whether states of all temperatures serve each; if not, only those drawn at it.
    smallest_sample, one_model
        As in :func:`pool_states`.
    correct
        Options of :func:`correct` (``{}`` for its defaults); None: no ladder.
    vacancy_fraction
        c_v as in :func:`transport`, or a mapping from temperatures to that.
    attempt_frequency, n_resamples
        As in :func:`transport`.
    seed
        Of states, training, resamples and ladder; states and trajectories of each temperature have their own stream.
    progress
        Show a progress bar.

    Raises
    ------
    StatesError
        If too few states are left at a temperature; nothing has been trained then.
    KinosonError
        If there is no temperature, or no model to train y on.
    """
    if isinstance(source, Barriers):
        source = [source]
    references = isinstance(source, Sequence)
    model = model if model is not None or references else source
    sets: list[Any] = list(source) if references else []
    if not all(isinstance(s, Barriers) for s in sets):
        raise KinosonError(
            f"found a sequence of {sorted({type(s).__name__ for s in sets})}; expected Barriers of Monte Carlo states, "
            "or one model; pass what compute_barriers returns"
        )
    if temperatures_K is None:
        temperatures_K = [s.states.temperature_K for s in sets if s.states.temperature_K]
    order = sorted({float(t) for t in temperatures_K}, reverse=True)
    if not order:
        raise KinosonError("found no temperatures; expected one or more in kelvin; pass temperatures_K")
    if model is None and (relaxations is None or correct is not None):
        raise KinosonError(
            "found no model to train y on or to correct with; expected a barrier model; pass model=, or relaxations= "
            "alone"
        )
    missing = [t for t in order if relaxations is not None and t not in relaxations]
    if missing:
        raise KinosonError(
            f"found no relaxation for {missing} K; expected one for each temperature; add None for y = 0"
        )
    streams = {t: np.random.SeedSequence([seed, i]).generate_state(2).tolist() for i, t in enumerate(order)}
    if not references:
        bound = Rates.of(source, jumps, temperature_K=order[0]).source
        for t in order:
            states = sample_states(
                jumps.supercell,
                n_states,
                method="monte-carlo",
                model=bound,
                temperature_K=t,
                seed=streams[t][0],
                progress=progress,
                **dict(sampling or {}),
            )
            sets.append((states, states.model_energies))
    pooled = {}
    for t in order:  # all of them first: a refusal costs nothing then
        own = [s for s in sets if pool or abs((_states(s).temperature_K or np.nan) - t) < 1e-6]
        if not own:
            raise KinosonError(
                f"found no states drawn at {t:g} K; expected a set for each temperature; add one, or pass pool=True"
            )
        pooled[t] = pool_states(own, t, smallest_sample=smallest_sample, one_model=one_model)
    results, corrected, previous = [], [], None
    for t in tqdm(order, desc="temperatures", disable=not progress):
        if relaxations is not None:
            relaxation = relaxations[t]
        else:
            relaxation = previous = train_relaxation(
                jumps.supercell,
                jumps,
                model,
                temperature_K=t,
                attempt_frequency=attempt_frequency,
                start=previous,
                # one seed for all: what y misses for want of training states then varies smoothly with temperature
                **{"seed": seed, **dict(training or {})},
            )
        found = pooled[t]
        result = transport(
            found.states if isinstance(found, Barriers) else found,
            jumps,
            found if isinstance(found, Barriers) else source,
            relaxation,
            t,
            vacancy_fraction=vacancy_fraction[t] if isinstance(vacancy_fraction, Mapping) else vacancy_fraction,
            attempt_frequency=attempt_frequency,
            n_resamples=n_resamples,
            # one seed for all: the noise of common states is then common, and cancels in slopes
            seed=seed,
        )
        results.append(result)
        if correct is not None:
            corrected.append(correct_result(result, model, **{"seed": streams[t][1], **dict(correct)}))
    return TemperatureSeries(tuple(results), tuple(corrected))


def _states(one: Any) -> Any:
    return one.states if isinstance(one, Barriers) else one[0]


def _stack(numbers: Sequence[Quantity]) -> Quantity:
    """One array of several numbers; of different kinds the weakest is named."""
    kinds = {q.kind for q in numbers}
    kind = kinds.pop() if len(kinds) == 1 else NO_BOUND if NO_BOUND in kinds else ESTIMATE
    value, error = (np.array([float(getattr(q, what)) for q in numbers]) for what in ("value", "error"))
    return Quantity(value, error, numbers[0].unit, kind)


def _item(numbers: Quantity, i: int) -> Quantity:
    value, error = np.atleast_1d(numbers.value)[i], np.atleast_1d(numbers.error)[i]
    return Quantity(float(value), float(error), numbers.unit, numbers.kind)


def _noise_of_fraction(results: Sequence[Transport], n: int) -> NDArray[np.float64]:
    """Relative error of c_v at each temperature times one common normal number per resample, 0 in the first column."""
    common = np.concatenate([[0.0], np.random.default_rng(n).normal(size=n - 1)])
    return np.array([common * _doubt(r) for r in results])


def _doubt(result: Transport) -> float:
    """Relative error of c_v."""
    return result.vacancy_fraction_error / (result.vacancy_fraction or 1.0)
