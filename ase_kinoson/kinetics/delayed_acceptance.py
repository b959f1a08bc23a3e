"""Equilibrium states of the *reference* energies, whatever the error of the model that proposes them.

A block of a fixed number of Metropolis moves of the model is one proposal, accepted with

    min(1, exp(−[Δ(E_ref − E_model)]/k_BT))

(delayed acceptance: J. A. Christen and C. Fox, J. Comput. Graph. Stat. 14, 795 (2005); with blocks: L. D. Gelb,
J. Chem. Phys. 118, 7747 (2003)). The block is reversible with respect to the model's distribution, so the chain is with
respect to that of the reference energies. The better the model, the more is accepted, and the longer a block may be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from tqdm import tqdm

from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import FailedCalculations, LowAcceptance, NotAtEquilibrium, StatesError
from ase_kinoson.kinetics.heat_bath import CarrierHeatBath
from ase_kinoson.kinetics.monte_carlo import (
    MonteCarlo,
    autocorrelation_time,
    energy_of,
    equilibration_z,
    random_occupations,
)
from ase_kinoson.kinetics.relaxed_energies import RelaxedEnergies
from ase_kinoson.units import thermal_energy

__all__ = ["sample_with_calculator"]

LOW_ACCEPTANCE = 0.05
"""Share of accepted blocks below which a warning tells what to do."""

EQUILIBRATION_P = 1e-5
"""Drifts of the energy less probable than this are reported; Student's t over the chains."""


def sample_with_calculator(
    cell: Supercell,
    n: int,
    reference: Any,
    *,
    model: Any,
    temperature_K: float,
    ensemble: str = "equilibrium",
    n_chains: int = 16,
    sweeps: int = 100,
    block_sweeps: float = 1.0,
    burn_in: int = 10,
    spacing: int = 2,
    seed: int = 0,
    network: JumpNetwork | None = None,
    store: str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    settings: SaddleSettings | None = None,
    progress: bool = False,
) -> States:
    """Sample states of the reference energies by delayed acceptance.

    Every block costs each chain one relaxed energy, unless that state is known. All chains advance together, one task
    per chain and block, so that ``n_chains`` should be a few times the number of workers.

    The relaxed energies are all there is to remember: with a ``store`` an interrupted run that is started again
    repeats its model moves, finds the energies, and gives the same chains bit for bit.

    Parameters
    ----------
    cell
        The supercell.
    n
        Number of states to keep, all with equal weights; spread evenly over the chains.
    reference
        Whose states are wanted: a calculator *factory* (a class such as ``EMT``, or a callable without arguments),
        with which states are relaxed; or an `EnergyModel`.
    model
        Proposes: an `EnergyModel`, or anything whose ``energy`` is one (a `BarrierModel`).
    temperature_K
        K.
    ensemble
        As in :func:`sample_states`. ``"quenched"``: one arrangement of the atoms per chain; the model's heat bath of
        the carrier is the proposal.
    n_chains
        Independent chains, the ``groups`` of the result.
    sweeps
        Sweeps of the model before the first block.
    block_sweeps
        Length of a block, a number of sweeps; at least one attempt. Shorter blocks are accepted more often and move
        less.
    burn_in
        Blocks of each chain before the first state is kept.
    spacing
        Blocks between the states kept of a chain.
    seed
        Equal seeds give equal states.
    network
        Jumps, by which the store is known; pass the one given to :func:`compute_barriers`.
    store
        File of a barrier store, for the relaxed states; may be the one of the barriers.
    executor
        Any ``concurrent.futures.Executor``, or a callable that makes one; results do not depend on it.
    settings
        How states are relaxed.
    progress
        Show a progress bar.

    Returns
    -------
    States
        ``model_energies`` are the reference energies, eV, by which the states were drawn. ``report`` holds the
        acceptance (of the blocks that changed the state), the autocorrelation time (blocks; of a quenched ensemble that
        within arrangements), the number of independent states (at most one of each frozen arrangement), the number of
        states that were relaxed and their force calls. States whose atoms leave their sites (``rejected_unstable``) or
        whose relaxation failed (``rejected_failed``) have no energy and are never accepted: the sample is of all
        others.

    Raises
    ------
    StatesError
        If an argument is out of range, or no chain finds a state that has an energy.
    BarrierError, StoreError
        As :func:`compute_barriers`.

    Warns
    -----
    KinosonWarning
        If hardly a block is accepted, the energy still drifts, or relaxations failed.

    Notes
    -----
    J. A. Christen and C. Fox, J. Comput. Graph. Stat. 14, 795 (2005); with blocks: L. D. Gelb, J. Chem. Phys. 118, 7747
    (2003). How it works here: docs/sampling.md#delayed-acceptance-exact-at-any-error-of-the-model.
    """
    _check(n, n_chains, sweeps, block_sweeps, burn_in, spacing, ensemble)
    kT = thermal_energy(temperature_K)
    chains = min(n, n_chains)
    per_chain = -(-n // chains)
    blocks = burn_in + (per_chain - 1) * spacing
    proposals = _proposals(cell, model, temperature_K, ensemble, chains, seed, sweeps, block_sweeps)
    rng = np.random.default_rng([seed, 1])
    kept: list[tuple[NDArray, NDArray, NDArray]] = []
    trace, accepted, gaps = [], [], []
    with (
        RelaxedEnergies(
            cell, reference, network=network, store=store, executor=executor, settings=settings
        ) as energies,
        tqdm(total=blocks + 1, desc="delayed acceptance", unit="block", disable=not progress) as bar,
    ):
        occupations, carriers, of_model = proposals.start()
        of_reference = _energies(energies, cell, occupations, carriers)
        if np.isnan(of_reference).all():
            _without_energy(chains, chains, energies)
        bar.update()
        if burn_in == 0:
            kept.append((occupations.copy(), carriers.copy(), of_reference.copy()))
        for block in range(1, blocks + 1):
            new, sites, new_model = proposals.propose(occupations, carriers)
            moved = (new != occupations).any(axis=1)
            new_reference = _energies(energies, cell, new, sites)
            gap = (new_reference - new_model) - (of_reference - of_model)
            # a state without energy is never accepted; one that has an energy always replaces it
            gap = np.where(np.isnan(new_reference), np.inf, np.where(np.isnan(of_reference), -np.inf, gap))
            take = gap <= -kT * np.log1p(-rng.random(chains))
            occupations[take], carriers[take] = new[take], sites[take]
            of_model[take], of_reference[take] = new_model[take], new_reference[take]
            bar.update()
            accepted.append(take[moved])
            if block >= burn_in:
                trace.append(of_reference.copy())
                gaps.append((new_reference - new_model)[np.isfinite(new_reference)])
                if (block - burn_in) % spacing == 0:
                    kept.append((occupations.copy(), carriers.copy(), of_reference.copy()))
    values = np.concatenate([e for _, _, e in kept])[:n]
    if np.isnan(values).any():
        _without_energy(int(np.isnan(values).sum()), n, energies)
    report = {
        "method": "delayed-acceptance",
        "seed": int(seed),
        "composition_rounding": cell.rounding(),
        "chains": chains,
        "blocks": blocks,
        "block_sweeps": float(block_sweeps),
        **_statistics(np.array(trace).reshape(-1, chains), accepted, n, ensemble),
        "energy_difference_std_eV": float(np.std(np.concatenate(gaps))) if gaps else float("nan"),
        "relaxed_states": energies.n_states,
        "force_calls": energies.force_calls,
        "rejected_unstable": energies.n_unstable,
        "rejected_failed": energies.n_failed,
    }
    _warn(report)
    return States.from_occupations(
        cell,
        np.concatenate([o for o, _, _ in kept])[:n],
        carriers=np.concatenate([c for _, c, _ in kept])[:n],
        groups=np.tile(np.arange(chains), per_chain)[:n],
        ensemble=ensemble,
        temperature_K=float(temperature_K),
        source=f"delayed acceptance, {chains} chains, {blocks} blocks of {block_sweeps:g} sweeps, seed {seed}",
        model_energies=values,
        report=report,
    )


def _check(n: int, n_chains: int, sweeps: int, block_sweeps: float, burn_in: int, spacing: int, ensemble: str) -> None:
    limits = (("n", n, 1), ("n_chains", n_chains, 1), ("sweeps", sweeps, 0), ("burn_in", burn_in, 0))
    for name, value, least in (*limits, ("spacing", spacing, 1)):
        if value < least:
            raise StatesError(f"found {name}={value}; expected at least {least}; raise it")
    if not 0 < block_sweeps < np.inf:
        raise StatesError(f"found block_sweeps={block_sweeps}; expected a positive number; correct it")
    if ensemble not in ("equilibrium", "quenched"):
        raise StatesError(f"found ensemble={ensemble!r}; expected 'equilibrium' or 'quenched'; choose one")


def _energies(energies: RelaxedEnergies, cell: Supercell, occupations: NDArray, carriers: NDArray) -> NDArray:
    return energies(States.from_occupations(cell, occupations, carriers=carriers))


def _without_energy(lost: int, n: int, energies: RelaxedEnergies) -> None:
    raise StatesError(
        f"{lost} of {n} states have no relaxed energy ({energies.reason}); expected states that keep their atoms on "
        "their sites; check the calculator and the lattice parameter, or raise burn_in"
    )


class _Blocks:
    """Blocks of Metropolis moves of all atoms."""

    def __init__(
        self, cell: Supercell, model: Any, temperature_K: float, chains: int, seed: int, sweeps: int, block: float
    ) -> None:
        self._chain = MonteCarlo(cell, model, temperature_K, n_chains=chains, seed=seed)
        self._sweeps, self._attempts = sweeps, max(1, round(block * self._chain.sweep_length))

    def start(self) -> tuple[NDArray, NDArray, NDArray]:
        self._chain.run(self._sweeps)
        return self._present()

    def propose(self, occupations: NDArray, carriers: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        self._chain.restart(occupations, carriers)
        self._chain.attempt(self._attempts)
        return self._present()

    def _present(self) -> tuple[NDArray, NDArray, NDArray]:
        chain = self._chain
        # energies afresh: sums of many changes would make them depend on the path
        return chain.occupations.copy(), chain.carriers.copy(), chain.model.energies(chain.occupations)


class _Carriers:
    """The carrier of frozen arrangements, drawn with the model's probabilities."""

    def __init__(self, cell: Supercell, model: Any, temperature_K: float, chains: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._bath = CarrierHeatBath(
            cell, energy_of(model, cell), temperature_K, *random_occupations(cell, chains, self._rng)
        )

    def start(self) -> tuple[NDArray, NDArray, NDArray]:
        return self._bath.draw(self._rng, np.arange(len(self._bath.homes)))

    def propose(self, occupations: NDArray, carriers: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        return self.start()


def _proposals(
    cell: Supercell,
    model: Any,
    temperature_K: float,
    ensemble: str,
    chains: int,
    seed: int,
    sweeps: int,
    block_sweeps: float,
) -> _Blocks | _Carriers:
    if ensemble == "quenched":
        return _Carriers(cell, model, temperature_K, chains, seed)
    return _Blocks(cell, model, temperature_K, chains, seed, sweeps, block_sweeps)


def _statistics(trace: NDArray, accepted: list[NDArray], n: int, ensemble: str) -> dict[str, Any]:
    """Acceptance, equilibration and autocorrelation of a trace of energies (n_blocks, n_chains)."""
    tries = np.concatenate([*accepted, np.empty(0, dtype=bool)])
    usable = trace[:, np.isfinite(trace).all(axis=0)]
    quenched, chains = ensemble == "quenched", trace.shape[1]
    # frozen arrangements keep their mean energies apart: only what moves within a chain has a memory to lose
    moving = usable - usable.mean(axis=0) if quenched and usable.size else usable
    tau = autocorrelation_time(moving) if usable.size else float("nan")
    per_chain = len(trace) / max(1.0, 2.0 * tau) if np.isfinite(tau) and not quenched else 1.0
    return {
        "acceptance": float(tries.mean()) if len(tries) else float("nan"),
        "equilibration_z": equilibration_z(usable),
        "autocorrelation_blocks": tau,
        "independent_states": float(min(n, chains * max(1.0, per_chain))),
        "mean_energy_eV": float(usable.mean()) if usable.size else float("nan"),
    }


def _warn(report: dict[str, Any]) -> None:
    if report["acceptance"] < LOW_ACCEPTANCE:
        warnings.warn(
            LowAcceptance(
                f"{100 * report['acceptance']:.1f} % of the blocks are accepted (the model's energies are off by "
                f"{report['energy_difference_std_eV']:.3f} eV); expected at least {100 * LOW_ACCEPTANCE:.0f} %",
                number=100 * report["acceptance"],
                limit=100 * LOW_ACCEPTANCE,
                unit="%",
                advice="fit the model to more states, or lower block_sweeps",
            ),
            stacklevel=3,
        )
    z = report["equilibration_z"]
    if 2.0 * student.sf(abs(z), max(1, report["chains"] - 1)) < EQUILIBRATION_P:
        warnings.warn(
            NotAtEquilibrium(
                f"the reference energy of the chains still drifts ({z:.1f} standard errors between the third and the "
                "last quarter of the kept blocks); the states are not at equilibrium",
                number=z,
                limit=float(student.isf(0.5 * EQUILIBRATION_P, max(1, report["chains"] - 1))),
                unit="standard errors",
                advice="raise burn_in",
            ),
            stacklevel=3,
        )
    if report["rejected_failed"]:
        warnings.warn(
            FailedCalculations(
                f"{report['rejected_failed']} of {report['relaxed_states']} states could not be relaxed and were never "
                "accepted; expected none: the sample lacks them",
                number=report["rejected_failed"],
                limit=0,
                unit="states",
                advice="check the calculator",
            ),
            stacklevel=3,
        )
