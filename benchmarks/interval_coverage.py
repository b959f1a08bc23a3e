"""How often does value ± error hold the truth? Coverage of the 68 % intervals over seeded repeats.

    python benchmarks/interval_coverage.py [--repeats 200] [--seed 0] [--sizes 10 30 100 300]

Lattice gases on a square cell that can be enumerated (6435 states of 7 Ag, 8 Cu and a vacancy): pair energies, and
activations drawn from a Gaussian by environment, whose width against k_BT says how uneven the kinosons are. From the
exact ensemble, samples of 10 to 300 states are drawn again and again, evaluated with one fixed relaxation y, and
counted. The truth of a bound is Λ[y] over all states, that of a corrected value and of kinetic Monte Carlo the exact
coefficient of the cell: what these are off by on average is told apart from the scatter. Printed as a table; a share is
known to 3.3 percentage points (200 repeats at 68 %).

To count an interval that is known to be wrong, pass ``shrink`` (errors divided by it) or ``blind`` (states of one
group are taken for independent ones).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ase_kinoson as ak
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.errors import FewKinosons, SmallSample
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.active import active_barriers
from ase_kinoson.kinosons.exact import StateSpace
from ase_kinoson.validation import tiny_cell

__all__ = ["KINDS", "SIZES", "WIDTHS", "Coverage", "Gas", "chosen", "corrected", "gas", "measure", "samples", "walkers"]

T = 600.0
"""Temperature, K: k_BT is 0.052 eV."""

WIDTHS = {"even": 0.04, "uneven": 0.08, "heavy": 0.16}
"""Standard deviation of the activations, eV: 0.8, 1.5 and 3.1 k_BT."""

KINDS = ("independent", "groups of 3", "importance", "residence")
"""How states are drawn: independently with their probability; in groups of three of which neighbours are alike in two
of three cases; all with the same probability, and weighted; in proportion to how often jumps leave them, and weighted
by the time they stay."""

SIZES = (10, 30, 100, 300)

COUNTS = {"Ag": 7, "Cu": 8}


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth.

    Attributes
    ----------
    gas, kind : str
        Which lattice gas, and how states were drawn or what was done with them.
    n_states : int
        States of a sample, or walkers.
    quantity : str
        Which coefficient.
    truth : float
        Its exact value, in the unit of the quantity.
    n_repeats : int
        Repeats that gave a value and an error; the others are in ``n_unknown``.
    held : int
        Of how many the interval value ± error held the truth.
    below : int
        Of how many the whole interval was below the truth.
    bias : float
        Mean of the values minus truth, in units of the scatter of the values.
    error_ratio : float
        Root mean square of the errors over the scatter of the values.
    n_unknown : int
        Repeats without a finite error.
    n_warned : int
        Repeats that warned of few kinosons or a small sample.
    """

    gas: str
    kind: str
    n_states: int
    quantity: str
    truth: float
    n_repeats: int
    held: int
    below: int
    bias: float
    error_ratio: float
    n_unknown: int
    n_warned: int

    @property
    def share(self) -> float:
        """Share of intervals that held the truth."""
        return self.held / max(self.n_repeats, 1)

    @property
    def warned(self) -> float:
        """Share of repeats that warned."""
        return self.n_warned / max(self.n_repeats + self.n_unknown, 1)


class Rugged:
    """Pair energies, and activations that are a random function of the environment; ``off``: those of a poor model."""

    def __init__(self, network: ak.JumpNetwork, std: float, *, off: float = 0.0, seed: int = 0) -> None:
        self.network = network
        self.error = ak.RandomBarriers(0.0, off, seed=seed).bind(network)
        self.energy = ak.PairEnergy.from_interactions(network.supercell, {("Ag", "Cu"): -0.01, ("Cu", "X"): -0.01})
        self.gas = ak.RandomBarriers(0.6, std, seed=3).bind(network)

    def jump_energies(self, occupations: NDArray, carriers: NDArray) -> JumpEnergies:
        """Barriers and energy changes, eV."""
        delta = self.energy.jump_delta(occupations, carriers, self.network)
        activation = self.gas.jump_energies(occupations, carriers).barrier
        if self.error.gas.std:
            activation = activation + self.error.jump_energies(occupations, carriers).barrier
        return JumpEnergies(activation + 0.5 * delta, delta)


@dataclass(frozen=True, eq=False)
class Gas:
    """A lattice gas with its whole ensemble, and what is true of it.

    Attributes
    ----------
    name : str
    network : JumpNetwork
    source : Rugged
    occupations, carriers, weights : ndarray
        All states with their exact probabilities.
    out : ndarray, shape (n_states,)
        Sum of the rates out of each state, s⁻¹.
    relaxation : Relaxation
        Trained once, on states of its own.
    truth : dict of float
        Of all coefficients with this y.
    """

    name: str
    network: ak.JumpNetwork
    source: Rugged
    occupations: NDArray[np.int8]
    carriers: NDArray[np.int64]
    weights: NDArray[np.float64]
    out: NDArray[np.float64]
    relaxation: ak.Relaxation
    truth: dict[str, float]

    def states(self, rows: NDArray, weights: NDArray | None = None, groups: NDArray | None = None) -> ak.States:
        """Some states of the ensemble."""
        return ak.States.from_occupations(
            self.network.supercell,
            self.occupations[rows],
            carriers=self.carriers[rows],
            weights=weights,
            groups=groups,
            ensemble="equilibrium",
            temperature_K=T,
            model_energies=self.source.energy.energies(self.occupations[rows]),
        )

    def exact(self) -> dict[str, float]:
        """The coefficients themselves."""
        cell = self.network.supercell
        full = ak.exact_transport(cell, self.network, self.source, T, counts=COUNTS)
        return {name: value for name, value, _ in numbers(full, kinosons=False) if name != "drift"}

    def draw(self, kind: str, n: int, rng: np.random.Generator) -> ak.States:
        """Draw a sample of n states."""
        p = self.weights
        if kind == "independent":
            return self.states(rng.choice(len(p), n, p=p))
        if kind == "groups of 3":
            rows = rng.choice(len(p), n, p=p)
            groups = np.arange(n) // 3
            for i in range(1, n):
                if groups[i] == groups[i - 1] and rng.random() < 2 / 3:
                    rows[i] = rows[i - 1]
            return self.states(rows, groups=groups)
        if kind == "importance":
            often = np.sqrt(p)
            rows = rng.choice(len(p), n, p=often / often.sum())
            return self.states(rows, weights=often[rows] / often[rows].sum())
        if kind == "residence":
            often = p * self.out
            rows = rng.choice(len(p), n, p=often / often.sum())
            return self.states(rows, weights=(1.0 / self.out[rows]) / (1.0 / self.out[rows]).sum())
        raise ValueError(f"found kind={kind!r}; expected one of {KINDS}; choose one")


@cache
def gas(name: str) -> Gas:
    """Enumerate a gas, train its relaxation, and evaluate it over all states."""
    cell, _ = tiny_cell({"Ag": 4, "Cu": 4})
    cell = cell.alloy.supercell((4, 4, 1))
    network = ak.JumpNetwork.from_supercell(cell)
    source = Rugged(network, WIDTHS[name])
    space = StateSpace.enumerate(network, counts=COUNTS)
    rates = Rates.of(source, network, temperature_K=T)
    weights = space.weights(rates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        relaxation = ak.train_relaxation(
            cell, network, source, temperature_K=T, form="scaled-bias", lookahead=0, n_states=200, seed=2,
            states=space.states(weights, ensemble="equilibrium", temperature_K=T)[
                np.random.default_rng(5).choice(len(weights), 200, p=weights)
            ],
        )  # fmt: skip
        full = ak.transport(
            space.states(weights, ensemble="equilibrium", temperature_K=T), network, source, relaxation, T
        )
    out = rates(space.occupations, space.carriers).sum(axis=1)
    truth = {name: value for name, value, _ in numbers(full)}
    return Gas(name, network, source, space.occupations, space.carriers, weights, out, relaxation, truth)


def numbers(result: ak.Transport, *, kinosons: bool = True) -> Iterator[tuple[str, float, float]]:
    """Every coefficient that a user publishes: name, value and error."""
    q = result.vacancy_diffusivity
    yield "D_v", float(q.value), float(q.error)
    for s, q in result.tracer_diffusivity.items():
        yield f"D*({s})", float(q.value), float(q.error)
    names = result.species
    matrix = result.onsager_matrix
    assert matrix is not None
    for a in range(len(names)):
        for b in range(a, len(names)):
            yield f"L({names[a]}{names[b]})", float(matrix.value[a, b]), float(matrix.error[a, b])
    for s, q in result.correlation_factor.items():
        yield f"f({s})", float(q.value), float(q.error)
    q = result.collective_correlation_factor["vacancy"]
    yield "f(vacancy)", float(q.value), float(q.error)
    if result.drift is not None:
        yield "drift", result.drift.value, result.drift.error
    if kinosons:
        q = ak.KinosonDensity.from_result(result).activation_energy()
        yield "E_a", float(q.value), float(q.error)


def listen(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, bool]:
    """Call; say whether it warned of few kinosons or a small sample."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = function(*arguments, **options)
    return made, any(issubclass(w.category, FewKinosons | SmallSample) for w in told)


Outcome = tuple[dict[str, tuple[float, float]], bool]
"""Value and error of every coefficient, and whether a run warned."""


def count(
    name: str, kind: str, n: int, truth: dict[str, float], run: Callable[[int], Outcome], n_repeats: int, shrink: float
) -> tuple[Coverage, ...]:
    """Repeat, and count per quantity how often the truth was held."""
    runs = [run(r) for r in range(n_repeats)]
    warned = sum(told for _, told in runs)
    found = []
    for quantity, true in truth.items():
        pairs = np.array([values.get(quantity, (np.nan, np.nan)) for values, _ in runs])
        value, error = pairs[np.isfinite(pairs).all(axis=1)].T / np.array([[1.0], [shrink]])
        apart = value - true
        scatter = float(value.std(ddof=1)) if len(value) > 1 else np.nan
        found.append(
            Coverage(
                name,
                kind,
                n,
                quantity,
                true,
                len(value),
                int((np.abs(apart) <= error).sum()),
                int((apart < -error).sum()),
                float(apart.mean() / scatter) if scatter > 0 else 0.0,
                float(np.sqrt(np.mean(error**2)) / scatter) if scatter > 0 else np.nan,
                n_repeats - len(value),
                warned,
            )
        )
    return tuple(found)


def samples(
    name: str,
    kind: str,
    n: int,
    *,
    n_repeats: int = 200,
    seed: int = 0,
    shrink: float = 1.0,
    blind: bool = False,
) -> tuple[Coverage, ...]:
    """Bounds: coverage of all coefficients of ``transport`` with samples of n states."""
    runs = _bounds(name, kind, n, n_repeats, seed, blind)
    return count(name, kind, n, gas(name).truth, lambda r: runs[r], n_repeats, shrink)


@cache
def _bounds(name: str, kind: str, n: int, n_repeats: int, seed: int, blind: bool) -> list[Outcome]:
    own, found = gas(name), []
    for r in range(n_repeats):
        states = own.draw(kind, n, np.random.default_rng([seed, list(WIDTHS).index(name), KINDS.index(kind), n, r]))
        if blind:
            states = replace(states, groups=np.arange(n))
        result, told = listen(ak.transport, states, own.network, own.source, own.relaxation, T, seed=r)
        found.append(({q: (value, error) for q, value, error in numbers(result)}, told))
    return found


def corrected(
    name: str, n: int = 100, *, n_repeats: int = 200, seed: int = 0, shrink: float = 1.0
) -> tuple[Coverage, ...]:
    """Values of ``correct``, one trajectory of 16 jumps from each state: held against the exact coefficients."""
    own, truth = gas(name), gas(name).exact()

    def run(r: int) -> Outcome:
        states = own.draw("independent", n, np.random.default_rng([seed, 11, n, r]))
        result, told = listen(ak.transport, states, own.network, own.source, own.relaxation, T, seed=r)
        made, more = listen(ak.correct, result, own.source, n_steps=16, n_trajectories=n, seed=r)
        return {q: (value, error) for q, value, error in numbers(made, kinosons=False)}, told or more

    return count(name, "corrected", n, truth, run, n_repeats, shrink)


def walkers(
    name: str, n: int = 100, *, n_repeats: int = 200, seed: int = 0, shrink: float = 1.0
) -> tuple[Coverage, ...]:
    """Diffusivities of ``run_kmc``, 256 jumps of each walker: held against the exact coefficients."""
    own, truth = gas(name), gas(name).exact()

    def run(r: int) -> Outcome:
        states = own.draw("independent", n, np.random.default_rng([seed, 12, n, r]))
        made, told = listen(ak.run_kmc, states, own.network, own.source, T, n_jumps=256, n_walkers=n, seed=r)
        return {q: (value, error) for q, value, error in numbers(made, kinosons=False)}, told

    return count(name, "kmc", n, truth, run, n_repeats, shrink)


def chosen(
    name: str, choice: str, n: int = 100, *, n_repeats: int = 200, seed: int = 0, shrink: float = 1.0
) -> tuple[Coverage, ...]:
    """``active_barriers``: a quarter of the barriers of n states, from models that are off by 0.05 eV."""
    own = gas(name)
    models = [Rugged(own.network, WIDTHS[name], off=0.05, seed=20 + i) for i in range(4)]

    def run(r: int) -> Outcome:
        states = own.draw("independent", n, np.random.default_rng([seed, 13, n, r]))
        made, told = listen(
            active_barriers,
            states,
            own.network,
            own.source,
            temperature_K=T,
            relaxation=own.relaxation,
            models=models,
            fit=None,
            relative_error=None,
            choice=choice,
            max_barriers=n,
            batch=max(n // 4, 1),
            reweight=False,
            seed=r,
        )
        names = {"vacancy": "D_v", **{s: f"D*({s})" for s in COUNTS}}
        return {names[k]: (float(q.value), float(q.error)) for k, q in made.diffusivity.items()}, told

    truth = {q: own.truth[q] for q in ("D_v", *(f"D*({s})" for s in COUNTS))}
    return count(name, f"barriers, {choice}", n, truth, run, n_repeats, shrink)


def measure(
    n_repeats: int = 200, n_states: Sequence[int] = SIZES, seed: int = 0, *, progress: bool = False
) -> tuple[Coverage, ...]:
    """Everything: bounds of three gases and four kinds of samples, corrected values, trajectories, chosen barriers.

    Parameters
    ----------
    n_repeats
        Repeats of each.
    n_states
        Sizes of independent samples; of the other kinds 30 and 100, where asked for.
    seed
        Of all repeats.
    progress
        Print rows as they come.
    """
    found: list[Coverage] = []

    def take(rows: tuple[Coverage, ...]) -> None:
        found.extend(rows)
        if progress:
            print(line(rows), flush=True)

    about: dict[str, Any] = {"n_repeats": n_repeats, "seed": seed}
    for name in WIDTHS:
        for n in n_states:
            take(samples(name, "independent", n, **about))
    for name in ("even", "uneven"):
        for kind in KINDS[1:]:
            for n in (30, 100):
                if n in n_states:
                    take(samples(name, kind, n, **about))
    for name in ("even", "uneven"):
        take(corrected(name, **about))
        take(walkers(name, **about))
    for choice in ("active", "random"):
        take(chosen("uneven", choice, **about))
    return tuple(found)


SHORT = {"D_v": "D_v", "D*(Ag)": "D*Ag", "D*(Cu)": "D*Cu", "L(AgAg)": "L_11", "L(AgCu)": "L_12", "L(CuCu)": "L_22",
         "f(Ag)": "f_Ag", "f(Cu)": "f_Cu", "f(vacancy)": "f_v", "drift": "drift", "E_a": "E_a"}  # fmt: skip


def line(rows: tuple[Coverage, ...]) -> str:
    """One row of the table: percent held of each coefficient, their mean, and of how many repeats warned."""
    held = {c.quantity: f"{100 * c.share:.0f}" for c in rows}
    cells = " ".join(f"{held.get(q, '-'):>5}" for q in SHORT)
    first, mean = rows[0], 100 * float(np.mean([c.share for c in rows]))
    lost = sum(c.n_unknown for c in rows)
    return (
        f"{first.gas:<7}{first.kind:<18}{first.n_states:>4} {cells} {mean:>6.1f} {100 * first.warned:>7.0f} "
        f"{first.bias:>+6.2f}" + (f"  {lost} without an error" if lost else "")
    )


HEAD = f"{'gas':<7}{'what':<18}{'n':>4} " + " ".join(f"{q:>5}" for q in SHORT.values()) + "   mean  warned   bias"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    print(f"percent of {given.repeats} repeats in which value ± error held the truth; bias: of D_v, in its scatter")
    print(HEAD)
    rows = measure(given.repeats, given.sizes, given.seed, progress=True)
    plain = [c for c in rows if c.gas != "heavy" and c.n_states >= 30 and c.kind in KINDS]
    inside = [0.60 <= c.share <= 0.76 for c in plain]
    mean = 100 * float(np.mean([c.share for c in plain])) if plain else float("nan")
    print(
        f"bounds of even and uneven gases from 30 states on: {sum(inside)} of {len(plain)} coefficients are held in "
        f"60-76 %, mean {mean:.1f} % (chance alone: ±{100 * np.sqrt(0.68 * 0.32 / given.repeats):.1f} each)"
    )
    print(f"{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
