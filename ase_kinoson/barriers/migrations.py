"""How files of older layouts become files of this one.

``MIGRATIONS`` has one entry per kind of file and version of its layout: a function that takes the parts of the file as
that version wrote them and returns those of the next version. Files are migrated in memory as they are read and stay
as they are on the disk; stores of barriers, which others may be writing, are migrated by ``ase-kinoson upgrade`` only
(:mod:`ase_kinoson.barriers.store_upgrade`).

================================  =======  ==========================================================================
kind                              version  what its successor changed
================================  =======  ==========================================================================
``ase_kinoson.BarrierModel``      1        filters fall off with the distance; energies may have a network
``ase_kinoson.Relaxation``        1        other forms than the network, learned closures
``ase_kinoson barrier store``     1        one name per row, so that nothing can be there twice
================================  =======  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

__all__ = ["MIGRATIONS", "NoMigrationError", "migrate"]

Model = tuple[dict[str, Any], bytes]


class NoMigrationError(LookupError):
    """There is no way from the version that was found to the one that is wanted."""


def migrate(kind: str, found: Any, wanted: int, parts: Any) -> Any:
    """Bring the parts of a file to the wanted version of its layout, one version after the other.

    Parameters
    ----------
    kind
        Of the file; see :data:`MIGRATIONS`.
    found
        Version of its layout.
    wanted
        Version that is wanted.
    parts
        What the first function of the way takes.

    Raises
    ------
    NoMigrationError
        If a step is not known.
    """
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= wanted:
        raise NoMigrationError(f"{kind}: no way from version {found!r} to {wanted}")
    for version in range(found, wanted):
        step = MIGRATIONS.get((kind, version))
        if step is None:
            raise NoMigrationError(f"{kind}: no way from version {version} to {version + 1}")
        parts = step(parts)
    return parts


def _model_1(parts: Model) -> Model:
    """Filters were not scaled with the distance: divided by the scale, they do what they did."""
    from ase_kinoson.barriers.invariant import DECAY
    from ase_kinoson.barriers.model_file import alloy_from_dict, network_from_rows, refuse_gigantic
    from ase_kinoson.crystal.environment import JumpEnvironment
    from ase_kinoson.crystal.supercell import Supercell

    about, weights = parts
    arrays = load_tensors(weights)
    alloy = alloy_from_dict(about["alloy"])
    refuse_gigantic(alloy, about["supercell"], about["environment_cutoff"])
    cell = Supercell(alloy, np.array(about["supercell"], dtype=np.int64))
    reach = JumpEnvironment.build(network_from_rows(cell, about["jumps"]), cutoff=about["environment_cutoff"])
    for label, distances in enumerate(reach.distances):
        name = f"kra.{label}.filter"
        if name in arrays and len(distances):
            fall = (distances / distances.min()) ** -DECAY
            arrays[name] = np.ascontiguousarray(arrays[name] / fall[:, None, None])
    return {**about, "version": 2, "carrier": None}, save_tensors(arrays)


def _relaxation_1(parts: Model) -> Model:
    """There was one form and one closure, and the weights were those of the field alone."""
    about, weights = parts
    arrays = {f"field.{name}": array for name, array in load_tensors(weights).items()}
    new = {"version": 2, "form": "network", "closure": "exact", "gates": 0, "scales": None}
    return {**about, **new}, save_tensors(arrays)


MIGRATIONS: dict[tuple[str, int], Callable[[Any], Any]] = {
    ("ase_kinoson.BarrierModel", 1): _model_1,
    ("ase_kinoson.Relaxation", 1): _relaxation_1,
}
"""By kind and version of the layout that is left behind."""
