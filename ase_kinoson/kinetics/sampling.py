"""States to average over: random, special quasirandom, and Monte Carlo of a model's energies."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.stats import t as student
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import NotAtEquilibrium, StatesError
from ase_kinoson.kinetics.heat_bath import CarrierHeatBath
from ase_kinoson.kinetics.monte_carlo import MonteCarlo, energy_of, random_occupations
from ase_kinoson.kinetics.sqs import sqs_occupations

__all__ = ["MonteCarlo", "random_occupations", "sample_states"]

METHODS = ("random", "sqs", "monte-carlo")
MAX_CHAINS = 200
EQUILIBRATION_P = 1e-5
"""Drifts of the energy less probable than this are reported; Student's t over the chains."""


def sample_states(
    cell: Supercell,
    n: int,
    *,
    method: str = "random",
    seed: int = 0,
    model: Any = None,
    temperature_K: float | None = None,
    ensemble: str = "equilibrium",
    n_chains: int | None = None,
    sweeps: int = 100,
    network: JumpNetwork | None = None,
    progress: bool = False,
) -> States:
    """Make states of a supercell with one carrier.

    Parameters
    ----------
    cell
        The supercell.
    n
        Number of states.
    method
        ``"random"``: exact composition, random places. ``"sqs"``: special quasirandom cells from icet (an
        optional package) with the vacancy at a random site. ``"monte-carlo"``: states of the model's
        ensemble. Only the last one is an average over which Λ is a diffusivity; for the ensemble of a
        calculator's energies see :func:`~ase_kinoson.kinetics.delayed_acceptance.sample_with_calculator`.
    seed
        Equal seeds give equal states.
    model
        For Monte Carlo: an `EnergyModel`, or anything whose ``energy`` is one (a `BarrierModel`); ``energy``
        None means that all states have the same energy.
    temperature_K
        For Monte Carlo, K.
    ensemble
        ``"equilibrium"``: all atoms of exchangeable sites exchange at T, independent Metropolis chains from
        random starts. ``"quenched"``: atoms are frozen in a random arrangement and only the carrier
        equilibrates: it trades places with the occupant of any mobile site (none included), drawn with
        exp(−E/k_BT); exact, no chain. In an interstitial alloy whose hosts are ordered the two are the same.
    n_chains
        Number of independent chains (arrangements for ``"quenched"``, cells for ``"sqs"``), the ``groups``
        of the result. Default: one per state, up to 200 chains for the equilibrium ensemble and 5 SQS cells.
        Give the quenched ensemble several states per arrangement where it shall be reweighted.
    sweeps
        Attempted exchanges per site before the first states are taken; further states of a chain follow
        every tenth of that.
    network
        Jumps; their supercell must be ``cell``.
    progress
        Show a progress bar.

    Returns
    -------
    States
        With ``model_energies`` for Monte Carlo, and in ``report`` the rounding of the composition,
        acceptance, equilibration and autocorrelation.

    Raises
    ------
    StatesError
        If method or ensemble is unknown, there are no states to make, the jumps are those of another cell, or Monte
        Carlo lacks a model or a temperature.
    """
    if method not in METHODS:
        raise StatesError(f"found method={method!r}; expected one of {METHODS}; choose one")
    if ensemble not in ("equilibrium", "quenched"):
        raise StatesError(f"found ensemble={ensemble!r}; expected 'equilibrium' or 'quenched'; choose one")
    if n < 1:
        raise StatesError(f"found n={n} states; expected at least one; raise n")
    if network is not None and network.supercell != cell:
        raise StatesError(
            "found a jump network on another supercell; expected one on the cell of the states; pass "
            "network.supercell as cell"
        )
    report: dict[str, Any] = {"method": method, "seed": int(seed), "composition_rounding": cell.rounding()}
    rng = np.random.default_rng(seed)
    if method == "random":
        occupations, carriers = random_occupations(cell, n, rng)
        return States.from_occupations(
            cell, occupations, carriers=carriers, source=f"random decoration, seed {seed}", report=report
        )
    if method == "sqs":
        cells = min(n, 5 if n_chains is None else n_chains)
        occupations, groups = sqs_occupations(cell, n, cells, seed=seed, progress=progress)
        return States.from_occupations(
            cell,
            occupations,
            groups=groups,
            source=f"{cells} SQS by icet, vacancy at random, seed {seed}",
            report=report,
        )
    if model is None or temperature_K is None:
        raise StatesError(
            f"found {'no model' if model is None else f'a {type(model).__name__}'} and "
            f"temperature_K={temperature_K!r} for Monte Carlo; expected both; pass "
            f"model= and temperature_K="
        )
    if ensemble == "quenched":
        return _quenched(cell, n, rng, model, temperature_K, min(n, n_chains or n), seed, report)
    chains = min(n, n_chains or MAX_CHAINS)
    chain = MonteCarlo(cell, model, temperature_K, n_chains=chains, seed=seed)
    rounds = -(-n // chains)
    spacing = max(1, sweeps // 10)
    with tqdm(total=sweeps + (rounds - 1) * spacing, desc="Monte Carlo", unit="sweep", disable=not progress) as bar:
        chain.run(sweeps, tick=bar.update)
        kept = [chain.snapshot()]
        for _ in range(rounds - 1):
            chain.run(spacing, tick=bar.update)
            kept.append(chain.snapshot())
    about = chain.report()
    if 2.0 * student.sf(abs(about["equilibration_z"]), max(1, chains - 1)) < EQUILIBRATION_P:
        warnings.warn(
            NotAtEquilibrium(
                f"the energy of the Monte Carlo chains still drifts ({about['equilibration_z']:.1f} standard "
                f"errors between the third and "
                f"the last quarter of {chain.n_sweeps} sweeps); the states are not at equilibrium",
                number=about["equilibration_z"],
                limit=float(student.isf(0.5 * EQUILIBRATION_P, max(1, chains - 1))),
                unit="standard errors",
                advice="raise sweeps",
            ),
            stacklevel=2,
        )
    energies = [s.model_energies for s in kept if s.model_energies is not None]
    return States.from_occupations(
        cell,
        np.concatenate([s.occupations for s in kept])[:n],
        carriers=np.concatenate([s.carriers for s in kept])[:n],
        groups=np.concatenate([s.groups for s in kept])[:n],
        ensemble="equilibrium",
        temperature_K=float(temperature_K),
        source=kept[0].source,
        model_energies=np.concatenate(energies)[:n],
        report={**report, **about},
    )


def _quenched(
    cell: Supercell,
    n: int,
    rng: np.random.Generator,
    model: Any,
    temperature_K: float,
    arrangements: int,
    seed: int,
    report: dict[str, Any],
) -> States:
    energy = energy_of(model, cell)
    start, home = random_occupations(cell, arrangements, rng)
    bath = CarrierHeatBath(cell, energy, temperature_K, start, home)
    groups = np.arange(n) % arrangements
    occupations, sites, values = bath.draw(rng, groups)
    return States.from_occupations(
        cell,
        occupations,
        carriers=sites,
        groups=groups,
        ensemble="quenched",
        temperature_K=float(temperature_K),
        source=f"random arrangements, carrier by heat bath, seed {seed}",
        model_energies=values,
        report={**report, "arrangements": arrangements, "effective_carrier_sites": float(bath.entropy.mean())},
    )
