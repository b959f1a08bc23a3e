"""Compiled evaluation of an :class:`~ase_kinoson.barriers.incremental.IncrementalModel` along trajectories.

Sums of rows are kept for the environments met last, together with the occupants that they are of. What is asked for is
compared with what is kept, and only rows of sites that differ are exchanged: results depend on the state alone, not on
what was evaluated before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_kinoson.barriers.incremental import LARGEST, UNIT, RowNetworks
from ase_kinoson.barriers.incremental_sites import Sites, Terms
from ase_kinoson.barriers.incremental_work import Kept, Workspace
from ase_kinoson.barriers.vector_loops import activate, add_rows, borrowed, common, mix, product
from ase_kinoson.compiled import compiled

__all__ = ["energies_of_states", "evaluate", "look_around", "recall"]


@compiled(inline="always")
def look_around(sites: Sites, occupation: NDArray, carrier: Any, work: Workspace) -> int:
    """Note who is around a carrier; return its basis site.

    Parameters
    ----------
    sites
        Where to look.
    occupation : ndarray of int8, shape (n_sites,)
        Species code of every site.
    carrier
        Its site.
    work
        ``near`` is overwritten.
    """
    listed, near = sites.near[carrier], work.near
    n = len(listed)
    for i in range(n):
        near[i] = occupation[listed[i]]
    basis = carrier % len(sites.exists)
    near[n] = 0
    near[n + 1] = basis
    return basis


@compiled(inline="always")
def recall(work: Workspace) -> tuple[Any, bool]:
    """Place in memory of the state around the carrier, and whether it is there.

    Parameters
    ----------
    work
        After :func:`look_around`.
    """
    words, memory = work.near_words, work.memory.words
    first, second = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
    a, b = first, second
    n = len(words)
    for i in range(0, n - 1, 2):
        a = (a ^ words[i]) * first
        a ^= a >> np.uint64(29)
        b = (b ^ words[i + 1]) * second
        b ^= b >> np.uint64(31)
    if n % 2:
        a = (a ^ words[n - 1]) * first
    a = (a ^ (a >> np.uint64(32)) ^ b) * second
    place = np.int64((a >> np.uint64(40)) & np.uint64(len(memory) - 1))
    row = memory[place]
    for i in range(n):
        if row[i] != words[i]:
            return place, False
    return place, True


@compiled(inline="always")
def _refresh(net: RowNetworks, kept: Kept, work: Workspace, name: int, label: int, n_codes: int) -> int:
    """Bring the sums of one centre up to the codes in ``work``; return its place."""
    place = name & (len(kept.name) - 1)
    n_env, n_ops, channels = net.n_env[label], net.n_padded[label], net.channels
    at = place * kept.width
    codes, words, changed, rows = work.codes, work.words, work.changed, work.rows
    n_words = kept.words.shape[1]
    n_plus, n_all = 0, 0
    known = kept.name[place] == name
    if known:
        for i in range(n_words):
            if kept.words[place, i] != words[i]:
                for e in range(8 * i, 8 * i + 8):
                    if kept.codes[place, e] != codes[e]:
                        changed[n_all] = e
                        n_all += 1
        if n_all == 0:
            return place
        known = 2 * n_all < n_env
    first = net.first_turned[label]
    if known:
        n_plus, n_all = n_all, 2 * n_all
        for i in range(n_plus):
            e = changed[i]
            changed[i] = changed[n_plus + i] = first + e * n_ops
            rows[i] = np.int64(codes[e]) * channels
            rows[n_plus + i] = np.int64(kept.codes[place, e]) * channels
    else:
        n_plus = n_all = n_env
        for e in range(n_env):
            changed[e] = first + e * n_ops
            rows[e] = np.int64(codes[e]) * channels
        kept.name[place] = name
        work.counts[3] += 1
    work.counts[2] += n_all
    for i in range(n_words):
        kept.words[place, i] = words[i]
    add_rows(kept.sums, at, n_ops, channels, net.rows, net.turned, changed, rows, n_plus, n_all, not known)
    return place


@compiled(inline="always")
def _head(net: RowNetworks, kept: Kept, work: Workspace, place: int, label: int, kind: int) -> float:
    """What the network makes of the sums of one centre, eV."""
    channels, n_ops = net.channels, net.n_ops[label]
    h, out, total, shift = work.h, work.out, work.total, work.shift
    activate(kept.sums, place * kept.width, n_ops, channels, net.gain[label, kind], net.shift[label, kind], h, total)
    layers = net.bias.shape[1]
    for layer in range(layers):
        common(total, channels, net.mixed[label, layer], net.bias[label, layer], shift)
        mix(h, n_ops, channels, net.own[label, layer], shift, out, total, layer + 1 < layers)
        h, out = out, h
    return net.level[label, kind] + np.float64(product(total, net.readout[label, kind], channels))


@compiled(inline="always")
def _counted(value: float) -> Any:
    """An energy in units of 1/UNIT eV; one that would not fit into an integer counts for the largest that does."""
    if not abs(value) < LARGEST:
        value = LARGEST if value > 0.0 else -LARGEST
    return np.int64(np.rint(value * UNIT))


@compiled(inline="always")
def _carrier_energy(
    sites: Sites, terms: Terms, net: RowNetworks, work: Workspace, site: Any, basis: int, k: int
) -> Any:
    """Energy of the carrier among what ``work.near`` says, in units of 1/UNIT eV.

    Parameters
    ----------
    sites, terms, net
        The model.
    work
        After :func:`look_around` (and an exchange, for the state after a jump).
    site
        Where the carrier is: the target of jump ``k``, or the site itself with k = J.
    basis
        Basis site around which ``near`` was listed.
    k
        The jump.
    """
    near, value = work.near, np.int64(0)
    if net.channels > 0:
        codes, label = work.codes, sites.site_class[basis, k]
        for e in range(sites.centre.shape[2]):
            codes[e] = near[sites.centre[basis, k, e]]
        place = _refresh(net, work.centres, work, site, label, terms.exchange.shape[2])
        value = _counted(_head(net, work.centres, work, place, label, 0))
    codes, s = work.codes, np.uintp(terms.exchange.shape[2])
    for i in range(sites.corner.shape[2]):
        codes[i] = near[sites.corner[basis, k, i]]
    for p in range(terms.corner_kind.shape[2]):
        one, two = codes[terms.corner_ends[basis, k, p, 0]], codes[terms.corner_ends[basis, k, p, 1]]
        value += terms.corner_pair[(terms.corner_kind[basis, k, p] * s + np.uintp(one)) * s + np.uintp(two)]
    return value


@compiled(inline="always")
def _symmetric(
    sites: Sites, net: RowNetworks, work: Workspace, name: Any, basis: int, k: int, atom: Any, s: int
) -> Any:
    """K of one jump, in units of 1/UNIT eV; ``atom`` is the code of what moves."""
    codes, near = work.codes, work.near
    label = sites.bond_class[basis, k]
    total = np.int64(0)
    for e in range(sites.bond.shape[2]):
        codes[e] = near[sites.bond[basis, k, e]]
    for e in range(net.n_env[label]):
        total += net.linear[label, atom - 1, np.uintp(e * s) + np.uintp(codes[e])]
    if net.channels > 0:
        place = _refresh(net, work.bonds, work, name, label, s)
        value = _head(net, work.bonds, work, place, label, atom - 1)
    else:
        value = net.level[label, atom - 1]
    return total + _counted(value)


@compiled()
def evaluate(
    sites: Sites, terms: Terms, carrier: RowNetworks, kra: RowNetworks, work: Workspace, site: Any, basis: int,
    place: Any, back: Any, known: tuple[Any, Any, Any], energy: Any,
) -> None:  # fmt: skip
    """Barriers of all jumps of a state into ``work.memory`` at a place, in units of 1/UNIT eV.

    Parameters
    ----------
    sites, terms, carrier, kra
        The model.
    work
        After :func:`look_around`.
    site, basis
        Of the carrier.
    place
        Where to keep the barriers.
    back
        Jump of which 2 Q, ΔE and the energy afterwards are known; −1 for none.
    known
        These three.
    energy
        The carrier's energy; counts only where ``back`` is known.
    """
    sites, terms, carrier, kra, work = borrowed((sites, terms, carrier, kra, work))
    near, memory = work.near, work.memory
    n_jumps, s = sites.exists.shape[1], terms.exchange.shape[2]
    # around the carrier's site, for every atom that could come
    come = work.come
    for a in range(s):
        come[a] = 0
    n_partners, square, wide = sites.partner.shape[2], np.uintp(s * s), np.uintp(s)
    for n in range(n_partners):
        first = terms.partner_kind[basis, n_jumps, n] * square + np.uintp(near[sites.partner[basis, n_jumps, n]])
        for a in range(s):
            come[a] += terms.pair[first + np.uintp(a) * wide]
    for i in range(len(work.near_words)):
        memory.words[place, i] = work.near_words[i]
    work.counts[0] += 1
    for i in range(n_jumps + 1):
        k = i - 1 if i > 0 else n_jumps  # the state itself, then what each jump leads to
        if i == 0 and back >= 0:
            continue
        if i > 0 and (k == back or not sites.exists[basis, k]):
            continue
        t = sites.targets[basis, k]
        target, atom = np.int64(sites.near[site, t]), np.int64(near[t])
        near[0], near[t] = atom, 0
        found = _carrier_energy(sites, terms, carrier, work, target, basis, k)
        near[0], near[t] = 0, atom
        if i == 0:
            energy = found
            continue
        change = found - energy + come[atom] - come[0] + terms.exchange[basis, k, atom]
        own = np.uintp(atom) * wide
        for n in range(n_partners):
            first = terms.partner_kind[basis, k, n] * square + np.uintp(near[sites.partner[basis, k, n]])
            change += terms.pair[first] - terms.pair[first + own]
        memory.delta[place, k], memory.after[place, k] = change, found
    memory.own[place] = energy
    for k in range(n_jumps):  # after all others: the rows of one network at a time stay close to the processor
        if k == back or not sites.exists[basis, k]:
            continue
        t = sites.targets[basis, k]
        first_end = site if sites.forward[basis, k] else np.int64(sites.near[site, t])
        name = first_end * sites.n_bonds + sites.canonical[basis, k]
        symmetric = _symmetric(sites, kra, work, name, basis, k, np.int64(near[t]), s)
        memory.twice[place, k] = 2 * symmetric + memory.delta[place, k]
    if back >= 0:
        memory.twice[place, back], memory.delta[place, back], memory.after[place, back] = known


@compiled()
def energies_of_states(
    sites: Sites, terms: Terms, carrier: RowNetworks, kra: RowNetworks, work: Workspace, occupations: NDArray,
    carriers: NDArray, twice: NDArray, delta: NDArray,
) -> None:  # fmt: skip
    """2 Q and ΔE of all jumps of states, in units of 1/UNIT eV.

    Parameters
    ----------
    sites, terms, carrier, kra
        The model.
    work
        Room; results do not depend on what is in it. Its memory holds no rates afterwards.
    occupations : ndarray of int8, shape (n, n_sites)
        Species code of every site.
    carriers : ndarray of int64, shape (n,)
        Site of the carrier of each state.
    twice, delta : ndarray of int64, shape (n, J)
        Are overwritten; 0 where there is no jump.
    """
    n_jumps, zero = sites.exists.shape[1], np.int64(0)
    for i in range(len(occupations)):
        site = np.int64(carriers[i])
        basis = look_around(sites, occupations[i], site, work)
        place, _ = recall(work)
        evaluate(sites, terms, carrier, kra, work, site, basis, place, np.int64(-1), (zero, zero, zero), zero)
        for k in range(n_jumps):
            there = sites.exists[basis, k]
            twice[i, k] = work.memory.twice[place, k] if there else 0
            delta[i, k] = work.memory.delta[place, k] if there else 0
