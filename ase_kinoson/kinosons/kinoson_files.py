"""Kinosons in files, as they come from a stream of states, and their density."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.resampling import standard_error
from ase_kinoson.kinosons.group_sums import MAX_GROUPS, GroupSums
from ase_kinoson.kinosons.jump_classes import Histogram
from ase_kinoson.kinosons.statistics import rows_of_sums
from ase_kinoson.kinosons.table import KinosonTable
from ase_kinoson.npz import ABOUT as MEMBER
from ase_kinoson.npz import DAMAGED, read_npz, unseal, write_npz
from ase_kinoson.seals import other_layout, read_json_file, seal, unsealed
from ase_kinoson.whole_files import remove_leftovers, replace_file

__all__ = ["kinoson_histogram", "read_kinosons"]

FORMAT = "ase_kinoson.kinosons/1"
ABOUT = "kinosons.json"


def empty_folder(where: str | Path) -> Path:
    """Make a folder for kinosons; its path is absolute, since workers may stand elsewhere.

    Raises
    ------
    KinosonError
        If it holds kinosons already.
    """
    folder = Path(where).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if any(folder.glob("kinosons*")):
        raise KinosonError(
            f"found kinosons in {folder} already; expected an empty folder; take another one, or delete it"
        )
    return folder


def write_table(folder: Path, table: KinosonTable, chunk: int, piece: int) -> None:
    """Write a table; the weights in it have no norm yet."""
    columns: dict[str, Any] = {**table.columns, "jump": table["jump"].astype(np.int16)}
    with replace_file(folder / f"kinosons-{chunk:06d}-{piece:04d}.npz") as temporary:
        write_npz(temporary, {"format": FORMAT, "chunk": chunk, "piece": piece}, columns)


def close_folder(folder: Path, *, weight: float, files: int, units: Mapping[str, str]) -> None:
    """Say how many files there are and what their weights sum to; a folder without this is not whole."""
    about = seal({"format": FORMAT, "weight": weight, "files": files, "units": dict(units)})
    with replace_file(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_kinosons(folder: str | Path) -> Iterator[KinosonTable]:
    """Read the kinosons that :func:`stream_transport` wrote, one table at a time.

    Parameters
    ----------
    folder
        The folder.

    Yields
    ------
    KinosonTable
        Weights of all states sum to 1: the sum of weight times column over all tables is the coefficient.

    Raises
    ------
    KinosonError
        If the folder holds no kinosons, or not all of them.
    """
    folder = Path(folder)
    try:
        about = read_json_file(folder / ABOUT)
        wrong = other_layout(about, FORMAT) or unsealed(about)
        if wrong:
            raise ValueError(f"{ABOUT}: {wrong}")
        weight, files, units = float(about["weight"]), int(about["files"]), dict(about["units"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise KinosonError(
            f"found no whole set of kinosons in {folder} ({error}); expected what stream_transport() writes; evaluate "
            "the states again"
        ) from error
    found = sorted(folder.glob("kinosons-*.npz"))
    if len(found) != files:
        raise KinosonError(
            f"found {len(found)} files of kinosons in {folder}; expected {files}; evaluate the states again"
        )
    for file in found:
        try:
            columns = _read_table(file)
            columns["weight"] = columns["weight"] / weight
        except DAMAGED as error:
            raise KinosonError(f"{file} is damaged ({error}); expected a whole file; evaluate again") from error
        yield KinosonTable(columns, units)


def _read_table(file: Path) -> dict[str, Any]:
    """Columns of one file; those of the first versions hold no description."""
    columns = read_npz(file)
    if MEMBER not in columns:
        return dict(columns)
    about, columns = unseal(columns, layout=lambda found: other_layout(found, FORMAT))
    name = f"kinosons-{int(about['chunk']):06d}-{int(about['piece']):04d}.npz"
    if name != file.name:
        raise ValueError(f"it was written as {name}")
    return dict(columns)


def kinoson_histogram(
    tables: Iterable[KinosonTable],
    bins: ArrayLike,
    *,
    quantity: str | None = None,
    over: str = "barrier",
    max_groups: int = MAX_GROUPS,
    n_resamples: int = 400,
    seed: int = 0,
) -> Histogram:
    """Density of kinosons of more jumps than fit into memory: what ``KinosonDensity.over_barrier`` gives.

    Parameters
    ----------
    tables : iterable of KinosonTable
        For example :func:`read_kinosons`.
    bins : array_like, shape (n + 1,)
        Edges, in eV for barriers and Å for displacements.
    quantity
        ``"vacancy"`` (default; ``"carrier"`` for an interstitial), ``"Cu"`` for Λ_aa of a species, ``"tracer_Cu"`` for
        Λ*_a.
    over
        ``"barrier"`` or ``"displacement"``.
    max_groups, n_resamples, seed
        As in :func:`stream_transport`.

    Raises
    ------
    KinosonError
        If there are no rows, or a column is missing.
    """
    edges = np.asarray(bins, dtype=float)
    n = len(edges) - 1
    labels = {"barrier": "barrier (eV)", "displacement": "|δx + Δy| of the carrier (Å)"}
    if over not in labels or n < 1 or not np.all(np.diff(edges) > 0):
        raise KinosonError(
            f"found over={over!r} and {len(edges)} edges; expected one of {sorted(labels)} and edges that rise; "
            "correct them"
        )
    names: list[str] = []
    sums, counts, weight = GroupSums(max_groups), np.zeros(n), 0.0
    most = 0
    for table in tables:
        name = quantity or ("vacancy" if "kinoson_vacancy" in table.columns else "carrier")
        name = name if name in table.columns else f"kinoson_{name}"
        if name not in table.columns:
            raise KinosonError(f"found quantity {quantity!r}; expected a column of {list(table.columns)}; choose one")
        if not most:  # species come in any order; each has its place from the first table on
            names = [c.removeprefix("tracer_") for c in table.columns if c.startswith("tracer_")]
            most = len(names)
        x, part = table[over], table["weight"] * table[name]
        place = np.searchsorted(edges, x, side="right") - 1
        place[x == edges[-1]] = n - 1
        inside = np.isfinite(x) & (part > 0) & (place >= 0) & (place < n)
        who = np.searchsorted(np.array(sorted(names)), table["species"].astype(str))
        cell = np.where(inside, who * n + place, most * n)
        groups, member = np.unique(table["group"], return_inverse=True)
        width = most * n + 1
        flat = np.bincount(member * width + cell, weights=part, minlength=len(groups) * width)
        own = np.bincount(member, weights=table["weight"])
        sums.add(groups, np.column_stack([own, flat.reshape(len(groups), width)]))
        known = np.isfinite(x)
        counts += np.histogram(x[known], bins=edges, weights=table["weight"][known])[0]
        weight += float(table["weight"].sum())
    if not most:
        raise KinosonError("found no kinosons; expected at least one table; evaluate states with kinosons= first")
    rows, has_errors = rows_of_sums(sums.values[:, 0], sums.values[:, 1:], n_resamples=n_resamples, seed=seed)
    rows = (rows / rows.sum(axis=1, keepdims=True))[:, :-1].reshape(-1, most, n)

    def spread(x: NDArray) -> NDArray[np.float64]:
        return standard_error(x[1:]) if has_errors else np.full(x.shape[1:], np.nan)

    species = sorted(names)
    met = [i for i in range(most) if rows[0, i].any()]
    return Histogram(
        edges,
        {species[i]: rows[0, i] for i in met},
        labels[over],
        {species[i]: spread(rows[:, i]) for i in met},
        spread(rows.sum(axis=1)),
        counts / weight,
    )
