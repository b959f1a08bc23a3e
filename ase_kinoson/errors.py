"""Errors and warnings of the package.

Every message says what was found, what was expected, and what to do about it.
"""

from __future__ import annotations

import collections.abc
import math
import typing

if typing.TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

LONGEST_MESSAGE = 1200
"""Characters of a message; more is the content of somebody's file."""


class KinosonError(ValueError):
    """Base class of all errors that bad input or bad luck can cause; a ``ValueError``.

    Messages quote what was found, which may be anybody's file: characters that a terminal would obey are written out,
    and of a very long message the middle is left out.

    Parameters
    ----------
    *args
        The message.
    """

    def __init__(self, *args: object) -> None:
        if args and isinstance(args[0], str):
            args = (_sentence(args[0]), *args[1:])
        super().__init__(*args)


def _sentence(text: str) -> str:
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE - 400]} … {text[-390:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class StructureError(KinosonError):
    """A structure, composition or supercell cannot be used."""


class MappingError(KinosonError):
    """An Atoms object does not map onto the sites of the supercell."""


class StatesError(KinosonError):
    """A set of states does not belong to the lattice or is malformed."""


class BarrierError(KinosonError):
    """Barriers are missing, malformed or belong to other states."""


class StoreError(KinosonError):
    """A barrier store cannot be read or belongs to another study."""


class ModelError(KinosonError):
    """A model file is damaged or a model belongs to another lattice."""


class StudyError(KinosonError):
    """A study file is wrong."""


class KinosonWarning(UserWarning):
    """Something a user should know before using a number.

    Each subclass is one thing that can be wrong. ``str`` of a warning is its text and its advice in one sentence.

    Parameters
    ----------
    text
        What was found and what was expected.
    number
        What was found, as one number in ``unit``.
    limit
        The number expected, or the farthest still expected, in ``unit``.
    unit
        Of ``number`` and ``limit``; ``"1"`` for numbers without one.
    advice
        What to do about it.

    Attributes
    ----------
    text : str
        What was found and what was expected.
    number : float or None
        What was found, in ``unit``; None where there is no number, or none that is finite.
    limit : float or None
        What was expected, in ``unit``; None where no number says it.
    unit : str
        Of both.
    advice : str
        What to do about it.
    """

    def __init__(
        self,
        text: str = "",
        *,
        number: float | None = None,
        limit: float | None = None,
        unit: str = "1",
        advice: str = "",
    ) -> None:
        super().__init__(f"{text}; {advice}" if text and advice else text or advice)
        self.text, self.unit, self.advice = str(text), str(unit), str(advice)
        self.number, self.limit = _finite(number), _finite(limit)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``type``, ``text``, ``number``, ``limit``, ``unit`` and ``advice``."""
        return {
            "type": type(self).__name__,
            "text": self.text,
            "number": self.number,
            "limit": self.limit,
            "unit": self.unit,
            "advice": self.advice,
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any] | str) -> KinosonWarning:
        """Undo :meth:`as_dict`.

        Parameters
        ----------
        d
            What :meth:`as_dict` gave, also after JSON; or a sentence, as older files hold it.

        Returns
        -------
        KinosonWarning
            Of the class named; of this class where there is none of that name.

        Raises
        ------
        KinosonError
            If it is neither.
        """
        if isinstance(d, str):
            return KinosonWarning(d)
        if not isinstance(d, collections.abc.Mapping):
            raise KinosonError(
                f"found a {type(d).__name__} for a warning; expected a sentence or a mapping; write the file again"
            )
        made = _KINDS.get(str(d.get("type")), KinosonWarning)
        number, limit = (x if isinstance(x := d.get(key), int | float) else None for key in ("number", "limit"))
        return made(
            str(d.get("text", "")),
            number=number,
            limit=limit,
            unit=str(d.get("unit", "1")),
            advice=str(d.get("advice", "")),
        )

    def with_text(self, text: str) -> Self:
        """The same warning with another text.

        Parameters
        ----------
        text
            What was found and what was expected.
        """
        return type(self)(text, number=self.number, limit=self.limit, unit=self.unit, advice=self.advice)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _KINDS.setdefault(cls.__name__, cls)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KinosonWarning):
            return NotImplemented
        return type(self) is type(other) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((type(self), str(self), self.number, self.limit, self.unit))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.text, self.number, self.limit, self.unit, self.advice)


_KINDS: dict[str, type[KinosonWarning]] = {}


def _rebuilt(made: type[KinosonWarning], text: str, number: Any, limit: Any, unit: str, advice: str) -> KinosonWarning:
    return made(text, number=number, limit=limit, unit=unit, advice=advice)


def _finite(x: Any) -> float | None:
    return float(x) if x is not None and math.isfinite(x) else None


# -- states and what is averaged over them -------------------------------------------------------------------


class NotAtEquilibrium(KinosonWarning):
    """The states are no equilibrium sample of the energies whose barriers are used; an energy drift, say."""


class SmallSample(KinosonWarning):
    """Too few effective, independent states."""


class FewKinosons(KinosonWarning):
    """A few groups of states carry the coefficient or the scatter that its error is made of."""


class LargeError(KinosonWarning):
    """The statistical error is larger than asked for."""


class SeenStates(KinosonWarning):
    """States that a fit has seen are used to judge it; the result is no held-out bound."""


class LowAcceptance(KinosonWarning):
    """Few proposals of a Monte Carlo chain are accepted."""


# -- barriers and models -------------------------------------------------------------------------------------


class FailedCalculations(KinosonWarning):
    """Searches, relaxations or bands failed or were refused; what they would have given is missing."""


class NoBarrier(KinosonWarning):
    """Jumps without a barrier, which are faster than the attempt frequency, carry a coefficient."""


class FarFromTraining(KinosonWarning):
    """A model is asked for what lies outside the data of its fit."""


class EndStateDrift(KinosonWarning):
    """End states of jumps do not stay where they are put, or their energies contradict each other."""


class SmallCell(KinosonWarning):
    """The cell is too small: its periodic images change barriers."""


# -- relaxation and correction -------------------------------------------------------------------------------


class NotConverged(KinosonWarning):
    """The training of the relaxation y ended before its end, or learned its states by heart."""


class LooseBound(KinosonWarning):
    """The bound lies far above what it bounds."""


class SlowModes(KinosonWarning):
    """The trajectories are shorter than the slowest correlations."""


class NoCorrection(KinosonWarning):
    """There is no residual ladder for these states; the coefficients stand without it."""


class IllConditioned(KinosonWarning):
    """A linear system is nearly singular; it was regularised, and digits are lost."""


# -- crystal, files and programs -----------------------------------------------------------------------------


class VacantSites(KinosonWarning):
    """A sublattice of the crystal has sites without atoms, which are not treated as diffusing vacancies."""


class WrongVolume(KinosonWarning):
    """The crystal is strained."""


class ClosedDirections(KinosonWarning):
    """The jumps do not lead through the crystal in every direction."""


class NotSaved(KinosonWarning):
    """Results could not be written yet."""


class IncompleteFiles(KinosonWarning):
    """Files that belong together may not all be there."""


class SlowFallback(KinosonWarning):
    """A fast path cannot be used; the numbers are the same, later."""


class ManyWarnings(KinosonWarning):
    """Several points of a map warned."""
