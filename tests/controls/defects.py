"""What can be physically wrong, as changes of the package that tests must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.controls import floors
from tests.controls.planting import call, source

# -- some take more than a word ----------------------------------------------------------------------------------


def _only_identity(right: Any, *args: Any, **kwargs: Any) -> Any:
    """Networks average over one operation: the one that moves nothing."""
    import numpy as np

    found = right(*args, **kwargs)
    for kind in found.classes:
        own = np.arange(kind.n_sites)
        keep = [i for i, perm in enumerate(kind.permutations) if np.array_equal(perm, own)][:1]
        for name in ("permutations", "rotations"):
            object.__setattr__(kind, name, getattr(kind, name)[keep])
    return found


def _start_only(right: Any, self: Any, occupations: Any, carriers: Any) -> Any:
    """K that sees the neighbours of the start, not those of the end."""
    from dataclasses import replace

    import numpy as np

    found = right(self, occupations, carriers)
    targets = np.maximum(self.network.targets(carriers), 0)
    near = occupations[np.arange(len(targets))[:, None], targets].astype(float).sum(axis=1)
    return replace(found, barrier=found.barrier + 0.01 * near[:, None])


def _nobody_held_out(right: Any, states: Any, rng: Any) -> Any:
    """Validation by states that are trained on."""
    import numpy as np

    held = right(states, rng)
    return np.roll(held, 1)


def _scaled(factor: float) -> Callable[..., Any]:
    return lambda right, *args, **kwargs: factor * right(*args, **kwargs)


def _times_dimension(right: Any, averages: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
    from dataclasses import replace

    parts = ("collective", "collective_bare", "tracer", "tracer_bare")
    wrong = {name: getattr(averages, name) for name in parts}
    wrong = {k: None if v is None else v * network.dimension for k, v in wrong.items()}
    return right(replace(averages, **wrong), network, *args, **kwargs)


def _equal_times(right: Any, self: Any) -> None:
    """Every state counts as long as any other."""
    before = self.times.copy()
    right(self)
    self.times[:] = before + 1.0


def _turned_about(right: Any, self: Any) -> None:
    """Atoms move with the vacancy, not against it."""
    before = None if self.displacements is None else self.displacements.copy()
    right(self)
    if before is not None:
        self.displacements[:] = 2 * before - self.displacements


def _not_of_the_lattice(right: Any, self: Any, occupations: Any, carriers: Any) -> Any:
    """y of a state knows where in the cell its carrier is: a drift with the origin."""
    import numpy as np

    found = right(self, occupations, carriers)
    phase = np.asarray(carriers) % 3
    return found * (1.0 + 0.2 * phase)[:, None, None]


def _drifting(right: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """y with a constant vector that comes and goes with the state: no difference of one function."""
    from dataclasses import replace

    found = right(self, *args, **kwargs)
    return replace(found, moved=0.8 * found.moved)


DEFECTS = {
    **floors.DEFECTS,
    # units and prefactors
    "k_BT one per cent too large": call("k_BT times 1.01", "units:thermal_energy", _scaled(1.01)),
    "temperature in degrees Celsius": call(
        "k_B(T − 273.15 K)", "units:thermal_energy", lambda right, temperature_K: right(temperature_K - 273.15)
    ),
    "factor d forgotten": call(
        "Λ is the trace, not the trace over d", "kinosons.coefficients:coefficients", _times_dimension
    ),
    "every jump counted twice": source("½ forgotten in Λ", "kinosons.assembly:pair_terms", "0.5 *", "1.0 *"),
    "tracer jumps counted twice": source("½ forgotten in Λ*", "kinosons.assembly:tracer_terms", "0.5 *", "1.0 *"),
    "exact jumps counted twice": source("½ forgotten in exact sums", "kinosons.exact:_outer", "0.5 *", "1.0 *"),
    "kinosons of twice the size": source(
        "1/d instead of 1/(2d)", "kinosons.table:KinosonTable.build", "d2 = 2.0 *", "d2 = 1.0 *"
    ),
    "volume of the primitive cell": source(
        "Ω per site of the whole cell", "kinosons.coefficients:site_volume", "/ len(cell.mobile_sites)", "/ 1.0"
    ),
    "weights of states forgotten": source(
        "all states weigh alike", "kinosons.statistics:Bootstrap.means", "(self.weights @ flat)", "(flat.mean(axis=0))"
    ),
    "states resampled one by one": source(
        "groups taken for single states",
        "kinosons.statistics:Bootstrap.over",
        "np.unique(groups, return_inverse=True)",
        "np.unique(np.arange(len(groups)), return_inverse=True)",
    ),
    "errors a third of what they are": call(
        "of every coefficient", "kinetics.resampling:standard_error", _scaled(1.0 / 3.0)
    ),
    # geometry
    "wrong minimum image": source(
        "no image but the atom itself", "crystal.mapping:minimum_image", "scaled - np.rint(scaled)", "scaled"
    ),
    "only the nearest image by axes": source(
        "images of skewed cells left out",
        "crystal.mapping:minimum_image",
        "if np.abs(metric - np.diag(np.diag(metric))).max() < 1e-9 * metric.max():",
        "if True:",
    ),
    "drift of all atoms not removed": source(
        "atoms are compared with sites where they lie",
        "crystal.mapping:map_atoms",
        "drift = drift - mean",
        "drift = drift",
    ),
    "cells wrapped without their shear": source(
        "each axis wrapped alone",
        "crystal.supercell:Supercell.cell_index",
        "n = n - q[..., None] * h[axis]",
        "n = n - q[..., None] * h[axis] * np.eye(3, dtype=np.int64)[axis]",
    ),
    "sites of cells counted in another order": source(
        "coordinates of cells exchanged",
        "crystal.supercell:Supercell.cell_coordinates",
        "(i // h[2, 2]) % h[1, 1], i % h[2, 2]",
        "i % h[1, 1], (i // h[1, 1]) % h[2, 2]",
    ),
    "jump vector of the wrong sign": source(
        "one vector points back",
        "crystal.jumps:JumpNetwork._from_rows",
        "pairs.vector[row], 0.0)",
        "pairs.vector[row], 0.0) * np.where(np.arange(n_jumps) == 0, -1.0, 1.0)[:, None]",
    ),
    "a jump is its own reverse": source(
        "no way back",
        "crystal.jumps:JumpNetwork._from_rows",
        "reverse=np.where(exists, reverse, 0)",
        "reverse=np.where(exists, np.arange(n_jumps), 0)",
    ),
    "all jumps in one class": source(
        "symmetry of jumps forgotten",
        "crystal.jumps:JumpNetwork._from_rows",
        "jump_class=relabel(pairs.undirected)",
        "jump_class=np.where(exists, 0, -1)",
    ),
    "atoms move with the vacancy": source(
        "sign of δx", "kinosons.functional:bare_displacements", "else -1.0", "else 1.0"
    ),
    "the atom that moved stays": source(
        "exchange without the atom",
        "crystal.jumps:JumpNetwork.apply",
        "new[rows, c], new[rows, t] =",
        "new[rows, t], new[rows, t] =",
    ),
    "moving species of the carrier's site": source(
        "species of the wrong end",
        "crystal.jumps:JumpNetwork.moving_species",
        "occupations[rows, t]",
        "occupations[rows, np.roll(t, 1, axis=1)]",
    ),
    "vacuum counts as a direction": source(
        "projector of all three vectors", "crystal.jumps:JumpNetwork.projector", "[self.supercell.pbc]", "[[True] * 3]"
    ),
    # barriers and energies
    "unsymmetrised K": call(
        "K sees the start of a jump only", "kinetics.lattice_gas:_BoundPairBarriers.jump_energies", _start_only
    ),
    "K without the group of its jump": call(
        "networks average over no operation", "crystal.environment:JumpEnvironment.build", _only_identity
    ),
    "energies without the group of their site": call(
        "networks average over no operation", "crystal.environment:CarrierEnvironment.build", _only_identity
    ),
    "detailed balance broken": source(
        "ΔE/2 forgotten in barriers", "kinetics.lattice_gas:_BoundPairBarriers.jump_energies", "+ 0.5 * delta", ""
    ),
    "barrier of the way back of the wrong sign": source(
        "Q + ΔE instead of Q − ΔE", "barriers.source:JumpEnergies.reverse_barrier", "- self.delta_e", "+ self.delta_e"
    ),
    "K with the whole ΔE": source(
        "K = Q − ΔE", "barriers.source:JumpEnergies.kra", "0.5 * self.delta_e", "self.delta_e"
    ),
    "site energy of the wrong end": source(
        "saddle minus end", "kinetics.lattice_gas:_BoundSiteBarriers.jump_energies", "saddle - start", "saddle - end"
    ),
    "rates of the inverse Boltzmann factor": source(
        "exp(+Q/k_BT) of the way back", "kinetics.rates:Rates.log_weights", "-model.energies", "model.energies"
    ),
    "train/validation leak": call("validated on what is trained on", "kinosons.training:_held_out", _nobody_held_out),
    # weights and averages
    "reweighting of the wrong sign": source(
        "exp(+ΔE/k_BT)",
        "kinetics.weights:reweight",
        "np.exp(-(difference[own] - difference[own].min()) / kT)",
        "np.exp((difference[own] - difference[own].max()) / kT)",
    ),
    "quenched weights over all arrangements": source(
        "arrangements weigh by their energies",
        "kinetics.weights:reweight",
        'states.groups if states.ensemble == "quenched" else',
        "",
    ),
    "quenched states weigh as in equilibrium": source(
        "arrangements weigh by their energies",
        "kinosons.state_space:StateSpace.weights",
        'if ensemble == "equilibrium"',
        'if ensemble in ("equilibrium", "quenched")',
    ),
    "y evaluated on training states": source(
        "a bound on states that trained y keeps its name", "kinosons.verdict:_seen", "if keys else 0", "if False else 0"
    ),
    # trajectories
    "forgotten residence-time weight": call(
        "states count alike however long they last", "kinetics.kmc:KineticMonteCarlo._jump", _equal_times
    ),
    "residence times forgotten in expected squares": source(
        "jumps weigh by their rates", "kinetics.kmc:KineticMonteCarlo._jump", "(w * residence[:, None])", "w"
    ),
    "snapshots without residence times": source(
        "jump chain taken for time",
        "kinetics.kmc:KineticMonteCarlo.snapshot",
        "weights=1.0 / gamma",
        "weights=gamma / gamma",
    ),
    "jumps drawn from equal probabilities": source(
        "rates do not count",
        "kinetics.kmc:KineticMonteCarlo._jump",
        "up_to = np.cumsum(w, axis=1)",
        "up_to = np.cumsum((w > 0) * w.sum(axis=1, keepdims=True) / (w > 0).sum(axis=1, keepdims=True), axis=1)",
    ),
    "walkers turned about": call(
        "displacements of the wrong sign", "kinetics.kmc:KineticMonteCarlo._jump", _turned_about
    ),
    "the wrong atom is followed": source(
        "atoms are not exchanged along with the vacancy",
        "kinetics.kmc:KineticMonteCarlo._jump",
        "atoms[here], atoms[there] = atoms[there], atoms[here]",
        "pass",
    ),
    "starts without escape rates": source(
        "walkers start from weights alone",
        "kinetics.kmc:KineticMonteCarlo.__init__",
        "self._draw(states.weights * gamma)",
        "self._draw(states.weights)",
    ),
    # the functional
    "species swapped in the tracer gather": source(
        "squares go to other species",
        "kinosons.functional:_species_moments",
        "sums[..., _AS_TENSOR]",
        "sums[:, :, ::-1][..., _AS_TENSOR]",
    ),
    "zz taken for yz": source("wrong component", "kinosons.functional:_species_moments", "start=3", "start=2"),
    "relaxed jumps that are no difference": call(
        "four fifths of Δy", "kinosons.relaxation:Relaxation.relaxed_jumps", _drifting
    ),
    "translation drift": call(
        "y knows where in the cell it is", "kinosons.relaxation:Relaxation.__call__", _not_of_the_lattice
    ),
    "exact y of the wrong sign": call(
        "Poisson equation with the wrong sign", "kinosons.exact:solve_poisson", _scaled(-1.0)
    ),
    "sum over atoms with the wrong sign": source(
        "Λ_av", "kinosons.derived:Scalars.against_vacancy", "-self.pairs", "self.pairs"
    ),
    # sampling, order and energies
    "Monte Carlo goes uphill": source(
        "accepts what it should refuse",
        "kinetics.monte_carlo:MonteCarlo._attempt",
        "ok = delta <= threshold[step, active]",
        "ok = -delta <= threshold[step, active]",
    ),
    "Monte Carlo at twice the temperature": source(
        "exp(−ΔE/2k_BT)", "kinetics.monte_carlo:MonteCarlo._attempt", "self._beta, out", "0.5 * self._beta, out"
    ),
    "drift without weights of states": source(
        "all states weigh alike",
        "kinetics.weights:energy_drift",
        "states.weights * np.where(mask, what, 0.0).sum(axis=1)",
        "np.where(mask, what, 0.0).sum(axis=1) / len(states)",
    ),
    "order of the wrong sign": call(
        "α for −α", "kinetics.short_range_order:_one_minus_ratio", lambda right, *a: (-right(*a)[0], right(*a)[1])
    ),
    "exchanged neighbours counted as strangers": source(
        "a bond within the pair changes twice",
        "barriers.energy:PairEnergy._swap",
        "result += np.bincount(i, right - wrong, minlength=len(rows))",
        "pass",
    ),
    "Boltzmann weights forgotten": call(
        "all enumerated states weigh alike",
        "kinosons.state_space:StateSpace.weights",
        lambda right, self, *args, **kwargs: np.full(len(self), 1.0 / len(self)),
    ),
    "angular frequency for frequency": source("2π forgotten", "barriers.prefactor:vineyard", "/ (2.0 * np.pi)", ""),
    "masses forgotten": source(
        "Hessians not weighted by masses",
        "barriers.prefactor:vineyard",
        "np.sqrt(np.repeat(np.asarray(masses, dtype=float), 3))",
        "np.ones(3 * len(masses))",
    ),
    "Onsager coefficients without k_BT": source(
        "Λ/Ω", "kinosons.coefficients:onsager_scale", " * thermal_energy(temperature_K)", ""
    ),
    "tagged atom counts once": source(
        "Λ* of one atom for that of all",
        "kinosons.exact:exact_tracer",
        "n * solved.matrix[-1, -1]",
        "solved.matrix[-1, -1]",
    ),
    "train/test leak": source(
        "energies are fitted to the test states too",
        "barriers.model_fit:fit_parts",
        "for s in train\n",
        "for s in sets\n",
    ),
    "vacancy wind of the wrong sign": source(
        "D_A with +Λ_AB",
        "kinosons.derived:_binary",
        "own.pairs[:, 0, 0] / share[0] - mixed",
        "own.pairs[:, 0, 0] / share[0] + mixed",
    ),
}
