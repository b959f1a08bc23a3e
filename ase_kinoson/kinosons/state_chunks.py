"""Chunks of states: split, sampled one after the other, kept in files and read back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import IncompleteFiles, StatesError
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.npz import DAMAGED, read_sealed, write_npz
from ase_kinoson.seals import other_layout, read_json_file, seal, unsealed
from ase_kinoson.whole_files import remove_leftovers, replace_file

__all__ = ["Chunk", "read_states", "sample_chunks", "split_states", "with_total", "write_states"]

Chunk: TypeAlias = States | tuple[States, float]
"""States, or states and the sum of their weights in a unit common to all chunks."""

FORMAT = "ase_kinoson.states/1"
WHOLE = "states.json"


def with_total(chunk: Chunk) -> tuple[States, float]:
    """States of a chunk and the sum of their weights; as many as there are states where it is not given.

    Raises
    ------
    StatesError
        If it is no chunk, or the sum is no positive number.
    """
    states, total = chunk if isinstance(chunk, tuple) and len(chunk) == 2 else (chunk, None)
    if not isinstance(states, States):
        raise StatesError(
            f"found a chunk of type {type(chunk).__name__}; expected States, or a pair of States and the sum of their "
            "weights; yield one of these"
        )
    total = float(len(states)) if total is None else float(total)
    if not (np.isfinite(total) and total >= 0):
        raise StatesError(f"found a chunk whose weights sum to {total}; expected a number ≥ 0; correct it")
    return states, total


def split_states(states: States, size: int) -> Iterator[tuple[States, float]]:
    """Cut states into chunks that keep their weights.

    Parameters
    ----------
    states
        All of them.
    size
        States of a chunk.

    Yields
    ------
    (States, float)
        Chunks, and the weight of each (all together 1).
    """
    for begin in range(0, len(states), size):
        part = slice(begin, begin + size)
        if (total := float(states.weights[part].sum())) > 0:  # states without weight say nothing
            yield states[part], total


def sample_chunks(cell: Supercell, n: int, *, size: int = 20_000, seed: int = 0, **options: Any) -> Iterator[States]:
    """Sample states one chunk after the other; none of them is kept.

    Parameters
    ----------
    cell
        The supercell.
    n
        Number of all states.
    size
        States of a chunk. Each chunk has chains of its own: many states of a chunk take many sweeps of the same chains.
    seed
        Seeds of the chunks follow from it and their number, so that the first chunks of a longer run are the same.
    **options
        Those of :func:`sample_states`.

    Yields
    ------
    States
        With groups that differ from chunk to chunk.

    Raises
    ------
    StatesError
        If ``n`` or ``size`` is not positive.
    """
    if n < 1 or size < 1:
        raise StatesError(f"found n={n} and size={size}; expected at least 1 each; raise them")
    groups = 0
    for number, begin in enumerate(range(0, n, size)):
        own = int(np.random.SeedSequence([int(seed), number]).generate_state(1)[0])
        states = sample_states(cell, min(size, n - begin), seed=own, **options)
        yield replace(states, groups=states.groups + groups)
        groups += int(states.groups.max()) + 1


def write_states(folder: str | Path, chunks: Iterable[Chunk]) -> int:
    """Write chunks to files: one byte per site and 24 (with energies 32) per state.

    Parameters
    ----------
    folder
        Made if it is not there. Jobs that run side by side take one each.
    chunks
        As in :func:`stream_transport`.

    Returns
    -------
    int
        Number of states.

    Raises
    ------
    StatesError
        If the folder holds states already: what is longer would stick out from under what is new.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if any(folder.glob("states-*.npz")):
        raise StatesError(f"found states in {folder} already; expected an empty folder; take another one, or delete it")
    files = count = 0
    for number, chunk in enumerate(chunks):
        states, total = with_total(chunk)
        about = {
            "format": FORMAT,
            "supercell": states.supercell.fingerprint,
            "ensemble": states.ensemble,
            "temperature_K": states.temperature_K,
            "source": states.source,
            "reweighted": bool(states.report.get("reweighted")),
            "total": total,
            "chunk": number,
        }
        arrays = {name: getattr(states, name) for name in ("occupations", "carriers", "weights", "groups")}
        if states.model_energies is not None:
            arrays["model_energies"] = states.model_energies
        with replace_file(folder / f"states-{number:06d}.npz") as temporary:
            write_npz(temporary, about, arrays)
        files, count = number + 1, count + len(states)
    with replace_file(folder / WHOLE) as temporary:
        whole = seal({"format": FORMAT, "files": files, "states": count})
        temporary.write_text(json.dumps(whole), encoding="utf-8")
    return count


def _check_whole(folder: Path, n: int) -> None:
    """Compare the number of chunks with what the last file of :func:`write_states` says."""
    try:
        about = read_json_file(folder / WHOLE)
        wrong = other_layout(about, FORMAT) or unsealed(about)
        if wrong:
            raise ValueError(wrong)
        expected = about["files"]
        if not isinstance(expected, int):
            raise ValueError(f"its number of files is {expected!r:.40}")
    except FileNotFoundError:
        warnings.warn(
            IncompleteFiles(
                f"found {n} chunks of states in {folder} and no {WHOLE}, which is written last; expected it; the "
                "writing was interrupted, or was that of an older version",
                number=n,
                unit="files",
                advice="count the states, or write them again",
            ),
            stacklevel=3,
        )
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StatesError(f"{folder / WHOLE} is damaged ({error}); expected a whole file; write again") from error
    if n != expected:
        raise StatesError(f"found {n} chunks of states in {folder}; expected {expected}; write the states again")


def read_states(folder: str | Path, cell: Supercell) -> Iterator[tuple[States, float]]:
    """Read what :func:`write_states` wrote, one chunk at a time.

    Parameters
    ----------
    folder
        The folder.
    cell
        Supercell of the states.

    Yields
    ------
    (States, float)
        Chunks, and the sum of the weights of each.

    Raises
    ------
    StatesError
        If there are no chunks, some are missing, a file is damaged, or they were written for another supercell.

    Warns
    -----
    KinosonWarning
        If nothing says how many chunks there are: the process that wrote them was killed, or was of a version that did
        not say.
    """
    files = sorted(Path(folder).glob("states-*.npz"))
    if not files:
        raise StatesError(f"found no chunks of states in {folder}; expected states-000000.npz; write_states() first")
    _check_whole(Path(folder), len(files))
    for file in files:
        try:
            about, arrays = read_sealed(file, layout=lambda found: other_layout(found, FORMAT))
            if file.name != f"states-{int(about.get('chunk', file.stem.partition('-')[2])):06d}.npz":
                raise ValueError(f"it was written as chunk {about['chunk']}")
            if not cell.goes_by(about["supercell"]):
                raise StatesError(
                    f"the states in {file.name} were written for another supercell; expected {cell.n_sites} sites of "
                    "this alloy; use the supercell they were sampled on"
                )
            states = States(
                cell,
                **arrays,
                ensemble=about["ensemble"],
                temperature_K=about["temperature_K"],
                source=about["source"],
                report={"reweighted": True} if about["reweighted"] else {},
            )
            total = float(about["total"])
        except StatesError:
            raise
        except DAMAGED as error:
            raise StatesError(f"{file} is no whole chunk of states ({error}); expected one; write it again") from error
        yield states, total
