"""`DeviceModel`: a barrier model whose tables and networks lie on a device; occupations in, barriers out.

Nothing passes through NumPy. The occupants around a carrier are read once, as one row of some 200 bytes; all
environments are columns of that row (`Surroundings`). ΔE of the pairs and of linear terms is summed in double
precision, networks compute in the precision of the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_kinoson.barriers.carrier import CarrierTerms
from ase_kinoson.barriers.carrier_network import CarrierNetwork, NetworkEnergy
from ase_kinoson.barriers.device_sites import DeviceSites, put
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.kra import KraModel
from ase_kinoson.barriers.surroundings import TABLE_LIMIT, Surroundings
from ase_kinoson.crystal.environment import CarrierEnvironment
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.device import device_of
from ase_kinoson.errors import ModelError

__all__ = ["DeviceModel"]

CHUNK = {"cpu": 256, "cuda": 16_384}
"""States that are evaluated at once, by kind of device: on a GPU some 16 kB each."""


def exact_pieces(values: NDArray, n_terms: int) -> NDArray[np.float32]:
    """Split numbers (m, s) into three in single precision (m, 3 s) whose sums are exact.

    Each piece is a whole number of units, so few bits long that ``n_terms`` of them add up without rounding: sums in
    single precision, which are fast, then have the accuracy of double precision, in whatever order they are made.
    """
    bits = 24 - int(np.ceil(np.log2(max(2, n_terms))))
    scale = 2.0 ** np.ceil(np.log2(max(float(np.abs(values).max(initial=0.0)), 1e-30)))
    rest, pieces = np.array(values, dtype=float), []
    for k in range(1, 4):
        unit = scale * 2.0 ** (-bits * k)
        pieces.append(np.rint(rest / unit) * unit)
        rest = rest - pieces[-1]
    return np.concatenate(pieces, axis=1).astype(np.float32)


class _Kra:
    """K of all jumps; the sites of a jump do not include its ends."""

    def __init__(self, kra: KraModel, around: Surroundings) -> None:
        network = around.network
        self.model, self.label = kra, network.jump_class
        self.slots = np.full((*network.exists.shape, kra.environment.n_max), -1)
        for b in around.carriers:
            self.slots[b] = around.slots(int(b), kra.environment.sites(np.array([b]))[0])

    def place(self, sites: DeviceSites) -> None:
        self.sites, self.where = sites, sites.table(self.slots)
        self.nets = [net.to(sites.device) for net in self.model._frozen]
        self.widths = [net.n_env for net in self.model.networks]
        self.means = [put(m, sites.device) for m in self.model._means]
        # where there is no jump: any class, nobody reads the value
        self.labels = put(np.maximum(self.label, 0), sites.device)

    def __call__(self, codes: Tensor, basis: Tensor, moved: Tensor) -> Tensor:
        around, kind = self.sites.pick(codes, basis, self.where), (moved - 1).clamp(min=0)
        if len(self.nets) == 1:
            flat = kind.flatten()
            return (self.means[0][flat] + self.nets[0].values(around.flatten(0, 1), flat)).view(moved.shape)
        result = torch.zeros(moved.shape, dtype=torch.float64, device=codes.device)
        label = self.labels[basis]
        for k, net in enumerate(self.nets):
            rows, jumps = torch.nonzero(label == k, as_tuple=True)
            own = kind[rows, jumps]
            result[rows, jumps] = self.means[k][own] + net.values(around[rows, jumps, : self.widths[k]], own)
        return result


class _Pairs:
    """ΔE of sites, pairs and carrier terms: sums over the neighbours of the two ends, and what they are to each other.

    Σ over the neighbours of a site, for every species that could sit on it, serves all jumps of a carrier.
    """

    def __init__(self, pairs: PairEnergy, around: Surroundings) -> None:
        network, clusters = around.network, pairs.clusters
        n_basis, n_jumps, s = *network.exists.shape, clusters.n_species
        n_max = clusters.pair_index.shape[1]
        self.n_species = s
        self.own_slots = np.full((n_basis, n_max), -1)
        self.end_slots = np.full((n_basis, n_jumps, n_max), -1)
        end_basis = np.where(network.exists, network.target_basis, np.arange(n_basis)[:, None])
        for b in around.carriers:
            self.own_slots[b] = around.slots(int(b), clusters.partners(np.array([b]))[0])
            ends = network.targets(np.array([b]))[0]
            self.end_slots[b] = around.slots(int(b), clusters.partners(np.where(ends >= 0, ends, b)))
        self.own_rows = clusters.pair_index * s
        self.end_rows = clusters.pair_index[end_basis] * s
        self.by_partner = exact_pieces(pairs._by_partner, n_max)
        kinds, site = clusters.table.site_class, pairs._site
        here, there = kinds[:, None], kinds[end_basis]
        own, moved = np.arange(s)[:, None], np.arange(s)[None, :]
        h, t = (np.broadcast_to(k, end_basis.shape)[..., None, None] for k in (here, there))
        self.ends = site[h, moved] - site[h, own] + site[t, own] - site[t, moved] + pairs._swap_table(network)
        self.carrier = None if clusters.carrier is None else _CarrierTerms(clusters.carrier, pairs._carrier, around)

    def place(self, sites: DeviceSites) -> None:
        device = sites.device
        self.sites, self.own, self.end = sites, sites.table(self.own_slots), sites.table(self.end_slots)
        self.rows = [put(x, device, torch.int32) for x in (self.own_rows, self.end_rows)]
        self.level, self.pair = (put(x, device) for x in (self.by_partner, self.ends))
        if self.carrier is not None:
            self.carrier.place(sites)

    def _level(self, rows: Tensor) -> Tensor:
        """Energy of every species among its neighbours (m, n_max), eV, shape (m, S)."""
        if rows.shape[1] == 0:  # nothing around varies, and a bag must hold something
            return torch.zeros((len(rows), self.n_species), dtype=torch.float64, device=rows.device)
        found = torch.nn.functional.embedding_bag(rows, self.level, mode="sum")
        return found.view(len(rows), -1, self.n_species).double().sum(dim=1)

    def __call__(self, codes: Tensor, basis: Tensor, own: Tensor, moved: Tensor) -> Tensor:
        level = self._level(self.rows[0][basis] + self.sites.pick(codes, basis, self.own))
        result = level.gather(1, moved) - level.gather(1, own[:, None])
        rows = self.rows[1][basis] + self.sites.pick(codes, basis, self.end)
        level = self._level(rows.flatten(0, 1)).view(*moved.shape, self.n_species)
        who = own[:, None].expand(moved.shape)
        result += (level.gather(2, who[..., None]) - level.gather(2, moved[..., None]))[..., 0]
        jump = torch.arange(moved.shape[1], device=codes.device)
        result += self.pair[basis[:, None], jump, who, moved]
        return result if self.carrier is None else result + self.carrier(codes, basis)


class _CarrierTerms:
    """Terms of `CarrierTerms` before and after all jumps."""

    def __init__(self, terms: CarrierTerms, coefficients: NDArray, around: Surroundings) -> None:
        self.coefficients = coefficients
        self.single, self.triplet = (None if e is None else _after(e, around) for e in (terms.single, terms.triplet))
        ends = _end_basis(around)
        self.n_jumps = ends.shape[1] - 1
        if self.single is not None:
            base, own = terms._single_base
            self.base, self.own = base[ends], own[ends]
        if self.triplet is not None and self.triplet.shape[2] == 0:
            self.triplet = None  # so short a reach that there is no site around: no pairs
        if self.triplet is not None:
            assert terms.triplet is not None
            self.n_species, self.label = len(terms.supercell.species), terms.triplet.class_of_basis[ends]
            self.table = exact_pieces(_pair_rows(terms, coefficients), self.triplet.shape[2])

    def place(self, sites: DeviceSites) -> None:
        device, self.sites, self.value = sites.device, sites, put(self.coefficients, sites.device)
        if self.single is not None:
            self.single_at, self.base_at, self.own_at = (
                sites.table(self.single),
                put(self.base, device),
                put(self.own, device),
            )
        if self.triplet is not None:
            self.triplet_at, self.rows = sites.table(self.triplet), put(self.table, device)
            n_env = self.triplet.shape[2]
            self.first = put((self.label * n_env * self.n_species).astype(np.int32), device)
            self.shift = put(np.arange(n_env, dtype=np.int32) * self.n_species, device)

    def __call__(self, codes: Tensor, basis: Tensor) -> Tensor:
        if self.single is None and self.triplet is None:
            return torch.zeros((len(basis), self.n_jumps), dtype=self.value.dtype, device=basis.device)
        found: Any = 0.0
        if self.single is not None:
            base, who = self.base_at[basis], self.sites.pick(codes, basis, self.single_at)
            column = torch.where(base >= 0, base + who, len(self.value) - 1)  # the last one is 0
            found = self.value[column].sum(dim=2) + self.value[self.own_at[basis]]
        if self.triplet is not None:
            who = self.sites.pick(codes, basis, self.triplet_at) + self.shift  # one column per site and occupant
            rows = (who + self.first[basis][..., None]).flatten(0, 1)
            partners = torch.nn.functional.embedding_bag(rows, self.rows, mode="sum").view(len(rows), 3, -1)
            chosen = who.flatten(0, 1).long()[:, None].expand(-1, 3, -1)
            found = found + partners.gather(2, chosen).double().sum(dim=(1, 2)).view(who.shape[:2])
        return found[:, 1:] - found[:, :1]


def _pair_rows(terms: CarrierTerms, coefficients: NDArray) -> NDArray[np.float64]:
    """What an occupant of a site adds for every occupant of the others, (classes * n_env * S, n_env * S), eV.

    Every pair is in the row of its first site only.
    """
    env, s = terms.triplet, len(terms.supercell.species)
    assert env is not None
    ends, block, columns = terms._triplet_base
    n_env = max((kind.n_sites for kind in env.classes), default=0)
    found = np.zeros((len(env.classes), n_env, s, n_env, s))
    values = np.asarray(coefficients)[columns].reshape(-1, s, s)
    for label in range(len(env.classes)):
        b = int(np.flatnonzero(env.class_of_basis == label)[0])
        one, two = ends[b].T
        used = one != two  # padding
        found[label, one[used], :, two[used], :] = values[block[b][used]]
    return found.reshape(len(env.classes) * n_env * s, n_env * s)


class _Carrier:
    """Change of the network around the carrier."""

    def __init__(self, carrier: CarrierNetwork, around: Surroundings) -> None:
        self.model = carrier
        self.slots = _after(carrier.environment, around)
        self.label = carrier.environment.class_of_basis[_end_basis(around)]

    def place(self, sites: DeviceSites) -> None:
        self.sites, self.where = sites, sites.table(self.slots)
        self.nets = [net.to(sites.device) for net in self.model._frozen]
        self.widths = [net.n_env for net in self.model.networks]
        self.labels = put(self.label, sites.device)

    def __call__(self, codes: Tensor, basis: Tensor) -> Tensor:
        around = self.sites.pick(codes, basis, self.where)
        shape = around.shape[:2]
        if len(self.nets) == 1:
            value = self.nets[0].values(around.flatten(0, 1)).view(shape)
        else:
            value = torch.zeros(shape, dtype=torch.float64, device=codes.device)
            label = self.labels[basis]
            for k, net in enumerate(self.nets):
                rows, ends = torch.nonzero(label == k, as_tuple=True)
                value[rows, ends] = net.values(around[rows, ends, : self.widths[k]])
        return value[:, 1:] - value[:, :1]


def _end_basis(around: Surroundings) -> NDArray[np.int64]:
    """Basis site of the carrier before and after every jump, shape (n_basis, 1 + J)."""
    network = around.network
    own = np.arange(len(network.exists))[:, None]
    return np.concatenate([own, np.where(network.exists, network.target_basis, own)], axis=1)


def _after(environment: CarrierEnvironment, around: Surroundings) -> NDArray[np.int64]:
    """Slots of the carrier's environment before and after every jump, shape (n_basis, 1 + J, n_env)."""
    network = around.network
    n_env = max((kind.n_sites for kind in environment.classes), default=0)
    found = np.full((len(network.exists), 1 + network.n_jumps, n_env), -1)
    for b in around.carriers:
        ends = [int(b), *network.targets(np.array([b]))[0].tolist()]
        for k, end in enumerate(ends):
            site = end if end >= 0 else ends[0]
            sites = environment.sites(np.array([site]), site % len(network.exists))[0]
            slots = around.slots(int(b), sites)
            found[b, k, : len(slots)] = around.exchanged(int(b), k - 1, slots) if k and end >= 0 else slots
    return found


_Member = tuple[_Pairs, "_Carrier | None", "_Kra | None"]


class DeviceModel:
    """Barriers of all jumps of any state, computed on a device.

    Make one with :meth:`of`. Equal to the model it came from, to the rounding of the precision of its networks.

    Attributes
    ----------
    network : JumpNetwork
        The jumps, on the supercell of the occupations.
    device : torch.device
    sites : DeviceSites
        What reads the occupants around carriers.
    """

    def __init__(self, around: Surroundings, members: list[_Member], sites: DeviceSites, chunk: int) -> None:
        self.around, self.network = around, around.network
        self.sites, self.device, self.chunk = sites, sites.device, chunk
        self._members = members
        for part in (p for member in members for p in member if p is not None):
            part.place(sites)
        self._ends = sites.table(around.targets)
        self._exists = put(self.network.exists, self.device)
        self._moves_itself = self.network.mechanism == "interstitial"

    @classmethod
    def of(
        cls,
        source: Any,
        network: JumpNetwork | None = None,
        *,
        device: str | torch.device = "auto",
        chunk: int | None = None,
        table_limit: int = TABLE_LIMIT,
    ) -> DeviceModel:
        """Lay a model out on a device.

        Parameters
        ----------
        source
            A :class:`~ase_kinoson.barriers.learned.BarrierModel`, a
            :class:`~ase_kinoson.barriers.ensemble.BarrierEnsemble` (whose mean it gives), or an energy alone.
        network
            Jumps; needed with an energy alone.
        device
            As in :func:`~ase_kinoson.device.device_of`.
        chunk
            States evaluated at once: what bounds the memory. Default 16,384 on a GPU, 256 on a CPU.
        table_limit
            Largest table of sites that is kept, entries.

        Raises
        ------
        ModelError
            If the source is none of these, or there is no such device.
        """
        network = getattr(source, "network", network)
        models = list(getattr(source, "members", [source]))
        energies = [getattr(m, "energy", m) for m in models]
        if network is None or not all(isinstance(e, (PairEnergy, NetworkEnergy)) for e in energies):
            raise ModelError(
                f"found {type(source).__name__} to be laid out on a device; expected a BarrierModel, a BarrierEnsemble "
                "or an energy model of one with network=; compute others on the CPU"
            )
        around, members = Surroundings(network, table_limit=table_limit), []
        for model, energy in zip(models, energies, strict=True):
            pairs = energy.pairs if isinstance(energy, NetworkEnergy) else energy
            carrier = _Carrier(energy.carrier, around) if isinstance(energy, NetworkEnergy) else None
            kra = _Kra(model.kra, around) if hasattr(model, "kra") else None
            members.append((_Pairs(pairs, around), carrier, kra))
        where = device_of(device)
        sites = DeviceSites(around, where)
        return cls(around, members, sites, chunk or CHUNK.get(where.type, CHUNK["cuda"]))

    def jump_energies(self, occupations: Tensor, carriers: Tensor) -> tuple[Tensor, Tensor]:
        """Barriers and energy changes of all jumps.

        Parameters
        ----------
        occupations : Tensor of int8, shape (n, n_sites)
            On the device.
        carriers : Tensor of int64, shape (n,)
            On the device.

        Returns
        -------
        barrier, delta_e : Tensor of float64, shape (n, J)
            eV; ``inf`` and 0 where there is no jump. Without K (an energy alone) the barrier is ΔE/2.
        """
        shape = (len(carriers), self.network.n_jumps)
        barrier, delta = (torch.empty(shape, dtype=torch.float64, device=self.device) for _ in range(2))
        with torch.inference_mode():
            for start in range(0, len(carriers), self.chunk):
                part = slice(start, start + self.chunk)
                codes = self.sites.read(occupations[part], carriers[part])
                barrier[part], delta[part] = self._of_codes(codes, carriers[part])
        return barrier, delta

    def of_arrays(self, occupations: NDArray, carriers: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`jump_energies`, from NumPy to NumPy: only the occupants around the carriers go to the device.

        Parameters
        ----------
        occupations : ndarray of int, shape (n, n_sites)
        carriers : ndarray of int, shape (n,)
        """
        parts = []
        with torch.inference_mode():
            for start in range(0, len(carriers), self.chunk):
                part = slice(start, start + self.chunk)
                codes = torch.from_numpy(self.around.read(occupations[part], carriers[part]))
                c = torch.from_numpy(np.array(carriers[part], dtype=np.int64))
                parts.append(self._of_codes(codes.to(self.device), c.to(self.device)))
            shape = (0, self.network.n_jumps)
            barrier, delta = (
                (torch.cat(x).cpu().numpy() for x in zip(*parts, strict=True)) if parts else np.empty((2, *shape))
            )
        return barrier, delta

    def _of_codes(self, codes: Tensor, carriers: Tensor) -> tuple[Tensor, Tensor]:
        basis = carriers % self.sites.n_basis
        own = codes[:, 0].long()
        ends = self.sites.pick(codes, basis, self._ends).long()
        moved = own[:, None].expand(ends.shape) if self._moves_itself else ends
        energies = []
        for pairs, carrier, kra in self._members:
            change = pairs(codes, basis, own, ends)
            if carrier is not None:
                change = change + carrier(codes, basis)
            energies.append((0.0 if kra is None else kra(codes, basis, moved), change))
        exists, n = self._exists[basis], len(energies)
        delta = torch.where(exists, sum(d for _, d in energies) / n, 0.0)
        barrier = torch.where(exists, sum(k + 0.5 * d for k, d in energies) / n, torch.inf)
        return barrier, delta
