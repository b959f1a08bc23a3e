"""What the barriers of a store belong to, and why another study may not use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ase_kinoson.barriers.hop import SaddleSettings
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell

__all__ = ["FORMAT", "OLDER", "Fingerprint"]

FORMAT = 2
"""Version of the schema: 1 had no names of rows, so that two processes could write the same one."""

OLDER = (1,)
"""Versions that ``ase-kinoson upgrade`` brings to this one."""

_NAMES = {"supercell": "supercell or composition", "network": "jump network", "calculator": "calculator"}
_NO_MATTER = ("time_limit_s", "max_calls")
"""Settings that change no barrier, only whether there is one."""


@dataclass(frozen=True)
class Fingerprint:
    """What a store belongs to.

    Attributes
    ----------
    supercell, network
        Their fingerprints.
    calculator
        Name of its class.
    parameters
        Its plain parameters.
    settings
        Of the saddle search.
    owners
        Supercell and jumps; they know what they were called before.
    """

    supercell: str
    network: str
    calculator: str
    parameters: Mapping[str, Any]
    settings: SaddleSettings
    owners: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(
        cls,
        supercell: Supercell,
        network: JumpNetwork,
        *,
        calculator: str,
        parameters: Mapping[str, Any] | None = None,
        settings: SaddleSettings | None = None,
    ) -> Fingerprint:
        """Fingerprint of a study."""
        return cls(
            supercell.fingerprint,
            network.fingerprint,
            calculator,
            dict(parameters or {}),
            settings or SaddleSettings(),
            (supercell, network),
        )

    def as_stored(self, found: Mapping[str, Any]) -> Fingerprint:
        """The same with the names under which a store of before knows supercell and jumps, if these are theirs.

        Parameters
        ----------
        found
            What the store says.
        """
        names = {}
        for key, own in zip(("supercell", "network"), self.owners, strict=False):
            if own.goes_by(found.get(key)):
                names[key] = found[key]
        return replace(self, **names)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values, as stored."""
        settings = {k: v for k, v in asdict(self.settings).items() if k not in _NO_MATTER}
        values = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("supercell", "network", "calculator", "parameters")},
            "settings": settings,
        }
        return json.loads(json.dumps(values, sort_keys=True, default=str))

    @property
    def id(self) -> str:
        """Short stable name."""
        return "settings-" + hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def difference(self, found: Mapping[str, Any]) -> str:
        """Say how the stored values ``found`` differ from these; empty if they do not."""
        expected = self.as_dict()
        version = found.get("format")
        if version != FORMAT:
            newer = isinstance(version, int) and version > FORMAT
            return (
                f"was written by {'a newer' if newer else 'an older'} version of this package: found format "
                f"{version!r} of the store, expected {FORMAT}"
            )
        for key, label in _NAMES.items():
            if found.get(key) != expected[key]:
                return f"belongs to another study: found {label} {found.get(key)!r}, expected {expected[key]!r}"
        for group, label in (("parameters", "calculator parameter"), ("settings", "saddle setting")):
            old, new = found.get(group, {}), expected[group]
            if not isinstance(old, Mapping):
                return f"is damaged: found {label}s {old!r:.40}, expected names and values"
            for key in sorted(set(old) | set(new)):
                if key not in old and group == "settings":
                    return (
                        f"was written by an older version of this package: found no {label} {key!r}, expected "
                        f"{new[key]!r}"
                    )
                if old.get(key) != new.get(key):
                    return (
                        f"belongs to another study: found {label} {key!r} {old.get(key)!r}, expected {new.get(key)!r}"
                    )
        return ""
