"""Settings of a study: what a TOML file may say, checked before anything runs."""

from __future__ import annotations

import difflib
import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ase_kinoson.errors import StudyError
from ase_kinoson.given_files import given_text
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = [
    "AlloySettings",
    "BarrierSettings",
    "CalculatorSettings",
    "CellSettings",
    "CorrectionSettings",
    "JumpSettings",
    "ModelSettings",
    "RelaxationSettings",
    "StateSettings",
    "StudySettings",
    "TransportSettings",
    "VacancySettings",
    "parse_settings",
    "read_toml",
    "to_toml",
]

MOST = 10**6
"""Most of anything that is counted: more is a slip, and would take all memory before anybody sees it."""
MOST_BYTES = 2**18
MOST_NESTED = 20
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{MOST_NESTED}}}")
COLDEST_K, HOTTEST_K = 1.0, 1e5
LEAST_STATES = 8

Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Width = Annotated[int, Field(ge=0, le=4096)]
Layers = Annotated[int, Field(ge=1, le=64)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _kelvin(value: float) -> float:
    if not COLDEST_K <= value <= HOTTEST_K:
        raise ValueError(f"{COLDEST_K:g} to {HOTTEST_K:g} K")
    return value


Kelvin = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_kelvin)]


def _keyword_values(value: Any) -> Any:
    """Only what JSON can hold: parameters are part of the fingerprint of a study and of its summary."""
    allowed = (str, int, float, bool, list, tuple, dict, type(None))
    todo = [(value, 0)]
    while todo:
        one, depth = todo.pop()
        if not isinstance(one, allowed) or depth > MOST_NESTED:
            raise ValueError("a table of texts, numbers, true/false, lists and tables, without dates")
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
        todo += [(x, depth + 1) for x in inside]
    return value


def _size(value: Any) -> Any:
    """Accept one integer, three integers, or three rows of three."""

    def whole(x: Any) -> bool:
        return isinstance(x, int) and not isinstance(x, bool)

    if whole(value):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        rows = list(value)
        if all(whole(x) for x in rows):
            return rows
        if all(isinstance(r, Sequence) and len(r) == 3 and all(whole(x) for x in r) for r in rows):
            return [list(r) for r in rows]
    raise ValueError(
        "one integer, three integers, or a 3x3 matrix of integers such as [[3, 0, 0], [0, 3, 0], [0, 0, 3]]"
    )


class _Section(BaseModel):
    """A table of the file: unknown keys are refused, types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AlloySettings(_Section):
    """``[alloy]``: the crystal.

    Attributes
    ----------
    file
        CIF (with partial occupancies), POSCAR or another structure file that :meth:`Alloy.from_file` reads; relative to
        the study file.
    composition
        Needed where the file is ordered: ``{Cu = {Cu = 0.7, Ni = 0.3}}`` puts 70 % Cu and 30 % Ni on the
        sites that hold Cu.
    mobile
        Sublattices that carry the vacancy; default: all disordered ones.
    symprec
        Tolerance of the symmetry search, Å.
    """

    file: str
    composition: dict[str, dict[str, float]] | None = None
    mobile: list[str] | None = None
    symprec: Annotated[float, Field(gt=0, le=1)] = 1e-3


class CellSettings(_Section):
    """``[cell]``: the supercell; ``size`` in multiples of the ``of`` (``"conventional"`` or ``"primitive"``) cell."""

    size: Annotated[int | list[int] | list[list[int]], BeforeValidator(_size)] = 3
    of: Literal["conventional", "primitive"] = "conventional"


class JumpSettings(_Section):
    """``[jumps]``: what jumps, and where to.

    Attributes
    ----------
    cutoff
        All pairs of mobile sites up to this length jump, Å; default: nearest neighbours.
    species
        Symbol of an interstitial atom that diffuses instead of a vacancy; needs ``sites``.
    sites
        Its sites: ``"octahedral"``, ``"tetrahedral"`` or both in a list (found from the structure), or scaled
        positions in the conventional cell, to which symmetry copies are added.
    """

    cutoff: Length | None = None
    species: str | None = None
    sites: str | list[str] | list[list[float]] | None = None


class CalculatorSettings(_Section):
    """``[calculator]``: where energies come from.

    Attributes
    ----------
    name
        A real potential by name, such as ``"cantor-meam"`` or ``"kim:ID"`` (``ase-kinoson info`` lists them; see
        :func:`~ase_kinoson.barriers.potentials.recipes.potential`); an importable factory such as
        ``"ase.calculators.emt.EMT"``, also in a module beside the study file; or a name that ASE knows (``"EMT"``).
    parameters
        Keyword arguments of the factory.

    A factory by its module is imported, which runs that module: only ``barriers``, ``fit``, ``transport`` and ``run``
    do so, and a study file of somebody else deserves the same care as a script of theirs.
    """

    name: str = "EMT"
    parameters: Annotated[dict[str, Any], BeforeValidator(_keyword_values)] = {}


class BarrierSettings(_Section):
    """``[barriers]``: the saddle search; keys and units as in :class:`~ase_kinoson.barriers.saddle.SaddleSettings`.

    And of the campaign: ``time_limit_s`` per barrier, and ``retry``, which of the rejected jumps to try again when a
    study is resumed (:func:`~ase_kinoson.barriers.campaign.compute_barriers`).
    """

    fmax_initial: PositiveFloat = 0.005
    fmax_final: PositiveFloat = 0.02
    fmax_saddle: PositiveFloat = 0.01
    max_relax_calls: Count = 200
    accuracy: PositiveFloat = 5e-4
    max_climb_calls: Count = 40
    max_plain_calls: Count = 80
    band_images: Annotated[int, Field(ge=0, le=100)] = 5
    max_band_steps: Count = 150
    max_step: PositiveFloat = 0.3
    site_tolerance: PositiveFloat = 0.45
    verify: bool = True
    side_basin: Literal["keep", "reject"] = "keep"
    prefactor: Literal["constant", "vineyard"] = "constant"
    prefactor_radius: PositiveFloat = 4.0
    time_limit_s: PositiveFloat | None = None
    retry: list[Literal["calculator-failed", "timed-out", "not-converged", "wrong-saddle"]] = []


class StateSettings(_Section):
    """``[states]``: how many states.

    Attributes
    ----------
    training
        Randomly decorated states whose reference barriers teach the barrier model.
    rounds
        Further rounds of learning, each on ``per_round`` equilibrium states of the model so far (shared out
        over the temperatures).
    per_round
        See ``rounds``.
    evaluation
        States per temperature on which the coefficients are evaluated; no fit sees them.
    pool
        Whether the evaluation states of all temperatures serve each temperature, with weights
        (:func:`~ase_kinoson.kinetics.pooling.pool_states`); the equilibrium ensemble only.
    ensemble
        ``"equilibrium"``: all atoms exchange at T. ``"quenched"``: random arrangements in which only the
        vacancy equilibrates.
    arrangements
        For ``"quenched"``: number of arrangements per temperature; default one for every four states.
    sweeps
        Monte Carlo sweeps before states are taken.
    """

    training: Annotated[int, Field(ge=LEAST_STATES, le=MOST)] = 40
    rounds: Annotated[int, Field(ge=0, le=1000)] = 0
    per_round: Annotated[int, Field(ge=2, le=MOST)] = 16
    evaluation: Annotated[int, Field(ge=2, le=MOST)] = 30
    pool: bool = True
    ensemble: Literal["equilibrium", "quenched"] = "equilibrium"
    arrangements: Positive | None = None
    sweeps: Positive = 100


class ModelSettings(_Section):
    """``[model]``: the learned barriers; see :meth:`~ase_kinoson.barriers.learned.BarrierModel.fit`."""

    hidden: Width = 32
    layers: Layers = 1
    epochs: Count = 30
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NotNegative = 0.5
    dropout: Fraction = 0.05
    energy_cutoff: Length | None = None
    triplet_cutoff: Length | None = None
    environment_cutoff: Length | None = None
    test_fraction: Fraction = 0.15
    validation_fraction: Fraction = 0.15


class RelaxationSettings(_Section):
    """``[relaxation]``: the field y; see :func:`~ase_kinoson.kinosons.training.train_relaxation`.

    Attributes
    ----------
    form
        ``"clusters"``: linear in counts of pairs and triplets around the carrier; ``"paths"``: factors of the paths
        alone; ``"network"``: a network, the slowest to train; ``"scaled-bias"``: one factor per species and kind of
        path.
    lookahead
        Jumps that are followed with the rates of the model: 0, 1 or 2.
    closure
        ``"learned"``: factors of the paths are learned too; ``"exact"``: the Poisson equation as it is.
    gates
        Width of the network behind the factors of the paths; 0: constant factors.
    n_states
        States of the model to train on, at each temperature.
    closure_epochs
        Epochs for the factors of the paths.
    epochs, hidden, n_blocks, learning_rate
        For ``form = "network"``.
    batch_size
        States per step of all epochs.
    cutoff
        Reach of the environment, Å; default twice the shortest jump.
    warm_start
        Whether each temperature starts from the next higher one, one after the other; else all are trained side by
        side.
    deeper
        States on which the relaxation is made one jump deeper, y + θ r̄: a tighter bound at the price of (1 + J) times
        the evaluation, J the number of jumps; 0: not at all.
    """

    form: Literal["clusters", "paths", "network", "scaled-bias"] = "clusters"
    lookahead: Annotated[int, Field(ge=0, le=2)] = 2
    closure: Literal["learned", "exact"] = "learned"
    gates: Width = 32
    n_states: Annotated[int, Field(ge=10, le=MOST)] = 2048
    closure_epochs: Count = 8
    epochs: Count = 8
    batch_size: Positive = 32
    hidden: Annotated[int, Field(ge=1, le=4096)] = 24
    n_blocks: Layers = 2
    cutoff: Length | None = None
    warm_start: bool = False
    deeper: Count = 0
    learning_rate: PositiveFloat = 1.5e-2


class CorrectionSettings(_Section):
    """``[correction]``: from bounds to best values; see :func:`~ase_kinoson.kinosons.correction.correct`.

    Attributes
    ----------
    enabled
        Whether the residual ladder is climbed at all. It never is for vacancies in the quenched ensemble, whose atoms
        must not move.
    n_steps
        Jumps per trajectory: the more, the higher the ladder.
    n_trajectories
        Trajectories at each temperature, from as many states of the model that y was not trained on.
    long_jumps
        Jumps of walkers that go on where the ladder does not settle; 0: a warning says so instead.
    seed
        Of states and trajectories; default: follows from that of the study.
    """

    enabled: bool = True
    n_steps: Positive = 32
    n_trajectories: Annotated[int, Field(ge=32, le=MOST)] = 1024
    long_jumps: Annotated[int, Field(ge=0, le=10**9)] = 0
    seed: Seed | None = None


class VacancySettings(_Section):
    """``[vacancies]``: where the site fraction of vacancies c_v comes from, in one of four ways.

    Attributes
    ----------
    fraction, fraction_error
        A number for all temperatures.
    formation_energy_eV, formation_energy_error_eV
        c_v = exp(S_f/k_B) exp(−E_f/k_BT), with ``formation_entropy_kB``.
    table
        CSV file with the columns ``temperature [K]`` and ``vacancy_fraction [1]`` (or ``[ppm]`` ...), perhaps
        ``error``; relative to the study file.
    arrangements
        c_v is computed with the calculator from this many arrangements of the atoms; see
        :func:`~ase_kinoson.kinosons.vacancy_formation.vacancy_formation`.
    sites, swaps
        For ``arrangements``: atoms taken out of each, and atoms whose species is changed.
    ensemble
        For ``arrangements``: ``"random"``, or ``"equilibrium"`` with the barrier model's energies.
    formation_entropy_kB
        Entropy of vibrations, for a formation energy or ``arrangements``.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    fraction_error: NotNegative = 0.0
    formation_energy_eV: Finite | None = None
    formation_energy_error_eV: NotNegative = 0.0
    formation_entropy_kB: Finite = 0.0
    table: str | None = None
    arrangements: Annotated[int, Field(ge=2, le=MOST)] | None = None
    sites: Positive = 8
    swaps: Positive = 8
    ensemble: Literal["random", "equilibrium"] = "random"


class TransportSettings(_Section):
    """``[transport]``: what is evaluated.

    Attributes
    ----------
    temperatures_K
        K, each once.
    attempt_frequency
        s⁻¹; one number for all jumps.
    vacancy_fraction
        Site fraction of vacancies c_v; short for ``fraction`` of ``[vacancies]``. Without either, coefficients of atoms
        are per c_v.
    measured
        CSV file with measured tracer diffusivities to lay over the Arrhenius plot, relative to the study file; see
        :func:`~ase_kinoson.measured.read_measured_diffusivity`.
    n_resamples
        Bootstrap resamples for the errors.
    """

    temperatures_K: Annotated[list[Kelvin], Field(min_length=1, max_length=1000)]
    attempt_frequency: PositiveFloat = DEFAULT_ATTEMPT_FREQUENCY
    vacancy_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    measured: str | None = None
    n_resamples: Annotated[int, Field(ge=20, le=10**5)] = 400


class StudySettings(_Section):
    """A whole study file.

    Attributes
    ----------
    title
        Shown in the report.
    seed
        Equal seeds give equal numbers, whatever the number of workers.
    workers
        Processes; default: all cores this process may use.
    """

    title: Annotated[str, Field(max_length=1000)] = ""
    seed: Seed = 0
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    alloy: AlloySettings
    cell: CellSettings = CellSettings()
    jumps: JumpSettings = JumpSettings()
    calculator: CalculatorSettings = CalculatorSettings()
    barriers: BarrierSettings = BarrierSettings()
    states: StateSettings = StateSettings()
    model: ModelSettings = ModelSettings()
    relaxation: RelaxationSettings = RelaxationSettings()
    correction: CorrectionSettings = CorrectionSettings()
    vacancies: VacancySettings = VacancySettings()
    transport: TransportSettings


# -- reading, with errors for people -------------------------------------------------------------------------


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    StudyError
        If it is missing or no TOML.
    """
    text = given_text(path, expected="a study file (TOML)", most=MOST_BYTES, error=StudyError)
    name = Path(path).name
    try:
        _check_nesting(text)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits is a ValueError
        raise StudyError(
            f"{name} is no valid TOML: {str(error)[:300]}; expected 'key = value' lines; correct it"
        ) from error


def _check_nesting(text: str) -> None:
    """Refuse keys of very many parts: Python's reader takes time and memory that grow as their square."""
    if _LONG_KEY.search(text):
        raise ValueError(f"a key of more than {MOST_NESTED} parts")


def parse_settings(data: Mapping[str, Any], *, name: str = "study") -> StudySettings:
    """Check settings.

    Parameters
    ----------
    data
        Nested values, as read from TOML.
    name
        What messages call the file.

    Raises
    ------
    StudyError
        One sentence: where, what was found, what was expected.
    """
    try:
        settings = StudySettings.model_validate(dict(data))
    except ValidationError as error:
        raise StudyError(_sentence(error, name)) from None
    temperatures = settings.transport.temperatures_K
    if len(set(temperatures)) != len(temperatures):
        raise StudyError(
            f"{name}: [transport] temperatures_K: found {temperatures}; expected every temperature once; "
            "remove the double one"
        )
    jumps = settings.jumps
    if (jumps.species is None) != (jumps.sites is None):
        raise StudyError(
            f"{name}: [jumps]: found species = {jumps.species!r} and sites = {jumps.sites!r}; expected both for an "
            "interstitial, neither for vacancies; add the other one"
        )
    ways = {
        "[transport] vacancy_fraction": settings.transport.vacancy_fraction,
        "[vacancies] fraction": settings.vacancies.fraction,
        "[vacancies] formation_energy_eV": settings.vacancies.formation_energy_eV,
        "[vacancies] table": settings.vacancies.table,
        "[vacancies] arrangements": settings.vacancies.arrangements,
    }
    given = [key for key, value in ways.items() if value is not None]
    if len(given) > 1:
        raise StudyError(f"{name}: found {' and '.join(given)}; expected c_v in one way; remove the others")
    own = settings.vacancies
    for key, needs in (
        ("fraction_error", ("fraction",)),
        ("formation_energy_error_eV", ("formation_energy_eV",)),
        ("formation_entropy_kB", ("formation_energy_eV", "arrangements")),
    ):
        if getattr(own, key) and all(getattr(own, x) is None for x in needs):
            raise StudyError(
                f"{name}: [vacancies] {key}: found {getattr(own, key):g} without {' or '.join(needs)}; expected it "
                "beside that; add it, or remove this one"
            )
    if settings.transport.measured is not None and not given and jumps.species is None:
        raise StudyError(
            f"{name}: [transport] measured: found measured diffusivities and no vacancy fraction; expected both, since "
            "without c_v a calculated D* cannot be laid beside them; fill in [vacancies], or remove measured"
        )
    if given and jumps.species is not None:
        raise StudyError(f"{name}: {given[0]}: found a vacancy fraction for an interstitial; expected none; remove it")
    relaxation = settings.relaxation
    if relaxation.lookahead == 0 and relaxation.form in ("paths", "scaled-bias"):
        raise StudyError(
            f"{name}: [relaxation] lookahead: found 0 with form = {relaxation.form!r}, which has nothing but paths; "
            "expected 1 or 2; correct it, or choose form = 'clusters'"
        )
    return settings


def _sentence(error: ValidationError, name: str) -> str:
    """Turn the first finding of pydantic into one sentence; unknown keys first, because they explain missing ones."""
    findings = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = findings[0]
    loc = [str(part) for part in first["loc"]]
    model = _section_model(loc[0]) if loc else None
    others = len({tuple(map(str, e["loc"][:2])) for e in findings}) - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = list((model if len(loc) > 1 and model else StudySettings).model_fields)
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"remove it, or choose one of {', '.join(known)}"
        kind = "section" if isinstance(first["input"], Mapping) else "key"
        where = f"[{loc[0]}] " if len(loc) > 1 else ""
        return (
            f"{name}: {where}{loc[-1]}: found an unknown {kind}; expected one of {len(known)} known ones; {hint}{more}"
        )
    inner = re.sub(r"\.(\d+)", r"[\1]", ".".join(loc[1:]))
    where = f"[{loc[0]}] {inner}" if model and len(loc) > 1 else f"[{loc[0]}]" if model else ".".join(loc)
    if first["type"] == "missing":
        what = "section" if model and len(loc) == 1 else "key"
        return f"{name}: {where}: found nothing; expected this {what}; add it{more}"
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = re.sub("a valid dictionary( or instance of .*)?", "a table of keys", expected)
    expected = expected.replace("a valid string", "text in quotes").replace("a valid list", "a list in brackets")
    found = _shown(first["input"])
    return f"{name}: {where}: found {found}; expected {expected[:1].lower()}{expected[1:]}; correct it{more}"


def _section_model(key: str) -> type[_Section] | None:
    field = StudySettings.model_fields.get(key)
    if field is None:
        return None
    found = [
        t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type) and issubclass(t, _Section)
    ]
    return found[0] if found else None


def _shown(value: Any) -> str:
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true/false"),
        (str, "text"),
        (int, "a whole number"),
        (float, "a number"),
        (Mapping, "a table"),
        ((list, tuple), "a list"),
    ]
    kind = next((text for of, text in kinds if isinstance(value, of)), type(value).__name__)
    try:
        text = reprlib.repr(value) if kind in ("a table", "a list") and len(str(value)) > 60 else repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, lists nested a thousand times
        return f"something endless ({kind})"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


# -- writing -------------------------------------------------------------------------------------------------


def to_toml(settings: StudySettings) -> str:
    """Write settings as a TOML file that reproduces them, defaults included."""
    data = settings.model_dump(exclude_none=True)
    lines = [f"{k} = {_value(v)}" for k, v in data.items() if not isinstance(v, dict)]
    for section, table in data.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{section}]", *(f"{_key(k)} = {_value(v)}" for k, v in table.items() if v != {})]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c, c if c >= " " else f"\\u{ord(c):04x}")
        for c in str(value)
    )
    return f'"{escaped}"'
