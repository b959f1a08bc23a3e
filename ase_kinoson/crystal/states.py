"""`States`: occupations of a supercell with one carrier each, with weights and where they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.crystal.structure_files import read_images
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.mson import Storable
from ase_kinoson.whole_files import replace_file

__all__ = ["ENSEMBLES", "States"]

ENSEMBLES = ("equilibrium", "quenched", "random")
"""``equilibrium``: all atoms exchange at T. ``quenched``: random frozen atoms, the vacancy equilibrates. ``random``:
neither."""


@dataclass(frozen=True, eq=False)
class States(Storable):
    """Occupations of a supercell that holds one carrier.

    Attributes
    ----------
    supercell : Supercell
        Where the sites are.
    occupations : ndarray of int8, shape (n_states, n_sites)
        Species code of every site; see :attr:`Supercell.species`.
    carriers : ndarray of int, shape (n_states,)
        Site of the carrier.
    weights : ndarray, shape (n_states,)
        Statistical weights, normalised to sum 1.
    groups : ndarray of int, shape (n_states,)
        States with equal numbers are related (same chain, same arrangement): resampling and train/test splits keep them
        together.
    ensemble : str
        One of ``ENSEMBLES``.
    temperature_K : float or None
        Temperature of the ensemble, K.
    source : str
        How the states were made.
    model_energies : ndarray or None, shape (n_states,)
        Energies (eV) that the sampling used, for reweighting to other energies.
    report : mapping
        Diagnostics of the sampling (acceptance, autocorrelation, effective sample size ...).

    Raises
    ------
    StatesError
        If arrays do not have one entry per state, weights are negative or all zero, or the ensemble is unknown.
    """

    supercell: Supercell
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]
    ensemble: str = "random"
    temperature_K: float | None = None
    source: str = "given"
    model_energies: NDArray[np.float64] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.occupations)
        if self.ensemble not in ENSEMBLES:
            raise StatesError(f"found ensemble {self.ensemble!r}; expected one of {ENSEMBLES}; correct it")
        for name in ("carriers", "weights", "groups"):
            if np.shape(getattr(self, name)) != (n,):
                raise StatesError(
                    f"found {name} of shape {np.shape(getattr(self, name))} for {n} states; expected ({n},); give "
                    "one per state"
                )
        if n and not (np.all(np.isfinite(self.weights)) and self.weights.min() >= 0 and self.weights.sum() > 0):
            raise StatesError(
                "found weights that are negative, not finite or all zero; expected positive numbers; correct them"
            )

    @classmethod
    def from_occupations(
        cls,
        supercell: Supercell,
        occupations: ArrayLike,
        *,
        carriers: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **about: Any,
    ) -> States:
        """Check occupations and find their carriers; equal weights and separate groups unless given.

        Parameters
        ----------
        supercell
            Where the sites are.
        occupations : array_like of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,), optional
            Site of the carrier; default: found.
        weights : array_like, shape (n,), optional
            Normalised here; default: equal.
        groups : array_like of int, shape (n,), optional
            Default: every state is its own.
        **about
            ``ensemble``, ``temperature_K``, ``source``, ``model_energies`` and ``report``; see the class.

        Raises
        ------
        MappingError
            If an occupation does not fit the supercell or does not have exactly one carrier.
        """
        codes = supercell.check_occupation(np.atleast_2d(np.asarray(occupations)))
        n = len(codes)
        if carriers is None:
            carriers = np.array([supercell.find_carrier(row) for row in codes], dtype=np.int64)
        w = np.full(n, 1.0) if weights is None else np.asarray(weights, dtype=float)
        total = w.sum() if n else 1.0
        return cls(
            supercell,
            codes,
            np.asarray(carriers, dtype=np.int64),
            w / total if total > 0 else w,
            np.arange(n) if groups is None else np.asarray(groups, dtype=np.int64),
            **about,
        )

    @classmethod
    def from_atoms(cls, supercell: Supercell, images: Sequence[Atoms], **about: Any) -> States:
        """Map Atoms (relaxed or ideal) onto the supercell.

        Parameters
        ----------
        supercell
            Where the sites are.
        images
            One Atoms per state, in any order of atoms.
        **about
            As in :meth:`from_occupations`.
        """
        return cls.from_occupations(supercell, [supercell.map_atoms(a).occupation for a in images], **about)

    def __len__(self) -> int:
        return len(self.occupations)

    def __getitem__(self, index: slice | ArrayLike) -> States:
        """Select states by slice, index array or mask; weights are renormalised."""
        rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.atleast_1d(rows).astype(int)
        w = self.weights[rows]
        if len(w) and w.sum() <= 0:  # states without weight, taken out on their own
            w = np.ones(len(w))
        energies = None if self.model_energies is None else self.model_energies[rows]
        return replace(
            self,
            occupations=self.occupations[rows],
            carriers=self.carriers[rows],
            weights=w / w.sum() if len(w) and w.sum() > 0 else w,
            groups=self.groups[rows],
            model_energies=energies,
        )

    def __iter__(self) -> Iterator[States]:
        return (self[[i]] for i in range(len(self)))

    def with_weights(self, weights: ArrayLike, **report: Any) -> States:
        """Return the same states with other weights (normalised here) and additions to the report.

        Parameters
        ----------
        weights : array_like, shape (n_states,)
            Not negative.
        **report
            What to add to the report.
        """
        w = np.asarray(weights, dtype=float)
        return replace(self, weights=w / w.sum(), report={**self.report, **report})

    @property
    def effective_sample_size(self) -> float:
        """Kish's effective sample size 1/Σw²."""
        return float(1.0 / np.sum(self.weights**2)) if len(self) else 0.0

    @property
    def keys(self) -> list[str]:
        """One stable name per state (hash of the occupation), used by barrier stores."""
        return [hashlib.sha256(row.astype(np.int8).tobytes()).hexdigest()[:20] for row in self.occupations]

    def composition(self) -> dict[str, float]:
        """Weighted mean fraction of each species among the atoms of the cell."""
        codes = range(1, len(self.supercell.species))
        counts = np.array([(self.occupations == c).sum(axis=1) @ self.weights for c in codes])
        return dict(zip(self.supercell.species[1:], (counts / counts.sum()).tolist(), strict=True))

    def to_atoms(self) -> list[Atoms]:
        """Ideal-lattice Atoms of every state; weight, carrier and group are in ``info``."""
        images = []
        for i in range(len(self)):
            atoms = self.supercell.to_atoms(self.occupations[i], int(self.carriers[i]))
            atoms.info.update(weight=float(self.weights[i]), group=int(self.groups[i]))
            if self.model_energies is not None:
                atoms.info["model_energy"] = float(self.model_energies[i])
            images.append(atoms)
        return images

    def write(self, path: str | Path) -> None:
        """Write an extended XYZ file that :meth:`read` and every ASE tool can read.

        Parameters
        ----------
        path
            The file.
        """
        images = self.to_atoms()
        about = {
            "ensemble": self.ensemble,
            "source": self.source,
            "temperature_K": self.temperature_K,
            "report": _plain(self.report),
            "supercell": self.supercell.fingerprint,
        }
        if images:
            # extxyz does not escape backslashes
            images[0].info["states"] = json.dumps(about).replace("%", "%25").replace("\\", "%5C")
        with replace_file(path) as temporary:
            ase.io.write(temporary, images, format="extxyz")

    @classmethod
    def read(cls, path: str | Path, supercell: Supercell) -> States:
        """Read states from an extended XYZ file; atoms are mapped onto the sites of ``supercell``.

        Parameters
        ----------
        path
            The file.
        supercell
            Where the sites are.

        Raises
        ------
        StatesError
            If the file cannot be read, holds no states, or was written for another supercell.
        """
        try:
            images = read_images(path, every=True, kind="extxyz", most_bytes=2**31, error=StatesError)
            return cls._of_images(images, path, supercell)
        except KinosonError:
            raise
        except Exception as error:  # labels of the file that are none
            raise StatesError(
                f"cannot read states from {path} ({type(error).__name__}: {error}); expected extended XYZ as "
                "States.write leaves it; write them again"
            ) from error

    @classmethod
    def _of_images(cls, images: list[Atoms], path: str | Path, supercell: Supercell) -> States:
        first = images[0].info
        about = first.get("states", "{}")
        if isinstance(about, str):
            about = json.loads(about.replace("%5C", "\\").replace("%25", "%"))
        if not supercell.goes_by(about.get("supercell", supercell.fingerprint)):
            raise StatesError(
                f"the states in {path} were written for another supercell; expected {supercell.n_sites} sites of "
                "this alloy; "
                "use the supercell they were sampled on"
            )
        energies = [a.info.get("model_energy") for a in images]
        occupations = []
        for atoms in images:
            sites = atoms.arrays.get("site")
            if "supercell" in about and sites is not None and len(atoms) == len(set(sites)):
                if sites.min(initial=0) < 0 or sites.max(initial=0) >= supercell.n_sites:
                    raise ValueError(f"a site is none of the {supercell.n_sites} of the supercell")
                row = np.zeros(supercell.n_sites, dtype=np.int8)
                row[sites] = [supercell.species.index(s) for s in atoms.get_chemical_symbols()]
                occupations.append(row)
            else:
                occupations.append(supercell.map_atoms(atoms).occupation)
        weights = np.array([a.info.get("weight", 1.0) for a in images], dtype=float)
        found = cls.from_occupations(
            supercell,
            occupations,
            weights=weights,
            groups=[a.info.get("group", i) for i, a in enumerate(images)],
            ensemble=about.get("ensemble", "random"),
            source=about.get("source", f"read from {Path(path).name}"),
            temperature_K=about.get("temperature_K"),
            model_energies=None if any(e is None for e in energies) else np.array(energies, dtype=float),
            report=about.get("report", {}),
        )
        # normalised already: a second division would change the last bits
        return replace(found, weights=weights) if abs(weights.sum() - 1.0) < 1e-12 else found


def _plain(data: Any) -> Any:
    """Turn numpy arrays and numbers at any depth into what JSON knows."""
    if isinstance(data, Mapping):
        return {str(k): _plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(v) for v in data]
    return data.tolist() if isinstance(data, (np.ndarray, np.generic)) else data
