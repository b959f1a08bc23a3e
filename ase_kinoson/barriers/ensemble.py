"""`BarrierEnsemble`: several barrier models of one data set, their mean and how far they disagree.

The mean of state functions is a state function, and the mean of symmetric K is symmetric: the mean model obeys
detailed balance like each member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save as save_tensors
from tqdm import tqdm

from ase_kinoson.barriers.composition_range import CompositionRange
from ase_kinoson.barriers.learned import VERSION, BarrierModel
from ase_kinoson.barriers.model_file import read_model, read_tensors, write_model
from ase_kinoson.barriers.model_fit import TEST, TRAIN, VALIDATION, FitSettings, report_held_out, split_sets
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.barriers.training_sets import TrainingBarriers, TrainingSet, training_sets
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import ModelError

__all__ = ["BarrierEnsemble", "MeanEnergy"]

FORMAT = "ase_kinoson.BarrierEnsemble"

BINS = 5
"""Parts of the test jumps, by predicted error, in the report of reliability."""


@dataclass(frozen=True, eq=False)
class MeanEnergy:
    """Mean of several energies; an `EnergyModel`."""

    members: tuple[Any, ...]

    @property
    def supercell(self) -> Supercell:
        """The supercell of the occupations."""
        return self.members[0].supercell

    def energies(self, occupations: NDArray) -> NDArray[np.float64]:
        """Energies, eV, shape (n,), of occupations of shape (n, n_sites)."""
        return np.mean([m.energies(occupations) for m in self.members], axis=0)

    def swap_delta(self, occupations: NDArray, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
        """Energy change, eV, shape (n,), when each state exchanges the occupants of two sites."""
        return np.mean([m.swap_delta(occupations, first, second) for m in self.members], axis=0)

    def on(self, cell: Supercell) -> MeanEnergy:
        """The same energies on another supercell."""
        return MeanEnergy(tuple(m.on(cell) for m in self.members))


@dataclass(frozen=True, eq=False)
class BarrierEnsemble:
    """Barrier models of one lattice, fitted to different parts of one data set; a `BarrierSource`.

    :meth:`jump_energies` and :attr:`energy` are those of the mean model. Every entry of :attr:`members` is a
    `BarrierModel` of its own.

    Attributes
    ----------
    members : tuple of BarrierModel
        The models.
    scale : float
        Factor from the standard deviation of the members to the root mean square error of their mean, found on
        test states that no member has seen, no unit; 1 where there were none.
    report : dict
        ``held_out`` and ``fast_jumps`` of the mean model as in :attr:`BarrierModel.report`, and ``reliability`` of
        the predicted errors.

    Raises
    ------
    ModelError
        If there are no members.
    """

    members: tuple[BarrierModel, ...]
    scale: float = 1.0
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members:
            raise ModelError("found no models; expected at least one member; fit some")

    @classmethod
    def fit(
        cls,
        barriers: TrainingBarriers | Sequence[TrainingBarriers],
        *,
        members: int = 5,
        weights: ArrayLike | Sequence[ArrayLike] | None = None,
        seed: int = 0,
        progress: bool = False,
        **options: Any,
    ) -> BarrierEnsemble:
        """Fit several models that differ in seed and in the states that stop their training.

        All hold the same test states out; the other groups are dealt to the members, each of which validates on its
        own share (``validation_fraction`` at most) and trains on the rest.

        Parameters
        ----------
        barriers
            As in :meth:`BarrierModel.fit`.
        members
            Number of models, at least 2.
        weights, seed, progress
            As in :meth:`BarrierModel.fit`.
        **options
            As in :meth:`BarrierModel.fit`.

        Raises
        ------
        ModelError
            If an option is unknown or there are fewer than 2 members.
        BarrierError
            As in :meth:`BarrierModel.fit`.
        """
        if members < 2:
            raise ModelError(f"found members={members}; expected at least 2 to disagree; fit a BarrierModel for one")
        unknown = sorted(set(options) - set(FitSettings.__dataclass_fields__))
        if unknown:
            raise ModelError(f"found options {unknown}; expected those of BarrierModel.fit; correct them")
        settings = FitSettings(**options)
        sets = training_sets(barriers, weights)
        made = []
        for k in tqdm(range(members), desc="barrier models", disable=not progress):
            roles = _roles(sets, settings, k, members, seed)
            made.append(BarrierModel._fit(sets, roles, settings, seed=seed + k))
        ensemble = cls(tuple(made))
        report = report_held_out(ensemble, sets, roles, temperature_K=settings.temperature_K)
        scale, reliability = ensemble._calibrate(
            [s.take(np.flatnonzero(r == TEST)) for s, r in zip(sets, roles, strict=True)]
        )
        return cls(
            tuple(made),
            scale,
            {
                **report,
                "n_barriers": made[0].report["n_barriers"],
                "compositions": made[0].report["compositions"],
                "reliability": reliability,
                "members": members,
                "seed": seed,
            },
        )

    def _calibrate(self, test: Sequence[TrainingSet]) -> tuple[float, dict[str, Any]]:
        """Scale of the spread, and how well the scaled spread describes the errors."""
        errors, spreads, groups = [], [], []
        for s in test:
            if len(s):
                mean, spread = self.predict_with_error(s.states)
                rows, jumps = np.nonzero(s.weights > 0)
                errors.append((mean - s.barrier)[rows, jumps])
                spreads.append(spread[rows, jumps])
                groups.append(s.states.groups[rows])
        if not errors:
            return 1.0, {}
        error, spread, group = np.concatenate(errors), np.concatenate(spreads), np.concatenate(groups)
        if len(error) < 2 or not spread.any():
            return 1.0, {}
        scale = _ratio(error, spread)
        labels, index = np.unique(group, return_inverse=True)
        half = np.random.default_rng(0).permutation(np.arange(len(labels)) % 2)[index] == 0
        # coverage with the scale of the other half of the groups
        sides = [_ratio(error[h], spread[h]) if h.any() else scale for h in (~half, half)]
        z = np.abs(error) / np.maximum(np.where(half, sides[0], sides[1]) * spread, 1e-12)
        order = np.array_split(np.argsort(spread, kind="stable"), min(BINS, len(error)))
        return scale, {
            "scale": scale,
            "within_one_sigma": float((z < 1).mean()),
            "within_two_sigma": float((z < 2).mean()),
            "predicted_rmse": [float(scale * np.sqrt((spread[o] ** 2).mean())) for o in order],
            "found_rmse": [float(np.sqrt((error[o] ** 2).mean())) for o in order],
            "n": len(error),
        }

    @property
    def network(self) -> JumpNetwork:
        """The jumps it knows."""
        return self.members[0].network

    @property
    def supercell(self) -> Supercell:
        """The supercell of the occupations that :meth:`jump_energies` takes."""
        return self.network.supercell

    @property
    def species(self) -> tuple[str, ...]:
        """Species by code."""
        return self.supercell.species

    @property
    def energy(self) -> MeanEnergy:
        """The state function that ΔE comes from; Monte Carlo samples it."""
        return MeanEnergy(tuple(m.energy for m in self.members))

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        """Mean barriers and energy changes of all jumps of states; see :meth:`BarrierModel.jump_energies`.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.
        """
        found = [m.jump_energies(occupations, carriers) for m in self.members]
        return JumpEnergies(np.mean([f.barrier for f in found], axis=0), np.mean([f.delta_e for f in found], axis=0))

    def predict(self, states: States) -> NDArray[np.float64]:
        """Return the mean barriers of all jumps, eV, shape (n, J); ``inf`` where there is no jump.

        Parameters
        ----------
        states
            States on the supercell of the models.
        """
        return self.predict_with_error(states)[0]

    def predict_with_error(self, states: States) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean barriers and their calibrated standard errors, eV, shape (n, J) each.

        The error is ``scale`` times the standard deviation of the members (0 where there is no jump).

        Parameters
        ----------
        states
            States on the supercell of the models.
        """
        found = np.array([m.predict(states) for m in self.members])
        finite = np.isfinite(found[0])
        spread = np.where(finite, found, 0.0).std(axis=0, ddof=1 if len(found) > 1 else 0)
        return found.mean(axis=0), self.scale * spread

    @property
    def training_keys(self) -> tuple[str, ...]:
        """Names (:attr:`States.keys`) of the states that any member has seen."""
        return tuple(sorted({key for m in self.members for key in m.training_keys}))

    def on(self, cell: Supercell) -> BarrierEnsemble:
        """Use the models on another supercell of the same lattice; its species may be a subset.

        Parameters
        ----------
        cell
            The other supercell.
        """
        return BarrierEnsemble(tuple(m.on(cell) for m in self.members), self.scale, self.report)

    def with_device(self, device: str | torch.device) -> BarrierEnsemble:
        """Evaluate the models on a device; see :meth:`BarrierModel.with_device`.

        Parameters
        ----------
        device
            ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.
        """
        return BarrierEnsemble(tuple(m.with_device(device) for m in self.members), self.scale, self.report)

    def bind(self, network: JumpNetwork) -> BarrierEnsemble:
        """Use the models with the same jumps at another lattice constant; see :meth:`BarrierModel.bind`.

        Parameters
        ----------
        network
            The jumps.
        """
        return BarrierEnsemble(tuple(m.bind(network) for m in self.members), self.scale, self.report)

    @property
    def composition_range(self) -> CompositionRange | None:
        """Compositions of the fit; None where the file of the models does not tell."""
        return CompositionRange.of(self)

    # -- files ------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (weights of all members) and ``path.json`` (all else).

        Parameters
        ----------
        path
            Without ending; ``.json`` and ``.safetensors`` are taken off.
        """
        parts = [m._parts() for m in self.members]
        arrays = {f"{k}.{name}": value for k, (_, own) in enumerate(parts) for name, value in own.items()}
        about = {"scale": self.scale, "report": self.report, "members": [a for a, _ in parts]}
        write_model(path, {"format": FORMAT, "version": VERSION, **about}, save_tensors(arrays))

    @classmethod
    def load(cls, path: str | Path, network: JumpNetwork | None = None) -> BarrierEnsemble:
        """Read an ensemble; see :meth:`BarrierModel.load`.

        Parameters
        ----------
        path
            File of :meth:`save`.
        network
            Jumps to bind the models to; default their own.

        Raises
        ------
        ModelError
            If the file is damaged or incomplete, or the models belong to other jumps.
        """
        about, data = read_model(path, FORMAT, VERSION)
        arrays = read_tensors(path, data)
        members = []
        try:
            for k, one in enumerate(about["members"]):
                own = {n.split(".", 1)[1]: v for n, v in arrays.items() if n.split(".", 1)[0] == str(k)}
                members.append(BarrierModel._rebuild(one, own))
            ensemble = cls(tuple(members), float(about["scale"]), dict(about["report"]))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model file {path} is incomplete ({type(error).__name__}: {error}); expected a complete "
                "one; fit the models again"
            ) from error
        if network is None:
            return ensemble
        ensemble = ensemble.bind(network)
        if network.fingerprint != ensemble.network.fingerprint:
            raise ModelError(
                f"the models of {path} belong to other jumps ({ensemble.network!r}); expected those of "
                f"{network!r}; fit models for them"
            )
        return ensemble.on(network.supercell)

    def __repr__(self) -> str:
        found = self.report.get("held_out", {}).get("all")
        error = f", held-out MAE {found['barrier']['model']['mae']:.4f} eV" if found else ""
        return f"BarrierEnsemble({len(self.members)} models of {'-'.join(self.species[1:])}{error})"


def _ratio(error: NDArray, spread: NDArray) -> float:
    return float(np.sqrt((error**2).sum() / max((spread**2).sum(), 1e-30)))


def _roles(
    sets: Sequence[TrainingSet], settings: FitSettings, member: int, members: int, seed: int
) -> list[NDArray[np.int64]]:
    """Roles of the states for one member: common test states, its own validation groups."""
    roles = split_sets(sets, 0.0, settings.test_fraction, seed=seed)
    if settings.validation_fraction == 0:
        return roles
    groups = np.concatenate([s.states.groups for s in sets])
    flat = np.concatenate(roles)
    labels = np.unique(groups[flat == TRAIN])
    size = max(1, min(round(settings.validation_fraction * len(np.unique(groups))), len(labels) // 2))
    turn = np.random.default_rng([seed, 1]).permutation(labels)
    first = round(member * len(labels) / members)
    own = np.take(turn, np.arange(first, first + size), mode="wrap")
    flat[np.isin(groups, own) & (flat == TRAIN)] = VALIDATION
    return np.split(flat, np.cumsum([len(s) for s in sets])[:-1])
