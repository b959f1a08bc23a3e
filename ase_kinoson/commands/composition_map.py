"""``ase-kinoson map``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_kinoson.commands.common import add_study_file, add_workers, clean_errors, table
from ase_kinoson.errors import KinosonError

if TYPE_CHECKING:
    from ase_kinoson.composition_maps import CompositionMap


class CLICommand:
    """Compute diffusion coefficients over all compositions of the alloy, from one fitted barrier model.

    Alloy, cell, jumps, temperatures and attempt frequency are those of the study file; the composition is replaced at
    every point. The model must have been fitted on several compositions of this alloy (with_composition). Points are
    kept in DIR; run the same command again to go on.

    Example:

      ase-kinoson map study.toml --model cuni --out map --lattice-constants Cu=3.59 Ni=3.49

    Then DIR/map.csv has one row per point, with units and errors; CompositionMap.load("map/map.json") reads all of it.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        add_study_file(parser)
        parser.add_argument("--model", metavar="FILE", required=True, help="barrier model, without its suffix")
        parser.add_argument(
            "--step",
            type=float,
            metavar="X",
            default=0.1,
            help="step of the fractions, 1 over a whole number (default: 0.1)",
        )
        parser.add_argument(
            "--lattice-constants",
            nargs="+",
            metavar="SYMBOL=A",
            help="of the pure species, Å, mixed by Vegard's rule (default: that of the study everywhere)",
        )
        parser.add_argument("--out", metavar="DIR", help="output folder (default: NAME-map beside the study)")
        parser.add_argument(
            "--limit",
            type=float,
            metavar="P",
            help="largest distance from the compositions fitted, at.%% (default: 10)",
        )
        parser.add_argument(
            "--effort",
            nargs="+",
            metavar="NAME=N",
            help="effort per point, the numbers of MapSettings: n_chains, n_jumps, … (default: its own)",
        )
        parser.add_argument("--seed", type=int, metavar="N", default=0, help="seed of all points (default: 0)")
        add_workers(parser)
        parser.add_argument("--quiet", action="store_true", help="no progress bar, results only")

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        with clean_errors(args):
            lengths = _pairs("--lattice-constants", args.lattice_constants, float)
            effort = _pairs("--effort", args.effort, int)
            found, folder = _compute(args, lengths, effort)
            rows = []
            for p in found.points:
                x = " ".join(f"{s}{v:.3g}" for s, v in p.composition.items() if v > 0)
                q = p.vacancy_diffusivity
                rows.append((f"{p.temperature_K:g}", x, f"{q.value:.3e} ± {q.error:.1e}", q.kind))
            print(table(("T (K)", "composition", "D_v (m²/s)", "kind"), rows))
            print(found)
            found.write_csv(folder / "map.csv")
            found.save(folder / "map.json")
            print(f"written: {folder / 'map.csv'}, map.json")


def _compute(args: Namespace, lengths: dict[str, Any], effort: dict[str, Any]) -> tuple[CompositionMap, Path]:
    from dataclasses import fields
    from functools import partial

    from ase_kinoson.barriers.composition_range import DEFAULT_LIMIT
    from ase_kinoson.barriers.learned import BarrierModel
    from ase_kinoson.composition import composition_grid
    from ase_kinoson.composition_maps import MapSettings, composition_map
    from ase_kinoson.crystal.sublattice import VACANCY
    from ase_kinoson.stages import Workers
    from ase_kinoson.study import Study

    known = [f.name for f in fields(MapSettings) if isinstance(f.default, int)]
    if unknown := sorted(set(effort) - set(known)):
        raise KinosonError(f"found --effort {unknown[0]}; expected one of {', '.join(known)}; correct the name")
    study = Study.from_toml(args.study, workers=args.workers)
    mobile = [s for s in study.alloy.sublattices if s.mobile]
    species = [a for s in mobile for a in s.species if a != VACANCY]
    model = BarrierModel.load(args.model)
    path = Path(args.study)
    folder = path.with_name(f"{path.stem}-map") if args.out is None else Path(args.out)
    if args.seed < 0:
        raise KinosonError(f"found --seed {args.seed}; expected 0 or more; correct it")
    settings = MapSettings(**{"attempt_frequency": study.settings.transport.attempt_frequency, **effort})
    jumps, grid = study.jumps, composition_grid(species, args.step)
    found = composition_map(
        jumps,
        model,
        grid,
        temperature_K=study.temperatures_K,
        lattice_constant=lengths or None,
        settings=settings,
        folder=folder / "points",
        executor=partial(Workers, study.n_workers) if study.n_workers > 1 else None,
        limit=DEFAULT_LIMIT if args.limit is None else args.limit,
        seed=args.seed,
        progress=not args.quiet,
    )
    return found, folder


def _pairs(option: str, words: list[str] | None, kind: type) -> dict[str, Any]:
    """NAME=VALUE words of an option."""
    found = {}
    for word in words or ():
        name, sign, value = word.partition("=")
        try:
            if not (name and sign):
                raise ValueError
            found[name] = kind(value)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise KinosonError(f"found {option} {word!r}; expected NAME=VALUE with {what}; correct it") from None
    return found
