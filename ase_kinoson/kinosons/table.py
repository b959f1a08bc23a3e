"""The table of kinosons: one row per jump of every state."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.kinosons.functional import JumpTerms
from ase_kinoson.whole_files import replace_file

if TYPE_CHECKING:
    import pandas

__all__ = ["KinosonTable"]


@dataclass(frozen=True, eq=False)
class KinosonTable:
    """Kinosons and what belongs to them, one row per (state, jump).

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (n_rows,) each
        ``state``, ``jump``: indices. ``weight``: of the state (sum over states 1). ``group``: states resampled
        together. ``species``: symbol of the moving atom.
        ``barrier``, ``delta_e`` (eV; NaN for rate models). ``state_energy`` (eV, NaN if unknown). ``rate`` (s⁻¹).
        ``uncorrelated``: W|dx|²/(2d). ``kinoson_vacancy`` (or ``kinoson_carrier``), ``kinoson_<species>``,
        ``tracer_<species>``:
        terms of Λ_vv, Λ_aa and Λ*_a, Å²/s. ``displacement``: |δx + Δy| of the carrier, Å.
        A coefficient is the sum over rows of weight times column.
    units : mapping of str to str
    """

    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.columns["state"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @classmethod
    def build(
        cls,
        states: States,
        network: JumpNetwork,
        *,
        rates: NDArray,
        energies: JumpEnergies | None,
        terms: JumpTerms,
        state_energies: NDArray | None = None,
    ) -> KinosonTable:
        """Collect the terms of all existing jumps.

        Parameters
        ----------
        states, network
            States and their jumps.
        rates : ndarray, shape (n_states, J)
            s⁻¹.
        energies
            Barriers, if there are any.
        terms
            Relaxed displacements.
        state_energies : ndarray, shape (n_states,), optional
            Energies of the states, eV.
        """
        d2 = 2.0 * network.dimension
        moved = network.moving_species(states.occupations, states.carriers)
        rows, jumps = np.nonzero(moved >= 0)
        names = network.supercell.species
        w = rates[rows, jumps]
        carrier = -terms.displacement.sum(axis=2) if network.mechanism == "vacancy" else terms.displacement.sum(axis=2)
        along = network.projector  # only periodic directions count in the 1/(2d)
        carrier = carrier @ along
        length = np.linalg.norm(network.vectors[network.basis_of(states.carriers)] @ along, axis=-1)
        who = "vacancy" if network.mechanism == "vacancy" else "carrier"
        nan = np.full(len(rows), np.nan)
        columns: dict[str, NDArray[Any]] = {
            "state": rows,
            "jump": jumps,
            "weight": states.weights[rows],
            "group": states.groups[rows],
            "species": np.array(names)[moved[rows, jumps]],
            "barrier": energies.barrier[rows, jumps] if energies else nan,
            "delta_e": energies.delta_e[rows, jumps] if energies else nan,
            "state_energy": nan if state_energies is None else state_energies[rows],
            "rate": w,
            "uncorrelated": w * length[rows, jumps] ** 2 / d2,
            "displacement": np.linalg.norm(carrier[rows, jumps], axis=-1),
            f"kinoson_{who}": w * np.square(carrier[rows, jumps]).sum(-1) / d2,
        }
        units = {
            "weight": "1",
            "barrier": "eV",
            "delta_e": "eV",
            "state_energy": "eV",
            "rate": "1/s",
            "uncorrelated": "Å^2/s",
            "displacement": "Å",
            f"kinoson_{who}": "Å^2/s",
        }
        mobile = {s for sub in network.supercell.alloy.sublattices if sub.mobile for s in sub.species}
        for a, symbol in enumerate(names[1:]):
            if symbol not in mobile:
                continue
            columns[f"kinoson_{symbol}"] = w * np.square(terms.displacement[rows, jumps, a] @ along).sum(-1) / d2
            columns[f"tracer_{symbol}"] = w * np.einsum("nxy,xy->n", terms.tracer[rows, jumps, a], along) / d2
            units[f"kinoson_{symbol}"] = units[f"tracer_{symbol}"] = "Å^2/s"
        return cls(columns, units)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(dict(self.columns))

    def write_csv(self, path: str | Path) -> None:
        """Write comma-separated values; units are in the header as ``name [unit]``."""
        names = list(self.columns)
        header = [f"{n} [{self.units[n]}]" if self.units.get(n, "1") != "1" else n for n in names]
        with replace_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(header)
            plain = [self._text(self.columns[n]) for n in names]
            writer.writerows(zip(*plain, strict=True))

    @staticmethod
    def _text(column: NDArray[Any]) -> list[Any]:
        if column.dtype.kind == "f":
            return [f"{x:.8g}" for x in column]
        return column.tolist()
