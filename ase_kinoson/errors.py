"""Errors and warnings of the package.

Every message says what was found, what was expected, and what to do about it.
"""

from __future__ import annotations


class KinosonError(ValueError):
    """Base class of all errors that bad input or bad luck can cause; a ``ValueError``."""


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
    """Something a user should know before using a number."""
