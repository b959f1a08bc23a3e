"""`composition_map`: diffusion coefficients over compositions, from one model of barriers.

Every point is a calculation of its own: its seed follows from its composition and temperature alone, so that it does
not matter in which order, by how many workers, or beside which other points it is computed.
"""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ase_kinoson.barriers.composition_range import DEFAULT_LIMIT, CompositionRange
from ase_kinoson.composition import Fractions, as_fractions, vegard, with_composition
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError, ManyWarnings
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.map_folder import FORMAT, MapFolder, about_map, read_json, write_json
from ase_kinoson.map_point import MapPoint, MapSettings, PointTask, compute_point, realised_fractions
from ase_kinoson.units import thermal_energy
from ase_kinoson.whole_files import replace_file

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["CompositionMap", "MapPoint", "MapSettings", "composition_map"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CompositionMap:
    """Diffusion coefficients over compositions and temperatures.

    Attributes
    ----------
    species : tuple of str
        Order of the fractions.
    points : tuple of MapPoint
        All compositions of the first temperature, then of the next.
    """

    species: tuple[str, ...]
    points: tuple[MapPoint, ...]

    @property
    def temperatures_K(self) -> tuple[float, ...]:
        """All temperatures, K, in the order given."""
        return tuple(dict.fromkeys(p.temperature_K for p in self.points))

    def at(self, temperature_K: float | None = None) -> tuple[MapPoint, ...]:
        """Points of one temperature; None: of the only one.

        Parameters
        ----------
        temperature_K
            K; None: the only one.

        Raises
        ------
        KinosonError
            If the map does not have the temperature.
        """
        known = self.temperatures_K
        if temperature_K is None and len(known) == 1:
            temperature_K = known[0]
        chosen = tuple(p for p in self.points if p.temperature_K == temperature_K)
        if not chosen:
            raise KinosonError(f"found temperature_K={temperature_K}; expected one of {list(known)}; choose one")
        return chosen

    def compositions(self, temperature_K: float | None = None) -> NDArray[np.float64]:
        """Nominal fractions, shape (n, n_species).

        Parameters
        ----------
        temperature_K
            K; None: the only one.

        Raises
        ------
        KinosonError
            As :meth:`at`.
        """
        return np.array([[p.composition[s] for s in self.species] for p in self.at(temperature_K)])

    def values(self, name: str, temperature_K: float | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One coefficient at all compositions, with errors; NaN where there is none.

        Parameters
        ----------
        name
            ``"vacancy"``: D_v; ``"tracer"``: Σ_a x_a D*_a with the x_a of the cell; ``"tracer Cu"``, ``"f Cu"``,
            ``"share Cu"``; ``"energy vacancy"``, ``"energy Cu"``: activation energies.
        temperature_K
            K; None: the only one.

        Returns
        -------
        value, error : ndarray, shape (n,)
            m²/s for diffusivities (of tracers per c_v), eV for energies; factors and shares have no unit.

        Raises
        ------
        KinosonError
            If there is no such coefficient or temperature.
        """
        found = [_value(p, name, self.species) for p in self.at(temperature_K)]
        return np.array([v for v, _ in found]), np.array([e for _, e in found])

    def excess(
        self,
        name: str = "vacancy",
        temperature_K: float | None = None,
        *,
        melting_K: Mapping[str, float] | Callable[[dict[str, float]], float] | None = None,
        homologous: float | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How much faster or slower than the mixture of the pure species: ln D − Σ_i x_i ln D_i.

        D_i is the coefficient of pure i at the same temperature, so that activation energies and logarithms of
        prefactors mix in proportion. Below 0: sluggish; above: anti-sluggish. With ``homologous`` = T/Tm the pure
        species are taken at that fraction of their own melting temperature and the alloy at that of its own, by the
        activation energies of the map; diffusion of alloys was called sluggish, or not, by either comparison
        (Tsai, Tsai and Yeh, Acta Mater. 61, 4887 (2013); Vaidya et al., Acta Mater. 146, 211 (2018)).

        Parameters
        ----------
        name
            ``"vacancy"`` or ``"tracer"`` (Σ_a x_a D*_a, per c_v).
        temperature_K
            K; None: the only one.
        melting_K
            Melting temperatures of the species, mixed in proportion, or a callable of the composition.
        homologous
            T/Tm, no unit.

        Returns
        -------
        value, error : ndarray, shape (n,)
            Natural logarithms: no unit.

        Raises
        ------
        KinosonError
            If a pure species is missing in the map, or one of the last two arguments, or activation energies for them.
        """
        points = self.at(temperature_K)
        if name not in ("vacancy", "tracer"):
            raise KinosonError(f"found excess of {name!r}; expected 'vacancy' or 'tracer'; choose one")
        if (melting_K is None) != (homologous is None):
            raise KinosonError("found one of melting_K and homologous; expected both or none; pass both")
        level, noise = self.values(name, temperature_K)
        log, error = np.log(level), noise / level
        if homologous is not None:
            shifts = np.array([self._shift(p, name, melting_K, homologous) for p in points])
            log, error = log + shifts[:, 0], np.hypot(error, shifts[:, 1])
        x = self.compositions(temperature_K)
        corner = {}
        for i, s in enumerate(self.species):
            rows = np.flatnonzero(x[:, i] > 1 - 1e-9)
            if len(rows) == 0 and x[:, i].any():
                raise KinosonError(
                    f"found no point of pure {s} in the map; expected one for each species; add it to the compositions"
                )
            corner[i] = rows[0] if len(rows) else None
        value, variance = log.copy(), error**2
        for i, row in corner.items():
            if row is not None:
                value -= x[:, i] * log[row]
                variance += (x[:, i] * error[row]) ** 2
        ends = [row for row in corner.values() if row is not None]
        value[ends], variance[ends] = 0.0, 0.0
        return value, np.sqrt(variance)

    def _shift(self, p: MapPoint, name: str, melting_K: Any, homologous: float) -> tuple[float, float]:
        """Change ln D(homologous · Tm) − ln D(T) by the activation energy at T, and its error."""
        if not p.activation_energy:
            raise KinosonError(
                f"found no activation energies at {p.composition}; expected those of a source with barriers, to go to "
                "another temperature; compare at one temperature instead (homologous=None)"
            )
        flux = {"vacancy": 1.0}
        if name == "tracer":
            flux = {s: p.realised[s] * float(q.value) for s, q in p.tracer_diffusivity.items()}
        weights = np.array(list(flux.values())) / sum(flux.values())
        found = [p.activation_energy[s] for s in flux]
        energy, noise = weights @ [float(q.value) for q in found], weights @ [float(q.error) for q in found]
        kelvin = homologous * (melting_K(p.composition) if callable(melting_K) else vegard(p.composition, melting_K))
        step = 1.0 / thermal_energy(kelvin) - 1.0 / thermal_energy(p.temperature_K)
        return float(-energy * step), float(abs(noise * step))

    def plot(self, name: str = "vacancy", **options: Any) -> Axes:
        """Lines over a binary (name ``"vacancy"``, ``"tracer"``, ``"f"``, …) or colours over a ternary diagram.

        The options are those of :func:`~ase_kinoson.composition_plots.plot_binary_map` and
        :func:`~ase_kinoson.composition_plots.plot_ternary_map`.

        Parameters
        ----------
        name
            The coefficient.
        **options
            Those of the function that draws.
        """
        from ase_kinoson.composition_plots import plot_binary_map, plot_ternary_map

        used = {s for p in self.points for s, x in p.composition.items() if x > 0}
        return (plot_ternary_map if len(used) > 2 else plot_binary_map)(self, name, **options)

    # -- tables -------------------------------------------------------------------------------------------------------

    def rows(self) -> tuple[list[str], list[list[float | str]]]:
        """Header with units, and one row per point."""
        header = [f"x({s})" for s in self.species] + ["T [K]", "a [Å]"]
        names = ["vacancy"]
        for kind in ("tracer", "f", "share"):
            names += [f"{kind} {s}" for s in self.species]
        names += [f"energy {s}" for s in ("vacancy", *self.species)]
        for n in names:
            title, unit = _title(n)
            header += [f"{title}{unit}", f"error of {title}{unit}"]
        header += ["distance [at.%]", "rounding [at.%]", "kind"]
        body: list[list[float | str]] = []
        for p in self.points:
            line: list[float | str] = [p.composition[s] for s in self.species]
            line += [p.temperature_K, p.lattice_constant]
            for n in names:
                line += list(_value(p, n, self.species))
            line += [np.nan if p.distance is None else p.distance, p.rounding]
            body.append([*line, p.vacancy_diffusivity.kind])
        return header, body

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a pandas DataFrame; units are in the names of the columns."""
        import pandas

        header, body = self.rows()
        return pandas.DataFrame(body, columns=header)

    def write_csv(self, path: str | Path) -> None:
        """Write comma-separated values; units are in the header.

        Parameters
        ----------
        path
            The file.
        """
        header, body = self.rows()
        with replace_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(header)
            writer.writerows([[f"{v:.8g}" if isinstance(v, float) else v for v in line] for line in body])

    def as_dict(self) -> dict[str, Any]:
        """Every number with unit, error and kind, ready for JSON."""
        return {"format": FORMAT, "species": list(self.species), "points": [p.as_dict() for p in self.points]}

    def save(self, path: str | Path) -> None:
        """Write one JSON file.

        Parameters
        ----------
        path
            The file.
        """
        write_json(Path(path), self.as_dict())

    @classmethod
    def load(cls, path: str | Path) -> CompositionMap:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        KinosonError
            If it holds no map of this format.
        """
        data = read_json(Path(path))
        if data.get("format") != FORMAT or "points" not in data:
            raise KinosonError(f"{path} holds no composition map; expected the format {FORMAT!r}; check the path")
        try:
            return cls(tuple(data["species"]), tuple(MapPoint.from_dict(p) for p in data["points"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KinosonError(
                f"{path} is no whole composition map ({type(error).__name__}: {error}); expected what "
                "CompositionMap.save wrote; restore the file"
            ) from error

    def __str__(self) -> str:
        kinds = sorted({p.vacancy_diffusivity.kind for p in self.points})
        return f"composition map of {'-'.join(self.species)}: {len(self.points)} points, {', '.join(kinds)}"


def composition_map(
    jumps: JumpNetwork,
    source: Any,
    compositions: Iterable[Mapping[str, float]],
    *,
    temperature_K: float | Sequence[float],
    lattice_constant: Mapping[str, float] | Callable[[dict[str, float]], float] | None = None,
    settings: MapSettings | None = None,
    folder: str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    limit: float = DEFAULT_LIMIT,
    seed: int = 0,
    progress: bool = False,
) -> CompositionMap:
    """Diffusion coefficients of every species over compositions.

    Parameters
    ----------
    jumps
        Vacancy jumps on the supercell to use; the composition of its mobile sublattice is replaced at every point.
    source
        A :class:`BarrierModel` fitted on several compositions, a lattice gas, or a callable that takes a composition
        and returns one.
    compositions
        Fraction of each species among the atoms of the mobile sublattice, see :func:`composition_grid`.
    temperature_K
        K; one or several.
    lattice_constant
        Length of the first conventional vector, Å: of every pure species (mixed by Vegard's rule), or a callable of
        the composition. Default: that of ``jumps`` everywhere.
    settings
        Effort per point.
    folder
        Keeps one file per point; what is there is not computed again. A run that was killed goes on from it. Every
        file holds a fingerprint of the rates it came from: points of another source are refused.
    executor
        Any ``concurrent.futures.Executor``, such as that of a dask client (``client.get_executor()``); the numbers do
        not depend on it, and it is not shut down. Use processes: threads take turns. A callable ``source`` must then be
        importable there. Or a callable that makes an executor: where a worker dies and takes its pool with it, another
        pool is made for the points that are left.
    limit
        Largest distance of a composition from those the model was fitted on, in the unit at.%; see
        :meth:`CompositionRange.distance`.
    seed
        Seed of all points.
    progress
        Show a bar.

    Returns
    -------
    CompositionMap
        Numbers of a fitted model are called "of the model": what its errors do to them is in no error bar, and they
        bound nothing but the model's own coefficients.

    Raises
    ------
    KinosonError
        If a composition is none, the folder holds points of other settings, ``executor`` is none, or a point kills
        its worker twice.
    ModelError
        If a composition is farther than ``limit`` from the trained range.

    Warns
    -----
    KinosonWarning
        If compositions are outside the trained range, or points gave warnings of their own.
    """
    settings = settings or MapSettings()
    alloy = jumps.supercell.alloy
    length = float(np.linalg.norm((alloy.conventional @ alloy.cell)[0]))
    given = [dict(x) for x in compositions]
    if not given:
        raise KinosonError("found no compositions; expected at least one; pass a list or composition_grid(species)")
    species = tuple(sorted({s for x in given for s in x}))
    points = list(dict.fromkeys(as_fractions(x, species) for x in given))
    _no_species_lost(jumps, points)
    kelvins = list(dict.fromkeys(float(t) for t in np.atleast_1d(np.asarray(temperature_K, dtype=float))))
    if not kelvins:
        raise KinosonError("found no temperature; expected one or several in kelvin; pass temperature_K")
    for kelvin in kelvins:
        thermal_energy(kelvin)
    gaps: list[float] | list[None] = [None] * len(points)
    known = CompositionRange.of(source)
    if known is not None:
        gaps = known.check([_of_all_atoms(jumps, x) for x in points], limit=limit)
    tasks = []
    for kelvin in kelvins:
        for x, gap in zip(points, gaps, strict=True):
            a = _length(lattice_constant, x, length)
            tasks.append(PointTask(jumps, source, x, kelvin, a, a / length, settings, _entropy(seed, x, kelvin), gap))
    shelf = None if folder is None else MapFolder(Path(folder), about_map(jumps, settings, seed), jumps)
    found: dict[int, MapPoint] = {}
    if shelf is not None:
        found = {n: p for n, task in enumerate(tasks) if (p := shelf.read(task)) is not None}
    with tqdm(total=len(tasks), initial=len(found), desc="composition map", unit="point", disable=not progress) as bar:
        for n, point in _computed({n: t for n, t in enumerate(tasks) if n not in found}, executor):
            found[n] = point
            if shelf is not None:
                shelf.write(tasks[n], point)
            bar.update()
    made = CompositionMap(species, tuple(found[n] for n in range(len(tasks))))
    loud = [p for p in made.points if p.remarks]
    if loud:
        warnings.warn(
            ManyWarnings(
                f"{len(loud)} of {len(made.points)} points gave warnings (MapPoint.remarks); the first, at "
                f"{loud[0].composition}: {loud[0].remarks[0]}",
                number=len(loud),
                limit=0,
                unit="points",
                advice="look at MapPoint.remarks of these points before you use their numbers",
            ),
            stacklevel=2,
        )
    return made


# -- pieces -----------------------------------------------------------------------------------------------------------


def _computed(
    tasks: Mapping[int, PointTask], executor: Executor | Callable[[], Executor] | None
) -> Iterator[tuple[int, MapPoint]]:
    if executor is None:
        for n, task in tasks.items():
            yield n, compute_point(task)
        return
    if isinstance(executor, type) or not (hasattr(executor, "submit") or callable(executor)):
        raise KinosonError(
            f"found {executor!r} as executor; expected a concurrent.futures.Executor, a callable that makes one, or "
            "None; pass for example client.get_executor() or partial(ProcessPoolExecutor, 4)"
        )
    if hasattr(executor, "submit"):
        yield from _sent(tasks, cast(Executor, executor))
        return
    left, alone = dict(tasks), False
    while left:
        # after a round without any point one at a time, so that it is known which one kills
        before, part = len(left), dict(left)
        rounds = [{n: task} for n, task in left.items()] if alone else [part]
        try:
            with executor() as pool:
                for part in rounds:
                    for n, point in _sent(part, pool):
                        del left[n]
                        yield n, point
        except (BrokenExecutor, CancelledError) as error:
            if alone:
                task = next(iter(part.values()))
                raise KinosonError(
                    f"the point {dict(task.fractions)} at {task.temperature_K:g} K kills its worker "
                    f"({str(error) or type(error).__name__}); expected it to end; give the workers more memory, or "
                    "compute it with executor=None to see what happens"
                ) from error
            _log.warning("a worker died (%s); a new pool takes the %d points that are left", error, len(left))
            alone = len(left) == before


def _sent(tasks: Mapping[int, PointTask], pool: Executor) -> Iterator[tuple[int, MapPoint]]:
    """Points as they are done. Where one fails, those that others have finished meanwhile come before its error."""
    futures = {pool.submit(compute_point, task): n for n, task in tasks.items()}
    failure: BaseException | None = None
    try:
        for future in as_completed(futures):
            try:
                point = future.result()
            except (Exception, CancelledError) as error:
                failure = failure or error
                for other in futures:  # what runs already is waited for
                    other.cancel()
            else:
                yield futures[future], point
    finally:
        for future in futures:  # only after an error is there anything left to cancel
            future.cancel()
    if failure is not None:
        raise failure


def _entropy(seed: int, x: Fractions, temperature_K: float) -> tuple[int, ...]:
    """Seed of a point, from what it is and not from where it stands in a list."""
    present = [n for s, v in x if v > 0 for n in (atomic_numbers[s], round(1e9 * v))]
    return (int(seed), round(1e3 * temperature_K), *present)


def _of_all_atoms(jumps: JumpNetwork, x: Fractions) -> dict[str, float]:
    """Fractions of all atoms, those of other sublattices among them: what a model knows of its compositions."""
    cell = jumps.supercell
    total: dict[str, float] = {}
    for sub, atoms in zip(cell.alloy.sublattices, cell.counts, strict=True):
        n = sum(atoms.values())
        for s, number in ((s, n * v) for s, v in x) if sub.mobile else atoms.items():
            total[s] = total.get(s, 0.0) + number
    return {s: number / sum(total.values()) for s, number in total.items()}


def _no_species_lost(jumps: JumpNetwork, points: Iterable[Fractions]) -> None:
    """Refuse compositions that a cell of this size cannot hold."""
    parent = jumps.supercell
    for x in points:
        cell = type(parent)(with_composition(parent.alloy, x), parent.matrix)
        there = realised_fractions(cell)
        lost = [s for s, v in x if v > 0 and not there.get(s)]
        if lost:
            raise KinosonError(
                f"found no atom of {', '.join(lost)} in a cell of {cell.n_sites} sites at {dict(x)}; expected at least "
                "one of each species; take a larger cell, or leave the species out"
            )


def _length(given: Any, x: Fractions, default: float) -> float:
    if given is None:
        return default
    a = float(given(dict(x))) if callable(given) else vegard(dict(x), given)
    if not (np.isfinite(a) and a > 0):
        raise KinosonError(f"found a lattice constant of {a} Å at {dict(x)}; expected a positive length; correct it")
    if not 0.5 < a / default < 2.0:
        raise KinosonError(
            f"found a lattice constant of {a:g} Å at {dict(x)}; expected one near that of the jumps, {default:g} Å; "
            "give lattice constants in Å"
        )
    return a


def _title(name: str) -> tuple[str, str]:
    kind, _, who = name.partition(" ")
    if kind == "vacancy":
        return "D_v", " [m^2/s]"
    if kind == "tracer":
        return f"D*({who})" if who else "D*", " [m^2/s per c_v]"
    if kind == "energy":
        return f"E_a({who})", " [eV]"
    return (f"f({who})" if kind == "f" else f"share({who})"), ""


def _value(p: MapPoint, name: str, species: Sequence[str]) -> tuple[float, float]:
    kind, _, who = name.partition(" ")
    if name == "vacancy":
        q: Quantity | None = p.vacancy_diffusivity
    elif name == "tracer":
        parts = [(p.realised[s], p.tracer_diffusivity[s]) for s in p.tracer_diffusivity]
        # all species come from the same trajectories: their errors are not independent, and add up at most
        return sum(x * float(q.value) for x, q in parts), sum(x * float(q.error) for x, q in parts)
    else:
        tables = {
            "tracer": p.tracer_diffusivity,
            "f": p.correlation_factor,
            "share": p.share,
            "energy": p.activation_energy,
        }
        if kind not in tables or (who not in species and (kind, who) != ("energy", "vacancy")):
            raise KinosonError(
                f"found the coefficient {name!r}; expected 'vacancy', 'tracer', or one of "
                f"{[f'{k} <species>' for k in tables]} with a species of {list(species)}; choose one"
            )
        q = tables[kind].get(who)
    return (float(q.value), float(q.error)) if q is not None else (float("nan"), float("nan"))
