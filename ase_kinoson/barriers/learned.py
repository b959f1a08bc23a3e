"""`BarrierModel`: barriers learned from a set of reference barriers.

Q = K + ΔE/2. ΔE is the difference of a state function (`PairEnergy`, or with a network `NetworkEnergy`), so that
closed loops of jumps sum to zero; K is the same for a jump and its reverse (`KraModel`). Detailed balance therefore
holds by construction, whatever was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save as save_tensors

from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.composition_range import CompositionRange
from ase_kinoson.barriers.device_model import DeviceModel
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.invariant import single_thread
from ase_kinoson.barriers.kra import KraModel
from ase_kinoson.barriers.model_file import (
    alloy_from_dict,
    alloy_to_dict,
    network_from_rows,
    network_to_rows,
    on_lattice,
    order_of_jumps,
    read_model,
    read_tensors,
    refuse_gigantic,
    same_lattice,
    write_model,
)
from ase_kinoson.barriers.model_fit import FitSettings, fit_parts, report_held_out, split_sets
from ase_kinoson.barriers.source import JumpEnergies
from ase_kinoson.barriers.training_sets import TrainingBarriers, TrainingSet, training_sets
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.device import device_of
from ase_kinoson.errors import ModelError

__all__ = ["BarrierModel", "TrainingBarriers"]

FORMAT = "ase_kinoson.BarrierModel"
VERSION = 2

STATES = 256
"""States that one thread evaluates at once."""

PRECISIONS = {"single": torch.float32, "double": torch.float64}


class BarrierModel:
    """Barriers of all jumps of any state of one lattice; a `BarrierSource`.

    Make one with :meth:`fit` or :meth:`load`.

    Attributes
    ----------
    energy : PairEnergy or NetworkEnergy
        The state function that ΔE comes from; Monte Carlo samples it.
    kra : KraModel
        The symmetric part.
    report : dict
        Sizes, seeds, settings and the errors on held-out states, by species.
    """

    def __init__(
        self,
        network: JumpNetwork,
        energy: PairEnergy | NetworkEnergy,
        kra: KraModel,
        report: Mapping[str, Any] | None = None,
        *,
        home: JumpNetwork | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._network = network
        self._home = home or network  # the same jumps at the lattice constant of the fit, for files
        self.energy = energy
        self.kra = kra
        self.report: dict[str, Any] = dict(report or {})
        self._device = device or torch.device("cpu")

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
        barriers: TrainingBarriers | Sequence[TrainingBarriers],
        *,
        weights: ArrayLike | Sequence[ArrayLike] | None = None,
        seed: int = 0,
        hidden: int = 32,
        epochs: int = 30,
        layers: int = 1,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.5,
        dropout: float = 0.05,
        batch_size: int | None = None,
        energy_cutoff: float | None = None,
        triplet_cutoff: float | None = None,
        environment_cutoff: float | None = None,
        test_fraction: float = 0.15,
        validation_fraction: float = 0.15,
        temperature_K: float | None = None,
        progress: bool = False,
        device: str = "auto",
    ) -> BarrierModel:
        """Learn energies and barriers.

        Energies by ridge regression on pair counts, K by ridge regression on symmetrised counts; then a small
        invariant network on what each of them leaves, trained with AdamW and stopped at the epoch that is best on
        the validation states (the linear part alone, epoch 0, is a valid outcome). States of one group stay on one
        side of every split. Rejected jumps are left out.

        Parameters
        ----------
        barriers
            Reference barriers of states; a list of several sets may hold other supercells, compositions and lattice
            constants of the same parent lattice. The model then knows the species of all of them.
        weights : array_like, shape (n, J), or one for each set
            How much each jump counts, at least 0; default 1. For example the share that each jump has in a
            transport coefficient. The held-out errors are given weighted, too.
        seed
            Seed of splits, initial weights and batches; equal seeds give equal models on the same kind of device.
        hidden
            Width of the network of K; that of the energy has half of it. 0: linear parts only.
        epochs, layers, learning_rate, weight_decay, dropout
            Training of the networks; ``dropout`` hides that fraction of the sites around a jump.
        batch_size
            Jumps per step; default: a sixtieth of them, 32 to 192.
        energy_cutoff
            Longest pair of the energy, and reach of its network around the carrier, Å; default 2.01 times the
            shortest jump.
        triplet_cutoff
            As in :meth:`PairEnergy.fit`.
        environment_cutoff
            Distance from either end of a jump up to which K sees atoms, Å; default 2.3 times the shortest jump.
        test_fraction, validation_fraction
            Share of the groups held out for the report and for stopping. Without validation states the last epoch
            is kept.
        temperature_K
            Temperature of the reported errors of rates, K; default that of the states, or 1000.
        progress
            Show a progress bar.
        device
            Where the networks train: ``"cpu"``, ``"cuda"``, or ``"auto"``: on a GPU if there is one.

        Raises
        ------
        BarrierError
            If there are too few independent states, or weights are not usable.
        ModelError
            If sets belong to different lattices, or there is no such device.
        """
        settings = FitSettings(
            hidden=hidden,
            layers=layers,
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            dropout=dropout,
            batch_size=batch_size,
            energy_cutoff=energy_cutoff,
            triplet_cutoff=triplet_cutoff,
            environment_cutoff=environment_cutoff,
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            temperature_K=temperature_K,
            device=device,
        )
        sets = training_sets(barriers, weights)
        roles = split_sets(sets, validation_fraction, test_fraction, seed=seed)
        return cls._fit(sets, roles, settings, seed=seed, progress=progress)

    @classmethod
    def _fit(
        cls,
        sets: Sequence[TrainingSet],
        roles: Sequence[NDArray[np.int64]],
        settings: FitSettings,
        *,
        seed: int,
        progress: bool = False,
    ) -> BarrierModel:
        energy, kra, report = fit_parts(sets, roles, settings, seed=seed, progress=progress)
        model = cls(sets[0].network, energy, kra)
        report.update(report_held_out(model, sets, roles, temperature_K=settings.temperature_K))
        model.report = report
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
            Species code of every site.
        carriers : array_like of int, shape (n,)
            Site of the carrier of each state.

        Raises
        ------
        ModelError
            If the occupations are those of another supercell.
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
        if self._device.type != "cpu":
            return JumpEnergies(*self._laid_out.of_arrays(occ, c))
        parts = [slice(start, start + STATES) for start in range(0, len(c), STATES)]
        workers, model = min(torch.get_num_threads(), len(parts)), self._laid_out
        if workers > 1:  # states side by side: small tensor operations gain nothing from more threads each
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                found = list(pool.map(lambda part: model.of_arrays(occ[part], c[part]), parts))
        else:
            with single_thread():
                found = [model.of_arrays(occ[part], c[part]) for part in parts]
        if not found:
            return JumpEnergies(np.zeros(targets.shape), np.zeros(targets.shape))
        return JumpEnergies(*(np.concatenate(x) for x in zip(*found, strict=True)))

    @cached_property
    def _laid_out(self) -> DeviceModel:
        """What evaluates the model, on its device."""
        return DeviceModel.of(self, device=self._device)

    @property
    def device(self) -> torch.device:
        """Where :meth:`jump_energies` and :meth:`predict` compute."""
        return self._device

    def with_device(self, device: str | torch.device) -> BarrierModel:
        """Evaluate the model on a device; occupations and results stay NumPy, what is saved does not change.

        Parameters
        ----------
        device
            ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.

        Raises
        ------
        ModelError
            If there is no such device.
        """
        return BarrierModel(self.network, self.energy, self.kra, self.report, home=self._home, device=device_of(device))

    def predict(self, states: States) -> NDArray[np.float64]:
        """Return the barriers of all jumps, eV, shape (n, J); ``inf`` where there is no jump.

        Parameters
        ----------
        states
            States on the supercell of the model.
        """
        return self.on(states.supercell).jump_energies(states.occupations, states.carriers).barrier

    def on(self, cell: Supercell) -> BarrierModel:
        """Use the model on another supercell of the same lattice; its species may be a subset.

        The lattice constant may be another one: barriers depend on the arrangement of the atoms and on nothing else,
        jump vectors are those of the supercell.

        Parameters
        ----------
        cell
            The other supercell.

        Raises
        ------
        ModelError
            If the lattice is another one or a species is unknown.
        """
        own = self.supercell
        if cell == own:
            return self
        if cell.alloy != own.alloy:
            same_lattice(own.alloy, cell.alloy)
            missing = [s for s in cell.species if s not in own.species]
            if missing:
                raise ModelError(
                    f"the states hold {missing}, which the model does not know; expected species among "
                    f"{own.species[1:]}; fit a model "
                    "with these species"
                )
        network = on_lattice(self.network, cell)
        kra = self.kra
        if cell.species != own.species:
            kra = kra.with_species(np.array([own.species.index(s) for s in cell.species[1:]]))
        home = Supercell(replace(cell.alloy, cell=self._home.supercell.alloy.cell), cell.matrix)
        return BarrierModel(
            network,
            self.energy.on(cell),
            kra.on(network),
            self.report,
            home=replace(self._home, supercell=home),
            device=self._device,
        )

    def bind(self, network: JumpNetwork) -> BarrierModel:
        """Use the model with the same jumps at another lattice constant or of fewer species; leave others alone.

        Parameters
        ----------
        network
            The jumps.
        """
        cell = network.supercell
        if network.fingerprint == self.network.fingerprint and cell.species == self.species:
            return self
        order = order_of_jumps(self.network, network)
        if order is None or np.any(order != np.arange(network.n_jumps)) or not set(cell.species) <= set(self.species):
            return self
        try:
            same_lattice(self.supercell.alloy, cell.alloy)
        except ModelError:
            return self
        moved = self.on(cell)
        return BarrierModel(
            network, moved.energy, moved.kra.on(network), self.report, home=moved._home, device=self._device
        )

    @property
    def composition_range(self) -> CompositionRange | None:
        """Compositions of the fit; None where the file of the model does not tell."""
        return CompositionRange.of(self)

    def with_precision(self, precision: str) -> BarrierModel:
        """Evaluate the networks in ``"single"`` precision (the default, about 1e-6 eV) or in ``"double"``.

        Parameters
        ----------
        precision
            ``"single"`` or ``"double"``.

        Raises
        ------
        ModelError
            If the precision is another one.
        """
        if precision not in PRECISIONS:
            raise ModelError(f"found precision={precision!r}; expected 'single' or 'double'; choose one")
        dtype = PRECISIONS[precision]
        energy = self.energy
        if isinstance(energy, NetworkEnergy):
            energy = replace(energy, carrier=energy.carrier.with_precision(dtype))
        kra = self.kra.with_precision(dtype)
        return BarrierModel(self.network, energy, kra, self.report, home=self._home, device=self._device)

    # -- files ------------------------------

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (weights) and ``path.json`` (all else that rebuilds the model).

        Parameters
        ----------
        path
            Without ending; ``.json`` and ``.safetensors`` are taken off.
        """
        about, arrays = self._parts()
        write_model(path, {"format": FORMAT, "version": VERSION, **about}, save_tensors(arrays))

    def _parts(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """What a file holds: a description as JSON types, and arrays by name."""
        carrier = self.energy.carrier if isinstance(self.energy, NetworkEnergy) else None
        pairs = self.energy.pairs if isinstance(self.energy, NetworkEnergy) else self.energy
        arrays = {f"energy.{k}": np.ascontiguousarray(v) for k, v in pairs.to_arrays().items()}
        for part, networks in (("kra", self.kra.networks), ("carrier", carrier.networks if carrier else [])):
            for label, net in enumerate(networks):
                for name, value in net.state_dict().items():
                    arrays[f"{part}.{label}.{name}"] = np.ascontiguousarray(value.detach().cpu().numpy())
        first = self.kra.networks[0]
        about = {
            "network": self._home.fingerprint,
            "species": list(self.species),
            "alloy": alloy_to_dict(self._home.supercell.alloy),
            "supercell": self._home.supercell.matrix.tolist(),
            "jumps": network_to_rows(self._home),
            "energy_cutoff": self.energy.clusters.cutoff,
            "triplet_cutoff": self.energy.clusters.triplet_cutoff,
            "environment_cutoff": self.kra.environment.cutoff,
            "hidden": first.hidden,
            "layers": first.layers,
            "carrier": None
            if carrier is None
            else {
                "cutoff": carrier.environment.cutoff,
                "hidden": carrier.networks[0].hidden,
                "layers": carrier.networks[0].layers,
            },
            "report": self.report,
        }
        return about, arrays

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
            model = cls._rebuild(about, read_tensors(path, data))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model file {path} is incomplete ({type(error).__name__}: {error}); expected a complete "
                "one; fit the model again"
            ) from error
        if network is None:
            return model
        model = model.bind(network)
        if network.fingerprint != model.network.fingerprint:
            raise ModelError(
                f"the model of {path} belongs to other jumps ({model.network!r}); expected those of "
                f"{network!r}; fit a model for them"
            )
        return model.on(network.supercell)

    @classmethod
    def _rebuild(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> BarrierModel:
        alloy = alloy_from_dict(about["alloy"])
        shape = about["carrier"]
        reaches = [about["energy_cutoff"], about["triplet_cutoff"], about["environment_cutoff"]]
        refuse_gigantic(alloy, about["supercell"], *reaches, None if shape is None else shape["cutoff"])
        _refuse_other_widths(arrays, "kra", about)
        if shape is not None:
            _refuse_other_widths(arrays, "carrier", shape)
        cell = Supercell(alloy, np.array(about["supercell"], dtype=np.int64))
        network = network_from_rows(cell, about["jumps"])
        if not network.goes_by(about["network"]) or list(cell.species) != about["species"]:
            raise ModelError(
                "the lattice in the model file is not the one it was fitted on; expected the same; fit the model again"
            )
        clusters = PairClusters.build(
            cell, cutoff=about["energy_cutoff"], network=network, triplet_cutoff=about["triplet_cutoff"]
        )
        pairs = PairEnergy.from_arrays(clusters, _part(arrays, "energy."))
        pairs = replace(pairs, report=about["report"].get("energy", {}))
        energy: PairEnergy | NetworkEnergy = pairs
        environment = JumpEnvironment.build(network, cutoff=about["environment_cutoff"])
        kra = KraModel.build(environment, len(cell.species) - 1, hidden=about["hidden"], layers=about["layers"])
        _load_networks(kra.networks, "kra", arrays)
        if shape is not None:
            reach = CarrierEnvironment.build(network, cutoff=shape["cutoff"])
            carrier = CarrierNetwork.build(reach, hidden=shape["hidden"], layers=shape["layers"])
            _load_networks(carrier.networks, "carrier", arrays)
            energy = NetworkEnergy(pairs, carrier)
        return cls(network, energy, kra, about["report"])

    def __repr__(self) -> str:
        found = self.report.get("held_out", {}).get("all")
        error = f", held-out MAE {found['barrier']['model']['mae']:.4f} eV" if found else ""
        size = self.report.get("n_barriers", "?")
        return f"BarrierModel({'-'.join(self.species[1:])}, {size} barriers{error})"


def _part(arrays: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def _refuse_other_widths(arrays: Mapping[str, NDArray], part: str, shape: Mapping[str, Any]) -> None:
    """Compare announced widths with the weights before networks of these widths are made."""
    hidden, layers = shape["hidden"], shape["layers"]
    table = arrays.get(f"{part}.0.filter")
    own = sum(k.startswith(f"{part}.0.own.") and k.endswith(".weight") for k in arrays)
    found = (0, layers) if table is None else (table.shape[-1], own)
    if (hidden, layers) != found or not 0 <= layers <= 1000:
        raise ModelError(
            f"the model file announces networks of width {hidden!r} with {layers!r} layers and holds weights of width "
            f"{found[0]} with {own}; expected the same; copy both files again or fit the model again"
        )


def _load_networks(networks: Sequence[torch.nn.Module], name: str, arrays: Mapping[str, NDArray]) -> None:
    for label, net in enumerate(networks):
        net.double().eval()
        net.load_state_dict({k: torch.tensor(v) for k, v in _part(arrays, f"{name}.{label}.").items()})
