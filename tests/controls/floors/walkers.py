"""Defects of trajectories, in NumPy and on a device; their controls are those of the module ``kinetics``."""

from __future__ import annotations

from typing import Any

from tests.controls.planting import Defect, call, source


def _without(*names: str) -> Any:
    return lambda right, *args, **kwargs: tuple(name for name in right(*args, **kwargs) if name not in names)


DEFECTS: dict[str, Defect] = {
    "burn-in forgotten": source(
        "no jump before measuring", "kinetics.kmc:KineticMonteCarlo.burn_in", "self.run(n_jumps, tick=tick)", "pass"
    ),
    "species rates of another species": source(
        "table of rates shifted",
        "kinetics.kmc:KineticMonteCarlo._jump",
        "self._by_species[moved]",
        "np.roll(self._by_species[1:], 1)[moved - 1]",
    ),
    "walkers are groups of their own": source(
        "groups of the states they start from forgotten",
        "kinetics.kmc:KineticMonteCarlo.__init__",
        "states.groups[start].astype(np.int64)",
        "start",
    ),
    "snapshots of one group each": source(
        "groups of walkers forgotten",
        "kinetics.kmc:KineticMonteCarlo.snapshot",
        "groups=self.groups.copy()",
        "groups=np.arange(self.n_walkers)",
    ),
    "first state recorded": source(
        "weights of the starts forgotten",
        "kinetics.recording:record_trajectory",
        "int(rng.choice(len(states), p=states.weights))",
        "0",
    ),
    "frames in picoseconds": source(
        "wrong unit", "kinetics.recording:KmcTrajectory.time_step", "/ unit_s", "/ (1e3 * unit_s)"
    ),
    "a small number added to Γ": source(
        "against division by zero", "kinetics.kmc:KineticMonteCarlo._jump", "1.0 / gamma", "1.0 / (gamma + 1e-12)"
    ),
    "every second block of jumps": source(
        "longer lags from half of the jumps",
        "kinetics.lags:LagLadder.add",
        "blocks[:, 0::2] + blocks[:, 1::2]",
        "2.0 * blocks[:, 0::2]",
    ),
    "atoms of paired blocks mixed up": source(
        "numbers of atoms of the wrong block",
        "kinetics.lags:_Moved.paired",
        "self.key // (2 * n_atoms) * n_atoms + self.key % n_atoms",
        "self.key // 2",
    ),
    "blocks that wait are lost": source(
        "checkpoints begin new blocks",
        "kinetics.lags:LagLadder.restore",
        '[arrays.get(f"waiting_{level}") for level in levels]',
        "[None for level in levels]",
    ),
    "random numbers go on where they are": source(
        "checkpoints do not restore them",
        "kinetics.kmc:KineticMonteCarlo.load",
        'self._rng.bit_generator.state = about["generator"]',
        'about["generator"]',
    ),
    "mean residence times recorded": source(
        "no waiting time is drawn",
        "kinetics.recording:record_trajectory",
        " * rng.exponential(size=n_jumps)",
        "",
    ),
    "jumps seen a frame late": source(
        "after the frame at which they happen",
        "kinetics.recording:KmcTrajectory.displacements",
        'side="left"',
        'side="right"',
    ),
    "vacancy moves with the atoms": source(
        "its displacement of the wrong sign",
        "kinetics.recording:KmcTrajectory.to_atoms",
        "-moved.sum(axis=0)",
        "moved.sum(axis=0)",
    ),
    "interstitials move what they meet": source(
        "the atom at the end of the jump",
        "kinetics.kmc:KineticMonteCarlo._jump",
        "atoms[here if interstitial else there]",
        "atoms[there]",
    ),
    # trajectories on a device
    "device adds residence times of Γ": source(
        "times grow by rates",
        "kinetics.device_kmc:DeviceKineticMonteCarlo._step",
        "times += residence",
        "times += gamma",
    ),
    "device follows no atoms": source(
        "atoms are not exchanged along with the vacancy",
        "kinetics.device_kmc:DeviceKineticMonteCarlo._step",
        "_exchange(atoms, here, there)",
        "pass",
    ),
    "device squares without half of the cross terms": source(
        "an atom in both halves of a block counts once",
        "kinetics.device_ladder:DeviceLadder._window",
        "squares + cross + cross.mT",
        "squares + cross",
    ),
    "device numbers walkers of each part alike": source(
        "lists of atoms of different walkers mixed",
        "kinetics.device_ladder:DeviceLadder._window",
        "torch.arange(rows.start, rows.start + n,",
        "torch.arange(n,",
    ),
    "device forgets blocks that wait": source(
        "checkpoints begin new blocks",
        "kinetics.device_ladder:DeviceLadder.restore",
        'if f"waiting_{level}" in arrays else None',
        "if False else None",
    ),
    "device random numbers go on where they are": call(
        "checkpoints do not keep them",
        "kinetics.device_kmc:DeviceKineticMonteCarlo._kept",
        _without("_generator_state"),
    ),
    "device draws a whole run at once": source(
        "random numbers of an interrupted run are lost",
        "kinetics.device_kmc:DeviceKineticMonteCarlo.run",
        "draws = None",
        "draws = torch.stack([self._uniform() for _ in range(done)])",
    ),
    "slices share a walker": source(
        "ends of slices counted twice", "kinetics.loops:over_walkers", "edges[1:]))", "[e + 1 for e in edges[1:]]))"
    ),
}
