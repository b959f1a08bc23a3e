"""A barrier model as plain arrays of integers, for evaluation that follows a trajectory.

The first layer of a network is a sum over sites. After a jump two sites differ, and only their rows are exchanged, as
in the efficiently updatable networks of chess engines (Nasu 2018). Rows are integers, so that a sum is the same however
it was reached: it does not drift, and a state that is visited again has the same energy to the last bit. Energies are
integers too, in units of 1/:data:`UNIT` eV: the barriers of a jump and its reverse differ by exactly ΔE, and closed
loops sum to exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ase_kinoson.barriers.carrier_network import NetworkEnergy
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.barriers.incremental_sites import Sites, Terms, sites_of, terms_of
from ase_kinoson.barriers.invariant import InvariantNetwork
from ase_kinoson.barriers.kra import KraNetwork
from ase_kinoson.barriers.learned import BarrierModel

__all__ = ["UNIT", "IncrementalModel", "RowNetworks", "aligned"]

UNIT = 2.0**40
"""Integers that make one eV."""

LARGEST = 2.0**18
"""No energy that is added counts for more, eV: thirty of them, in units of 1/UNIT eV, fit into an integer."""

LANES = 16
"""Channels are padded to a multiple of this, one vector of single-precision numbers."""

LINE = 64
"""Bytes of a line of the cache."""

GROUP = 8
"""Orientations are padded to a multiple of this."""


class RowNetworks(NamedTuple):
    """Networks of some classes of environments, as rows of integers that are summed and what comes after.

    Attributes
    ----------
    rows : ndarray of int32, one axis
        What every occupant of every site adds to the channels of one orientation; nothing is added by code 0.
    turned : ndarray of int32, one axis
        Where the rows of a site begin in each orientation: site e of class c, orientation g at place
        ``first_turned[c] + e * n_ops[c] + g``.
    first_turned, n_env, n_ops, n_padded : ndarray of int64, shape (n_classes,)
        ``n_padded`` orientations are summed, ``n_ops`` of them count.
    gain, shift : ndarray of float32, shape (n_classes, n_kinds, channels)
        From integers to what SiLU takes.
    own, mixed : ndarray of float32, shape (n_classes, n_layers, channels * channels)
        Mixing layers, from channels to channels; ``mixed`` takes the sum over orientations.
    bias : ndarray of float32, shape (n_classes, n_layers, channels)
    readout : ndarray of float32, shape (n_classes, n_kinds, channels)
        Takes the sum over orientations, eV.
    level : ndarray, shape (n_classes, n_kinds)
        What every environment has, eV.
    linear : ndarray of int64, shape (n_classes, n_kinds, n_max * n_codes)
        Linear part by kind, site and occupant, in units of 1/UNIT eV.
    channels : int
        0 without a network.
    """

    rows: NDArray[np.int32]
    turned: NDArray[np.int32]
    first_turned: NDArray[np.int64]
    n_env: NDArray[np.int64]
    n_ops: NDArray[np.int64]
    n_padded: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    own: NDArray[np.float32]
    mixed: NDArray[np.float32]
    bias: NDArray[np.float32]
    readout: NDArray[np.float32]
    level: NDArray[np.float64]
    linear: NDArray[np.int64]
    channels: int


@dataclass(frozen=True, eq=False)
class IncrementalModel:
    """What evaluation along a trajectory needs of a :class:`BarrierModel`.

    Attributes
    ----------
    sites : Sites
        Where the atoms are that count.
    terms : Terms
        Pair energies and terms of the carrier, integers.
    carrier, kra : RowNetworks
        The network of the energy, by class of carrier sites; the symmetric part, by class of jumps.
    """

    sites: Sites
    terms: Terms
    carrier: RowNetworks
    kra: RowNetworks

    @classmethod
    def of(cls, model: BarrierModel) -> IncrementalModel | None:
        """Take a model apart.

        Parameters
        ----------
        model
            On the supercell of the states.

        Returns
        -------
        IncrementalModel or None
            None for interstitials, in double precision, on a device, in cells whose tables of sites would be too
            large, and with weights that are no numbers or make sums beyond :data:`LARGEST`.
        """
        if getattr(model, "device", torch.device("cpu")).type != "cpu":
            return None
        energy = model.energy
        network = energy.carrier if isinstance(energy, NetworkEnergy) else None
        pairs = energy.pairs if isinstance(energy, NetworkEnergy) else energy
        if not isinstance(pairs, PairEnergy) or model.kra.dtype != torch.float32:
            return None
        if network is not None and network.dtype != torch.float32:
            return None
        nets = [*([] if network is None else network.networks), *model.kra.networks]
        if not all(bool(value.isfinite().all()) for net in nets for value in net.state_dict().values()):
            return None
        sites = sites_of(model)
        if sites is None or _reach(pairs, sites) + max(map(_linear_reach, model.kra.networks)) > LARGEST:
            return None
        n_codes = len(model.species)
        carrier = _rows([] if network is None else network.networks, n_codes)
        return cls(sites, terms_of(model, UNIT), carrier, _rows(model.kra.networks, n_codes))


def _reach(pairs: PairEnergy, sites: Sites) -> float:
    """More than any sum of pair terms of a jump can be, eV; infinite where a coefficient is no number."""
    n_terms = 16 * (1 + sites.partner.shape[2] + sites.corner.shape[2] ** 2)
    largest = float(np.abs(pairs.coefficients).max(initial=0.0))
    return n_terms * largest if np.isfinite(largest) else np.inf


def _linear_reach(net: KraNetwork) -> float:
    """More than the linear part of K can be, eV."""
    return float(net.columns().detach().abs().amax(dim=(1, 2)).sum())


def _rows(networks: Sequence[InvariantNetwork], n_codes: int) -> RowNetworks:
    """Arrays of networks that have one width and number of layers."""
    first = networks[0] if networks else None
    hidden, layers, kinds = (first.hidden, first.layers, first.kinds) if first is not None else (0, 0, 1)
    channels = -(-hidden // LANES) * LANES
    n, n_max = len(networks), max((net.n_env for net in networks), default=0)
    gain, shift, readout = (np.zeros((n, kinds, channels), dtype=np.float32) for _ in range(3))
    own, mixed = (np.zeros((n, layers, channels * channels), dtype=np.float32) for _ in range(2))
    bias = np.zeros((n, layers, channels), dtype=np.float32)
    level, linear = np.zeros((n, kinds)), np.zeros((n, kinds, n_max * n_codes), dtype=np.int64)
    n_env, n_ops, n_padded, first_turned = (np.zeros(n, dtype=np.int64) for _ in range(4))
    rows, turned = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    for c, net in enumerate(networks):
        n_env[c], n_ops[c], n_padded[c] = net.n_env, net.n_ops, -(-net.n_ops // GROUP) * GROUP
        first_turned[c] = sum(map(len, turned))
        if hidden:
            step, whole = _whole(net)
            own_rows = np.zeros((net.n_env, n_codes, channels), dtype=np.int32)
            own_rows[:, 1:, :hidden] = whole
            begin = np.zeros((net.n_env, n_padded[c]), dtype=np.int32)
            begin[:, : net.n_ops] = net.permutations.cpu().numpy().T * (n_codes * channels)
            turned.append((begin + sum(map(len, rows))).ravel())
            rows.append(own_rows.ravel())
            weights = {name: value.detach().cpu().double().numpy() for name, value in net.named_parameters()}
            gain[c, :, :hidden] = (1.0 + weights["gate"]) * step
            shift[c, :, :hidden] = weights["embedding"]
            readout[c, :, :hidden] = weights["readout"][:, :-1] / net.n_ops
            level[c] = weights["readout"][:, -1]
            for layer in range(layers):
                square = np.zeros((2, channels, channels))
                square[0, :hidden, :hidden] = weights[f"own.{layer}.weight"].T
                square[1, :hidden, :hidden] = weights[f"mixed.{layer}.weight"].T / net.n_ops
                own[c, layer], mixed[c, layer] = square.reshape(2, -1)
                bias[c, layer, :hidden] = weights[f"own.{layer}.bias"]
        if isinstance(net, KraNetwork):
            level[c] += net.mean.detach().cpu().numpy()
            parts = np.zeros((kinds, net.n_env, n_codes))
            parts[:, :, 1:] = net.columns().detach().cpu().numpy().transpose(2, 0, 1)
            linear[c, :, : net.n_env * n_codes] = np.rint(parts * UNIT).reshape(kinds, -1)
    return RowNetworks(
        aligned(np.concatenate(rows)), np.concatenate(turned), first_turned, n_env, n_ops, n_padded,
        aligned(gain), aligned(shift), aligned(own), aligned(mixed), aligned(bias), aligned(readout),
        level, linear, channels,
    )  # fmt: skip


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that begins with a line of the cache: a vector across two lines takes twice as long to load.

    Parameters
    ----------
    array
        Any array.
    """
    room = np.zeros(array.nbytes + LINE, dtype=np.uint8)
    first = -room.ctypes.data % LINE
    copy = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _whole(net: InvariantNetwork) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Step of each channel and rows in whole steps, such that no sum of any environment overflows."""
    rows = (net.filter * net.fall.to(net.filter)[:, None, None]).detach().cpu().double().numpy()
    largest = np.abs(rows).max(axis=1, initial=0.0).sum(axis=0)
    step = np.maximum(largest, 1e-30) / (2.0**31 - 2 - len(rows))
    return step, np.rint(rows / step)
