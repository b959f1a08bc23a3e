"""`BarrierModel`: barriers learned from a set of reference barriers.

Q = K + ΔE/2. ΔE is the difference of a state function (`PairEnergy`), so that closed loops of jumps sum to
zero; K is the same for a jump and its reverse (`KraModel`). Detailed balance therefore holds by
construction, whatever was learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from tqdm import tqdm

from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.fitting import held_out_errors, split_groups
from ase_kinoson.barriers.kra import KraModel, KraNetwork, single_thread
from ase_kinoson.barriers.model_file import (
    alloy_from_dict,
    alloy_to_dict,
    network_from_rows,
    network_to_rows,
    read_model,
    same_lattice,
    write_model,
)
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.crystal.environment import JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import BarrierError, ModelError

__all__ = ["BarrierModel", "TrainingBarriers"]

FORMAT = "ase_kinoson.BarrierModel"
VERSION = 1


class TrainingBarriers(Protocol):
    """What :meth:`BarrierModel.fit` learns from; J jumps per state, eV."""

    @property
    def states(self) -> States:
        """The n states."""
        ...

    @property
    def network(self) -> JumpNetwork:
        """Their jumps."""
        ...

    @property
    def barrier(self) -> NDArray[np.float64]:
        """Shape (n, J); ``inf`` where rejected."""
        ...

    @property
    def delta_e(self) -> NDArray[np.float64]:
        """Shape (n, J)."""
        ...

    @property
    def energy_initial(self) -> NDArray[np.float64]:
        """Shape (n,)."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Shape (n, J)."""
        ...


class BarrierModel:
    """Barriers of all jumps of any state of one lattice; a `BarrierSource`.

    Make one with :meth:`fit` or :meth:`load`.

    Attributes
    ----------
    energy : PairEnergy
        The state function that ΔE comes from; Monte Carlo samples it.
    kra : KraModel
        The symmetric part.
    report : dict
        Sizes, seeds, settings and the errors on held-out states, by species.
    """

    def __init__(
        self, network: JumpNetwork, energy: PairEnergy, kra: KraModel, report: Mapping[str, Any] | None = None
    ) -> None:
        self._network = network
        self.energy = energy
        self.kra = kra
        self.report: dict[str, Any] = dict(report or {})

    @property
    def network(self) -> JumpNetwork:
        """The jumps it knows."""
        return self._network

    @property
    def supercell(self) -> Supercell:
        """The supercell of the occupations that :meth:`jump_energies` takes."""
        return self._network.supercell

    @property
    def species(self) -> tuple[str, ...]:
        """Species by code."""
        return self.supercell.species

    # -- fitting ------------------------------

    @classmethod
    def fit(
        cls,
        barriers: TrainingBarriers,
        *,
        seed: int = 0,
        hidden: int = 32,
        epochs: int = 60,
        layers: int = 1,
        learning_rate: float = 3e-3,
        weight_decay: float = 1.0,
        dropout: float = 0.1,
        batch_size: int | None = None,
        energy_cutoff: float | None = None,
        triplet_cutoff: float | None = None,
        environment_cutoff: float | None = None,
        test_fraction: float = 0.15,
        validation_fraction: float = 0.15,
        progress: bool = False,
        device: str = "cpu",
    ) -> BarrierModel:
        """Learn energies and barriers.

        Energies by ridge regression on pair counts; K by ridge regression on symmetrised counts, then a
        small invariant network on the residual, trained with AdamW and stopped at the epoch that is best on
        the validation states (the linear part alone, epoch 0, is a valid outcome). States of one group stay
        on one side of every split. Rejected jumps are left out.

        Parameters
        ----------
        barriers
            Reference barriers of states.
        seed
            Seed of splits, initial weights and batches; equal seeds give equal models.
        hidden
            Width of the network; 0: linear part only.
        epochs, layers, learning_rate, weight_decay, dropout, batch_size
            Training of the network; ``dropout`` hides that fraction of the sites around a jump.
        energy_cutoff
            Longest pair of the energy, Å; default 2.01 times the shortest jump.
        triplet_cutoff
            As in :meth:`PairEnergy.fit`.
        environment_cutoff
            Distance from either end of a jump up to which K sees atoms, Å; default 1.75 times the shortest
            jump.
        test_fraction, validation_fraction
            Share of the groups held out for the report and for stopping.
        progress
            Show a progress bar.
        device
            Where the network trains: ``"cpu"``, ``"cuda"`` or ``"auto"``.

        Raises
        ------
        BarrierError
            If there are too few independent states.
        """
        states = barriers.states
        network = barriers.network
        if network.supercell != states.supercell:
            network = network.with_supercell(states.supercell)
        exists = network.targets(states.carriers) >= 0
        barrier, delta = np.asarray(barriers.barrier, dtype=float), np.asarray(barriers.delta_e, dtype=float)
        use = np.asarray(barriers.valid, dtype=bool) & exists & np.isfinite(barrier) & np.isfinite(delta)
        if not use.any():
            raise BarrierError(f"found no valid barrier in {len(states)} states; expected some; compute barriers first")
        if not 0 <= test_fraction + validation_fraction < 1:
            raise BarrierError(
                f"found test_fraction={test_fraction} and validation_fraction={validation_fraction}; "
                f"expected a sum below 1; lower them"
            )
        train, validation, test = split_groups(states.groups, (validation_fraction, test_fraction), seed=seed)
        if not use[train].any():
            raise BarrierError("found no valid barrier among the training states; expected some; compute more states")
        energy = PairEnergy.fit(
            states[train],
            np.asarray(barriers.energy_initial, dtype=float)[train],
            network=network,
            delta_e=delta[train],
            valid=use[train],
            cutoff=energy_cutoff,
            triplet_cutoff=triplet_cutoff,
        )
        environment = JumpEnvironment.build(network, cutoff=environment_cutoff)
        n_atoms = len(states.supercell.species) - 1
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [KraNetwork(kind, n_atoms, hidden=hidden, layers=layers) for kind in environment.classes]
        kra = KraModel(environment, networks)
        target = np.where(use, barrier, 0.0) - 0.5 * np.where(use, delta, 0.0)
        reports = []
        generator = torch.Generator().manual_seed(seed)
        samples = kra.samples(states.occupations, states.carriers, use, target, states.groups)
        with tqdm(total=epochs * len(networks), desc="barrier model", disable=not progress) as bar:
            for net, (data, rows, _) in zip(networks, samples, strict=True):
                fit_rows, check_rows = np.isin(rows, train), np.isin(rows, validation)
                one: dict[str, Any] = {"n_train": int(fit_rows.sum()), "n_validation": int(check_rows.sum())}
                if fit_rows.any():
                    one.update(net.fit_linear(data[fit_rows]))
                if hidden and fit_rows.any():
                    with single_thread(where.type == "cpu"):
                        found = net.fit_residual(
                            data[fit_rows],
                            data[check_rows],
                            epochs=epochs,
                            generator=generator,
                            learning_rate=learning_rate,
                            weight_decay=weight_decay,
                            batch=batch_size or int(np.clip(fit_rows.sum() // 30, 32, 256)),
                            dropout=dropout,
                            device=where,
                            tick=bar.update,
                        )
                    one.update(found)
                net.double()
                net.eval()
                reports.append(one)
        model = cls(network, energy, kra)
        moving = network.moving_species(states.occupations, states.carriers)
        model.report = {
            "seed": seed,
            "n_states": len(states),
            "n_groups": len(np.unique(states.groups)),
            "n_barriers": int(use.sum()),
            "n_rejected": int((exists & ~use).sum()),
            "n_train": int(use[train].sum()),
            "n_validation": int(use[validation].sum()),
            "n_test": int(use[test].sum()),
            "settings": {
                "hidden": hidden,
                "layers": layers,
                "epochs": epochs,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "dropout": dropout,
                "energy_cutoff": energy.clusters.cutoff,
                "triplet_cutoff": energy.clusters.triplet_cutoff,
                "environment_cutoff": environment.cutoff,
                "test_fraction": test_fraction,
                "validation_fraction": validation_fraction,
            },
            "energy": dict(energy.report),
            "kra": reports,
            "held_out": {},
            "training_keys": states[np.concatenate([train, validation])].keys,
        }
        if len(test):
            seen = model.jump_energies(states.occupations[test], states.carriers[test])
            mask = use[test]
            model.report["held_out"] = held_out_errors(
                states.supercell.species,
                moving[test][mask],
                {
                    "barrier": (seen.barrier[mask], barrier[test][mask]),
                    "delta_e": (seen.delta_e[mask], delta[test][mask]),
                },
                moving[train][use[train]],
                {"barrier": barrier[train][use[train]], "delta_e": delta[train][use[train]]},
            )
        return model

    @property
    def training_keys(self) -> tuple[str, ...]:
        """Names (:attr:`States.keys`) of the states that the fit or its stopping has seen."""
        return tuple(self.report.get("training_keys", ()))

    # -- predicting ------------------------------

    def jump_energies(self, occupations: NDArray, carriers: ArrayLike) -> JumpEnergies:
        """Return barriers and energy changes of all jumps of states.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
        carriers : array_like of int, shape (n,)
        """
        occ, c = np.asarray(occupations), np.asarray(carriers, dtype=np.int64)
        if occ.ndim != 2 or occ.shape[1] != self.supercell.n_sites or c.shape != (len(occ),):
            raise ModelError(
                f"found occupations of shape {occ.shape} and carriers of shape {c.shape}; expected (n, "
                f"{self.supercell.n_sites}) and "
                "(n,); move the model to their supercell with .on(supercell)"
            )
        targets = self.network.targets(c)
        near = occ[np.arange(len(c))[:, None], targets]  # not all sites: the cost shall not grow with the cell
        if near.size and (near.min() < 0 or near.max() >= len(self.species)):
            raise ModelError(
                f"found species code {int(near.max())}; expected 0 to {len(self.species) - 1} for "
                f"{self.species}; use states of "
                "this model's supercell"
            )
        exists = targets >= 0
        delta = self.energy.jump_delta(occ, c, self.network)
        barrier = self.kra.kra(occ, c) + 0.5 * delta
        return JumpEnergies(np.where(exists, barrier, np.inf), np.where(exists, delta, 0.0))

    def predict(self, states: States) -> NDArray[np.float64]:
        """Return the barriers of all jumps, eV, shape (n, J); ``inf`` where there is no jump."""
        return self.on(states.supercell).jump_energies(states.occupations, states.carriers).barrier

    def on(self, cell: Supercell) -> BarrierModel:
        """Use the model on another supercell of the same lattice; its species may be a subset.

        Raises
        ------
        ModelError
            If the lattice is another one or a species is unknown.
        """
        own = self.supercell
        if cell == own:
            return self
        if cell.alloy == own.alloy:
            network = self.network.with_supercell(cell)
        else:
            same_lattice(own.alloy, cell.alloy)
            missing = [s for s in cell.species if s not in own.species]
            if missing:
                raise ModelError(
                    f"the states hold {missing}, which the model does not know; expected species among "
                    f"{own.species[1:]}; fit a model "
                    "with these species"
                )
            network = replace(self.network, supercell=cell)
            network._check_images()
        kra = self.kra
        if cell.species != own.species:
            kra = kra.with_species(np.array([own.species.index(s) for s in cell.species[1:]]))
        return BarrierModel(network, self.energy.on(cell), kra.on(network), self.report)

    # -- files ------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (weights) and ``path.json`` (all else that rebuilds the model)."""
        arrays = {f"energy.{k}": np.ascontiguousarray(v) for k, v in self.energy.to_arrays().items()}
        for label, net in enumerate(self.kra.networks):
            for name, value in net.state_dict().items():
                arrays[f"kra.{label}.{name}"] = np.ascontiguousarray(value.detach().cpu().numpy())
        data = save_tensors(arrays)
        first = self.kra.networks[0]
        about = {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network.fingerprint,
            "species": list(self.species),
            "alloy": alloy_to_dict(self.supercell.alloy),
            "supercell": self.supercell.matrix.tolist(),
            "jumps": network_to_rows(self.network),
            "energy_cutoff": self.energy.clusters.cutoff,
            "triplet_cutoff": self.energy.clusters.triplet_cutoff,
            "environment_cutoff": self.kra.environment.cutoff,
            "hidden": first.hidden,
            "layers": len(first.own) if first.hidden else 1,
            "report": self.report,
        }
        write_model(path, about, data)

    @classmethod
    def load(cls, path: str | Path, network: JumpNetwork | None = None) -> BarrierModel:
        """Read a model.

        Parameters
        ----------
        path
            As given to :meth:`save`.
        network
            Jumps to use it on; must be those of the model's lattice. Default: rebuilt from the file.

        Raises
        ------
        ModelError
            If a file is missing, truncated, of another kind, or the network is another one.
        """
        about, data = read_model(path, FORMAT, VERSION)
        try:
            model = cls._rebuild(about, load_tensors(data))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model file {path} is incomplete ({type(error).__name__}: {error}); expected a complete "
                "one; fit the model again"
            ) from error
        if network is None:
            return model
        if network.fingerprint != model.network.fingerprint:
            raise ModelError(
                f"the model of {path} belongs to other jumps ({model.network!r}); expected those of "
                f"{network!r}; fit a model for them"
            )
        return model.on(network.supercell)

    @classmethod
    def _rebuild(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> BarrierModel:
        alloy = alloy_from_dict(about["alloy"])
        cell = Supercell(alloy, np.array(about["supercell"], dtype=np.int64))
        network = network_from_rows(cell, about["jumps"])
        if network.fingerprint != about["network"] or list(cell.species) != about["species"]:
            raise ModelError(
                "the lattice in the model file is not the one it was fitted on; expected the same; fit the model again"
            )
        clusters = PairClusters.build(
            cell, cutoff=about["energy_cutoff"], network=network, triplet_cutoff=about["triplet_cutoff"]
        )
        prefix = "energy."
        energy = PairEnergy.from_arrays(
            clusters, {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
        )
        energy = replace(energy, report=about["report"].get("energy", {}))
        environment = JumpEnvironment.build(network, cutoff=about["environment_cutoff"])
        networks = []
        for label, kind in enumerate(environment.classes):
            net = KraNetwork(kind, len(cell.species) - 1, hidden=about["hidden"], layers=about["layers"]).double()
            prefix = f"kra.{label}."
            net.load_state_dict({k[len(prefix) :]: torch.tensor(v) for k, v in arrays.items() if k.startswith(prefix)})
            net.eval()
            networks.append(net)
        return cls(network, energy, KraModel(environment, networks), about["report"])

    def __repr__(self) -> str:
        found = self.report.get("held_out", {}).get("all")
        error = f", held-out MAE {found['barrier']['model']['mae']:.4f} eV" if found else ""
        size = self.report.get("n_barriers", "?")
        return f"BarrierModel({'-'.join(self.species[1:])}, {size} barriers{error})"
