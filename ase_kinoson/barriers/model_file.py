"""Model files: weights beside a JSON file that holds all it takes to rebuild lattice and jumps."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load as load_tensors

from ase_kinoson.barriers.migrations import NoMigrationError, migrate
from ase_kinoson.crystal.alloy import Alloy, Sublattice
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.crystal.symmetry import PairOrbits
from ase_kinoson.errors import ModelError
from ase_kinoson.seals import newer, package_version, read_json_file, seal, unsealed
from ase_kinoson.whole_files import replace_file

__all__ = [
    "alloy_from_dict",
    "alloy_to_dict",
    "network_from_rows",
    "network_to_rows",
    "on_lattice",
    "order_of_jumps",
    "read_model",
    "read_tensors",
    "refuse_gigantic",
    "same_lattice",
    "write_model",
]

MAX_SITES = 2_000_000
MAX_NEAR = 20_000
MAX_BASIS = 5_000
MAX_REACH = 1_000
"""What a file may describe: sites of the supercell, sites within a cutoff, sites of the primitive cell, and cells that
a jump may cross. Far beyond what was ever fitted, and far below what takes minutes or all memory."""


def same_lattice(own: Alloy, other: Alloy) -> float:
    """Refuse a lattice on which a model fitted on ``own`` does not work; compositions may differ.

    The lattice constant may differ too: a model knows which sites are neighbours, not how far they are.

    Returns
    -------
    float
        Lattice constant of ``other`` in units of that of ``own``; exactly 1 where they agree to 1e-4 Å.
    """
    scale = 1.0
    if own.cell.shape == other.cell.shape and np.array_equal(own.pbc, other.pbc):
        # two-dimensional lattices have a third vector that means nothing
        lengths = [np.linalg.norm(a.cell[a.pbc]) for a in (own, other)]
        if not np.allclose(own.cell[own.pbc], other.cell[own.pbc], atol=1e-4):
            scale = float(lengths[1] / lengths[0])
    same = (
        own.scaled_positions.shape == other.scaled_positions.shape
        and np.array_equal(own.pbc, other.pbc)
        and np.allclose(own.cell[own.pbc] * scale, other.cell[own.pbc], atol=1e-4)
        and np.allclose(own.scaled_positions, other.scaled_positions, atol=1e-5)
        and np.array_equal(own.mobile_basis, other.mobile_basis)
        and np.array_equal(own.varying_basis, other.varying_basis)
        and np.array_equal(own.space_group.site_orbits(), other.space_group.site_orbits())
        and own.space_group.n_ops == other.space_group.n_ops
    )
    if not same:
        raise ModelError(
            f"the supercell has another lattice ({other.n_basis} sites per primitive cell, "
            f"{abs(np.linalg.det(other.cell)):.4f} Å³) than "
            f"the model ({own.n_basis} sites, {abs(np.linalg.det(own.cell)):.4f} Å³); expected the same "
            f"lattice and sublattices up to one factor of all lengths; fit a "
            "model for it"
        )
    return scale


def on_lattice(network: JumpNetwork, cell: Supercell) -> JumpNetwork:
    """The same jumps, in the same order, on a supercell of the same lattice with any lattice constant."""
    scale = same_lattice(network.supercell.alloy, cell.alloy)
    if scale != 1.0:
        network = replace(
            network,
            vectors=network.vectors * scale,
            pairs=replace(network.pairs, vector=network.pairs.vector * scale),
        )
    network = replace(network, supercell=cell)
    network._check_images()
    return network


def order_of_jumps(own: JumpNetwork, other: JumpNetwork) -> NDArray[np.int64] | None:
    """Place of every jump of ``own`` among those of ``other``, shape (n_basis, J); None if they are other jumps.

    Lists are sorted by length, and jumps of equal length may come in another order at another lattice constant.
    """
    if own.exists.shape != other.exists.shape or not np.array_equal(own.exists, other.exists):
        return None
    order = np.tile(np.arange(own.n_jumps), (len(own.exists), 1))
    for b in range(len(order)):
        rows = [np.column_stack([n.target_basis[b], n.target_cell[b]])[n.exists[b]].tolist() for n in (own, other)]
        places = {tuple(row): k for k, row in zip(np.flatnonzero(other.exists[b]), rows[1], strict=True)}
        found = [places.get(tuple(row), -1) for row in rows[0]]
        if -1 in found:
            return None
        order[b, own.exists[b]] = found
    return order


def alloy_to_dict(alloy: Alloy) -> dict[str, Any]:
    """All fields of an alloy as JSON types."""
    return {
        "cell": alloy.cell.tolist(),
        "scaled_positions": alloy.scaled_positions.tolist(),
        "site_sublattice": alloy.site_sublattice.tolist(),
        "sublattices": [
            [s.name, [list(x) for x in s.composition], s.mobile, s.interstitial] for s in alloy.sublattices
        ],
        "conventional": alloy.conventional.tolist(),
        "pbc": alloy.pbc.tolist(),
    }


def alloy_from_dict(data: Mapping[str, Any]) -> Alloy:
    """Undo :func:`alloy_to_dict`."""
    if len(data["scaled_positions"]) > MAX_BASIS:
        raise ValueError(f"{len(data['scaled_positions'])} sites in the primitive cell; at most {MAX_BASIS} are read")
    subs = tuple(
        Sublattice(name, tuple((str(s), float(x)) for s, x in composition), mobile=mobile, interstitial=interstitial)
        for name, composition, mobile, interstitial in data["sublattices"]
    )
    return Alloy(
        np.array(data["cell"], dtype=float),
        np.array(data["scaled_positions"], dtype=float),
        np.array(data["site_sublattice"], dtype=np.int64),
        subs,
        np.array(data["conventional"], dtype=np.int64),
        np.array(data["pbc"], dtype=bool),
    )


def network_to_rows(network: JumpNetwork) -> list[list[int]]:
    """List (basis, target basis, target cell) of every jump."""
    found = np.argwhere(network.exists)
    return [[int(b), int(network.target_basis[b, k]), *network.target_cell[b, k].tolist()] for b, k in found]


def network_from_rows(cell: Supercell, rows: Sequence[Sequence[int]]) -> JumpNetwork:
    """The network whose jumps are the listed (basis, target basis, target cell)."""
    alloy = cell.alloy
    wanted = np.array(rows, dtype=np.int64).reshape(-1, 5)
    if wanted.size and not (wanted[:, :2].min() >= 0 and wanted[:, :2].max() < alloy.n_basis):
        raise ModelError(
            f"found jumps between sites up to {wanted[:, :2].max()} of the primitive cell; expected 0 to "
            f"{alloy.n_basis - 1}; fit the model again"
        )
    if not len(wanted) or np.abs(wanted[:, 2:]).max() > MAX_REACH:
        raise ModelError(
            f"found {len(wanted)} jumps, some over more than {MAX_REACH} cells or none at all; expected jumps to near "
            "sites; fit the model again"
        )
    offsets = (alloy.scaled_positions[wanted[:, 1]] + wanted[:, 2:] - alloy.scaled_positions[wanted[:, 0]]) @ alloy.cell
    reach = float(np.linalg.norm(offsets, axis=1).max()) + 1e-4
    refuse_gigantic(alloy, cell.matrix, reach)
    pairs = PairOrbits.find(
        alloy.space_group, alloy.cell, alloy.scaled_positions, alloy.pbc, reach, include=alloy.mobile_basis
    )
    known = {tuple(row) for row in wanted.tolist()}
    found = zip(pairs.start.tolist(), pairs.partner.tolist(), pairs.cell.tolist(), strict=True)
    keep = [i for i, (a, b, n) in enumerate(found) if (a, b, *n) in known]
    if len(keep) != len(known):
        raise ModelError(
            f"found {len(keep)} of {len(known)} jumps of the model on its lattice; expected all; fit the model again"
        )
    return JumpNetwork._from_rows(cell, pairs, np.array(keep))


def _files(path: str | Path) -> tuple[Path, Path]:
    """Names of the two files, whether or not ``path`` ends like one of them."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    return stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.safetensors")


def write_model(path: str | Path, about: Mapping[str, Any], weights: bytes) -> None:
    """Write both files; the JSON file names the hash of the weights.

    The new weights lie beside the old ones until the JSON file is replaced, which is the one step that counts: killed
    at any moment, there is the old model or the new one.
    """
    about_file, weights_file = _files(path)
    digest = hashlib.sha256(weights).hexdigest()
    text = json.dumps(seal({**about, "written_by": package_version(), "weights_sha256": digest}), indent=1)
    waiting = _waiting(weights_file)
    for file, content in ((waiting, weights), (about_file, text.encode())):
        with replace_file(file) as temporary:
            temporary.write_bytes(content)
    os.replace(waiting, weights_file.resolve())


def _waiting(weights_file: Path) -> Path:
    """New weights whose JSON file may not be there yet."""
    there = weights_file.resolve()  # the weights may be a link
    return there.with_name(f"{there.name}.new")


def _weights_of(weights_file: Path, digest: object) -> bytes | None:
    """The weights with this hash: from their file, or from beside it where a process was killed in between."""
    for file in (weights_file, _waiting(weights_file), weights_file):  # the last: moved while we looked
        if file.is_file():
            weights = file.read_bytes()
            if hashlib.sha256(weights).hexdigest() == digest:
                return weights
    return None


def read_model(path: str | Path, kind: str, version: int) -> tuple[dict[str, Any], bytes]:
    """Read both files and check that they are whole and belong together; older layouts are brought to this one.

    Raises
    ------
    ModelError
        Says which file is missing or damaged, or which version of the package reads it.
    """
    about_file, weights_file = _files(path)
    for file in (about_file, weights_file):
        if not (file.is_file() or (file == weights_file and _waiting(file).is_file())):
            raise ModelError(f"found no file {file}; expected a pair .json and .safetensors; check the path")
    advice = "copy both files again or fit the model again"
    try:
        about = read_json_file(about_file)
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{about_file} is no readable JSON ({error}); expected a complete model file; {advice}"
        ) from error
    if not isinstance(about, dict) or about.get("format") != kind:
        raise ModelError(f"{about_file} holds something else; expected the format {kind!r}; {advice}")
    found = about.get("version")
    wrong = newer(found, version, about)
    if wrong:
        raise ModelError(f"{about_file} {wrong}, or {advice}")
    wrong = unsealed(about)
    if wrong:
        raise ModelError(f"{about_file}: {wrong}; expected what was saved; {advice}")
    weights = _weights_of(weights_file, about.get("weights_sha256"))
    if weights is None:
        raise ModelError(
            f"{weights_file} does not match {about_file.name} (truncated or of another model); expected a "
            f"pair; {advice}"
        )
    if found == version:
        return about, weights
    try:
        return migrate(kind, found, version, (about, weights))
    except NoMigrationError:
        raise ModelError(
            f"{about_file} has version {str(found)[:20]!r} of its layout; expected 1 to {version}; {advice}"
        ) from None
    except Exception as error:
        raise ModelError(
            f"{about_file} has version {found} and is incomplete ({type(error).__name__}: {error}); expected a "
            f"complete model file; {advice}"
        ) from error


def read_tensors(path: str | Path, weights: bytes) -> dict[str, NDArray]:
    """Arrays of a weights file, none of which may hold anything but finite numbers.

    Raises
    ------
    ModelError
        If the file is no whole safetensors file.
    """
    try:
        length = int.from_bytes(weights[:8], "little")
        if len(weights) < 8 or length > len(weights) - 8:
            raise ValueError(f"it announces a header of {length} bytes and holds {max(0, len(weights) - 8)}")
        arrays = load_tensors(weights)
        bad = [k for k, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        if bad:
            raise ValueError(f"{bad[0][:60]!r} holds numbers that are not finite")
        return arrays
    except Exception as error:  # of the library, which names its own in no public module
        raise ModelError(
            f"{_files(path)[1]} is no whole file of weights ({type(error).__name__}: {error}); expected what was "
            "saved; copy both files again or fit the model again"
        ) from error


def refuse_gigantic(alloy: Alloy, matrix: ArrayLike, *reaches: float | None) -> None:
    """Refuse a description of a lattice that no computer could hold, before memory is taken for it.

    Raises
    ------
    ValueError
        If the supercell has more than ``MAX_SITES`` sites, or a reach (Å) more than ``MAX_NEAR`` sites within it.
    """
    cells = np.array(matrix, dtype=float)
    if cells.shape != (3, 3) or not np.isfinite(cells).all() or np.abs(cells).max(initial=0) > MAX_SITES:
        raise ValueError("the supercell is no matrix of nine small integers")
    n_sites = abs(float(np.linalg.det(cells))) * alloy.n_basis
    if n_sites > MAX_SITES:
        raise ValueError(f"the supercell has {n_sites:.3g} sites; at most {MAX_SITES} are read")
    spacing = 1.0 / np.linalg.norm(np.linalg.inv(alloy.cell), axis=0)
    for reach in reaches:
        if reach is None:
            continue
        if isinstance(reach, bool) or not isinstance(reach, int | float) or not 0.0 <= reach < np.inf:
            raise ValueError(f"a reach is {str(reach)[:40]}; expected a length in Å")
        near = float(np.prod((2.0 * reach / spacing + 1.0)[alloy.pbc])) * alloy.n_basis
        if near > MAX_NEAR:
            raise ValueError(f"a reach of {reach:.4g} Å holds about {near:.3g} sites; at most {MAX_NEAR} are read")
