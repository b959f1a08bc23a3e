"""Reference barriers in one small file: to share, to keep beside a paper, to learn from without the potential.

One NumPy file without pickles; lattice and jumps are part of it. Energies of ends and saddles are kept to 1e-6 eV, and
barriers follow from them, so that forward minus reverse barriers stay the energy differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ase_kinoson.barriers.model_file import alloy_from_dict, alloy_to_dict, network_from_rows, network_to_rows
from ase_kinoson.barriers.reference import Barriers, same_lattice
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError
from ase_kinoson.npz import DAMAGED, read_sealed, write_npz
from ase_kinoson.seals import newer, package_version
from ase_kinoson.whole_files import replace_file

__all__ = ["load_barriers", "save_barriers"]

FORMAT = "ase_kinoson barriers"
VERSION = 1
DIGITS = 6


def save_barriers(
    path: str | Path, sets: Barriers | Mapping[str, Barriers], *, about: Mapping[str, Any] | None = None
) -> None:
    """Write barriers with their states, lattice and jumps into one compressed file, in one step.

    Parameters
    ----------
    path
        File to write; ``.npz`` is usual.
    sets
        Barriers, or several named sets of the same jumps on the same supercell.
    about
        Where they come from (potential, reference, seed, versions): plain texts, numbers, lists and mappings.

    Raises
    ------
    BarrierError
        If there are no barriers, sets belong to different lattices, or the file cannot be written.
    """
    named = {"all": sets} if isinstance(sets, Barriers) else dict(sets)
    if not named:
        raise BarrierError("found no barriers to write; expected at least one set; compute some")
    first = next(iter(named.values()))
    head: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "alloy": alloy_to_dict(first.states.supercell.alloy),
        "written_by": package_version(),
        "matrix": np.asarray(first.states.supercell.matrix).tolist(),
        "jumps": network_to_rows(first.network),
        "species": list(first.states.supercell.species),
        "about": dict(about or {}),
        "sets": {},
    }
    arrays: dict[str, np.ndarray] = {}
    for name, barriers in named.items():
        same_lattice(barriers.states, first.network)
        states = barriers.states
        head["sets"][name] = {
            "ensemble": states.ensemble,
            "temperature_K": states.temperature_K,
            "source": states.source,
            "reasons": [[int(n), int(k), text] for (n, k), text in barriers.reasons.items()],
            "settings": {k: v for k, v in barriers.settings.items() if k != "store"},
        }
        arrays |= {
            f"{name}/occupations": states.occupations,
            f"{name}/carriers": states.carriers.astype(np.int32),
            f"{name}/weights": states.weights,
            f"{name}/groups": states.groups.astype(np.int32),
            f"{name}/energy_initial": barriers.energy_initial.round(DIGITS),
            f"{name}/energy_final": barriers.energy_final.round(DIGITS),
            # the saddle is stored, so that both barriers follow from rounded energies
            f"{name}/energy_saddle": (barriers.energy_initial[:, None] + barriers.barrier).round(DIGITS),
            f"{name}/force_calls": barriers.force_calls.astype(np.int32),
            f"{name}/fmax": barriers.fmax.astype(np.float32),
        }
        known = barriers.valid & np.isfinite(barriers.energy_initial[:, None] + barriers.energy_final)
        if (barriers.valid & ~known).any():  # barriers of which the energies of the ends are not known
            arrays |= {
                f"{name}/{key}": np.where(barriers.valid & ~known, values, np.nan).round(DIGITS)
                for key, values in (("barrier", barriers.barrier), ("reverse_barrier", barriers.reverse_barrier))
            }
        for key, words in (("status", barriers.status), ("descents", barriers.descents)):
            if words is not None:
                names, codes = np.unique(words, return_inverse=True)
                arrays |= {f"{name}/{key}": codes.reshape(words.shape).astype(np.int8), f"{name}/{key}_words": names}
        for key, values in (
            ("model_energies", states.model_energies),
            ("attempt_frequency", barriers.attempt_frequency),
            ("wall_s", None if barriers.wall_s is None else barriers.wall_s.astype(np.float32)),
        ):
            if values is not None:
                arrays[f"{name}/{key}"] = values
    path = Path(path)
    try:
        with replace_file(path) as temporary, open(temporary, "wb") as file:  # savez would add a suffix to a name
            write_npz(file, head, arrays, compress=True, name="head")
    except OSError as error:
        raise BarrierError(
            f"{path} cannot be written ({error}); expected an existing folder that is writable; create it or correct "
            "the path"
        ) from error


def load_barriers(path: str | Path, name: str | None = None) -> Barriers:
    """Read barriers that :func:`save_barriers` wrote.

    Parameters
    ----------
    path
        The file.
    name
        Which set; default: all sets joined (weights then say nothing: join sets of one ensemble only to average).

    Returns
    -------
    Barriers
        Their supercell is ``barriers.states.supercell``, their jumps ``barriers.network``; where they come from is
        ``barriers.settings["about"]``.

    Raises
    ------
    BarrierError
        If the file is missing, damaged, of another version, or has no such set.
    """
    path = Path(path)
    head, data = _read(path)
    sets = head["sets"]
    if name is not None and name not in sets:
        raise BarrierError(f"found the sets {', '.join(sets)} in {path.name}; expected {name!r}; choose one of them")
    try:
        cell = Supercell(alloy_from_dict(head["alloy"]), np.array(head["matrix"], dtype=np.int64))
        network = network_from_rows(cell, head["jumps"])
        if list(cell.species) != head["species"]:
            raise ValueError(f"species {head['species']} became {list(cell.species)}")
        parts = []
        for key in [name] if name is not None else sets:
            own, kept = {k.removeprefix(f"{key}/"): v for k, v in data.items() if k.startswith(f"{key}/")}, sets[key]
            states = States.from_occupations(
                cell,
                own["occupations"],
                carriers=own["carriers"],
                weights=own["weights"],
                groups=own["groups"],
                ensemble=kept["ensemble"],
                temperature_K=kept["temperature_K"],
                source=kept["source"],
                model_energies=own.get("model_energies"),
            )
            saddle, start, end = own["energy_saddle"], own["energy_initial"], own["energy_final"]
            status = own["status_words"][own["status"]]
            good = status == "ok"
            forward, backward = saddle - start[:, None], saddle - end
            if "barrier" in own:
                forward = np.where(np.isfinite(own["barrier"]), own["barrier"], forward)
                backward = np.where(np.isfinite(own["reverse_barrier"]), own["reverse_barrier"], backward)
            parts.append(
                Barriers.from_arrays(
                    states,
                    network,
                    np.where(good, forward, np.inf),
                    reverse_barrier=np.where(good, backward, np.inf),
                    energy_initial=start,
                    energy_final=end,
                    status=status,
                    reasons={(n, k): text for n, k, text in kept["reasons"]},
                    force_calls=own["force_calls"],
                    fmax=own["fmax"],
                    settings={**kept["settings"], "about": head["about"]},
                    attempt_frequency=own.get("attempt_frequency"),
                    descents=own["descents_words"][own["descents"]] if "descents" in own else None,
                    wall_s=own.get("wall_s"),
                )
            )
    except DAMAGED as error:
        raise BarrierError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected a complete archive of barriers; copy it "
            "again"
        ) from error
    return parts[0] if len(parts) == 1 else Barriers.concatenate(parts)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Head and arrays of an archive."""
    try:
        head, data = read_sealed(path, name="head", layout=_wrong_layout)
        dict(head["sets"])
    except FileNotFoundError:
        raise BarrierError(f"found no file {path}; expected an archive of barriers; check the path") from None
    except DAMAGED as error:
        raise BarrierError(
            f"{path} is no archive of barriers ({type(error).__name__}: {error}); expected a file of save_barriers; "
            "copy it again"
        ) from error
    return head, data


def _wrong_layout(head: Mapping[str, Any]) -> str:
    if head["format"] != FORMAT:
        return f"format {str(head['format'])[:60]!r}"
    version = head["version"]
    if version == VERSION:
        return ""
    return newer(version, VERSION, head) or f"has version {version!r} of its layout; expected {VERSION}"
