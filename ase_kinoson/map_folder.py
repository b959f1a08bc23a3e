"""The folder of a composition map: what a killed run leaves for the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError
from ase_kinoson.map_point import MapPoint, MapSettings, PointTask, probe, same_rates
from ase_kinoson.seals import read_json_file, seal, unsealed
from ase_kinoson.whole_files import remove_leftovers, replace_file

__all__ = ["FORMAT", "MapFolder", "about_map", "read_json", "write_json"]

FORMAT = "ase_kinoson.composition_map/1"


def about_map(jumps: JumpNetwork, settings: MapSettings, seed: int) -> dict[str, Any]:
    """What must be the same for points of one folder; the source is known by its rates, point by point."""
    return {
        "format": FORMAT,
        "jumps": jumps.fingerprint,
        "supercell": jumps.supercell.matrix.tolist(),
        "seed": int(seed),
        **asdict(settings),
    }


class MapFolder:
    """A folder with one file per point, and one that says of which map.

    Parameters
    ----------
    folder
        Made if it is not there.
    about
        See :func:`about_map`.
    jumps
        They know what they were called before.

    Raises
    ------
    KinosonError
        If the folder holds points of another map.
    """

    def __init__(self, folder: Path, about: dict[str, Any], jumps: JumpNetwork | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        file = folder / "map.json"
        if not file.is_file():
            write_json(file, about)
            return
        there = read_json(file)
        if jumps is not None and jumps.goes_by(there.get("jumps")):
            about = {**about, "jumps": there["jumps"]}
        other = [k for k in about if there.get(k) != about[k]]
        if other:
            raise KinosonError(
                f"the folder {folder} holds points of another map: {other[0]} is {there.get(other[0])!r} there and "
                f"{about[other[0]]!r} here; expected the same; use another folder, or delete this one"
            )

    def _file(self, task: PointTask) -> Path:
        name = "-".join(f"{s}{100 * x:.10g}" for s, x in task.fractions if x > 0)
        return self.folder / f"{name}-{task.temperature_K!r}K.json"

    def read(self, task: PointTask) -> MapPoint | None:
        """A point that is there, if it is the one that is asked for.

        Raises
        ------
        KinosonError
            If the file is damaged, or of another lattice constant or other rates.
        """
        file = self._file(task)
        if not file.is_file():
            return None
        try:
            point = MapPoint.from_dict(read_json(file))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KinosonError(f"{file} is no whole point ({error}); expected a file of a map; delete it") from error
        if abs(point.lattice_constant - task.lattice_constant) > 1e-9:
            raise KinosonError(
                f"{file} holds a lattice constant of {point.lattice_constant:.6g} Å; expected "
                f"{task.lattice_constant:.6g} Å as now asked for; use another folder, or delete this file"
            )
        if not same_rates(point.probe, probe(task)):
            raise KinosonError(
                f"{file} was computed with a source of other rates; expected those of the source now given; use "
                "another folder, or delete this one"
            )
        # a map that had fewer species knows nothing of the others
        return replace(point, composition=dict(task.fractions))

    def write(self, task: PointTask, point: MapPoint) -> None:
        """Keep a point, in one step."""
        write_json(self._file(task), point.as_dict())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file in one step."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(seal(data), indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that :func:`write_json` wrote."""
    try:
        data = read_json_file(path)
    except (OSError, ValueError) as error:
        raise KinosonError(f"{path} is no readable JSON ({error}); expected a file of a map; delete it") from error
    if not isinstance(data, dict):
        raise KinosonError(f"{path} holds something else; expected a file of a map; delete it")
    wrong = unsealed(data)
    if wrong:
        raise KinosonError(f"{path}: {wrong}; expected a file of a map as it was written; delete it")
    return {key: value for key, value in data.items() if key not in ("seal", "digest")}
