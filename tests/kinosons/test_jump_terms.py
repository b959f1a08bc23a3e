"""Relaxed displacements of every jump, from y of whole states before and after it, atom by atom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.kinosons.functional import jump_terms


def layered():
    """Two mobile sublattices that share a species: two basis sites, three species."""
    atoms = Atoms("CuZn", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True)
    mix = {"Cu": {"Ag": 0.5, "Cu": 0.5}, "Zn": {"Ag": 0.5, "Zn": 0.5}}
    return ak.JumpNetwork.from_supercell(ak.Alloy.from_atoms(atoms, mix, mobile=["Cu", "Zn"]).supercell(3))


def padded():
    """Octahedra and tetrahedra of hcp in a mixed host: sites have unlike numbers of jumps."""
    host = ak.Alloy.from_atoms(bulk("Mg", "hcp", a=3.0, c=4.9), {"Mg": {"Mg": 0.5, "Zn": 0.5}})
    return ak.JumpNetwork.from_supercell(
        host.with_interstitials("H", ["octahedral", "tetrahedral"]).supercell((3, 3, 2))
    )


def states_of(network, n, seed=0):
    cell, rng = network.supercell, np.random.default_rng(seed)
    carriers = np.concatenate(
        [[np.flatnonzero(cell.basis_index == b)[0]] for b in np.flatnonzero(cell.alloy.mobile_basis)]
    )
    carriers = np.concatenate([carriers, rng.choice(cell.mobile_sites, n - len(carriers))])
    occ = np.zeros((n, cell.n_sites), dtype=np.int8)
    for i, sub in enumerate(cell.alloy.sublattices):
        if not sub.interstitial:
            sites = np.flatnonzero(cell.sublattice == i)
            occ[:, sites] = rng.choice([cell.species.index(s) for s in sub.species], (n, len(sites)))
    occ[np.arange(n), carriers] = cell.species.index("H") if network.mechanism == "interstitial" else 0
    return occ, carriers


def random_relaxation(network):
    mobile = sorted({s for sub in network.supercell.alloy.sublattices if sub.mobile for s in sub.species})
    rates = ak.Rates.of(ak.SpeciesRates({s: 3.0**-i for i, s in enumerate(mobile)}), network)
    y = ak.Relaxation.create(network, rates=rates, lookahead=1, hidden=2, gates=2, n_blocks=1, seed=1).to(torch.float64)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in y.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return y


def from_scratch(network, y, occ, c, sign=1.0):
    """Σ_a and Σ_a v ⊗ v of v_i = δx_i + y_i(after) − y_i(before), every atom followed from its site to its site."""
    cell, n_species = network.supercell, len(network.supercell.species) - 1
    total = np.zeros((len(c), network.n_jumps, n_species, 3))
    squares = np.zeros((len(c), network.n_jumps, n_species, 3, 3))
    before = y(occ, c)
    for i, here in enumerate(c):
        for k in np.flatnonzero(network.exists[here % cell.alloy.n_basis]):
            there = network.targets(c)[i, k]
            after_occ, after_c = network.apply(occ[[i]], c[[i]], [k])
            after = y(after_occ, after_c)[0]
            dx = network.vectors[here % cell.alloy.n_basis, k]
            for site in np.flatnonzero(occ[i] > 0):
                end = {int(here): int(there), int(there): int(here)}.get(int(site), int(site))
                v = after[end] - sign * before[i, site]
                if end != site:
                    v = v + (dx if network.mechanism == "interstitial" else -dx)
                a = occ[i, site] - 1
                total[i, k, a] += v
                squares[i, k, a] += np.outer(v, v)
    return total, squares


@pytest.mark.parametrize("make", [layered, padded])
def test_jump_terms_are_those_of_single_atoms_followed_from_site_to_site(make):
    network = make()
    assert network.exists.all() == (make is layered)
    occ, c = states_of(network, 8)
    y = random_relaxation(network)
    terms = jump_terms(y, occ, c)
    total, squares = from_scratch(network, y, occ, c)
    scale = np.abs(total).max()
    np.testing.assert_allclose(terms.displacement, total, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(terms.tracer, squares, rtol=0, atol=1e-9 * scale**2)
    bare = np.zeros_like(terms.bare)  # the atom that leaves its site, against the vacancy or by itself
    for i, k in np.argwhere(network.exists[network.basis_of(c)]):
        inside = network.mechanism == "interstitial"
        who = occ[i, c[i]] if inside else occ[i, network.targets(c)[i, k]]
        bare[i, k, who - 1] = network.vectors[network.basis_of(c)[i], k] * (1 if inside else -1)
    np.testing.assert_array_equal(terms.bare, bare)
    assert np.abs(terms.displacement - terms.bare).max() > 0.01  # it does relax
    missing = ~network.exists[network.basis_of(c)]
    for part in (terms.displacement, terms.tracer, terms.bare):
        assert not part[missing].any()
    with pytest.raises(AssertionError):  # y forgotten in the state before
        np.testing.assert_allclose(terms.displacement, from_scratch(network, y, occ, c, 0.0)[0], atol=1e-6 * scale)


def test_states_may_be_taken_in_parts_and_in_any_order():
    network = layered()
    occ, c = states_of(network, 11)
    y = random_relaxation(network)
    whole = jump_terms(y, occ, c, chunk=64)
    order = np.random.default_rng(4).permutation(len(c))
    for chunk in (1, 2, 3, 11):
        part = jump_terms(y, occ[order], c[order], chunk=chunk)
        np.testing.assert_allclose(part.displacement, whole.displacement[order], rtol=0, atol=1e-12)
        np.testing.assert_allclose(part.tracer, whole.tracer[order], rtol=0, atol=1e-12)


def test_without_a_relaxation_one_atom_moves_by_the_jump():
    network = padded()
    occ, c = states_of(network, 6)
    terms = jump_terms(None, occ, c, network=network)
    np.testing.assert_array_equal(terms.displacement, terms.bare)
    mover = network.supercell.species.index("H") - 1
    vectors = network.vectors[network.basis_of(c)]
    np.testing.assert_array_equal(terms.bare[:, :, mover], vectors)
    np.testing.assert_array_equal(terms.tracer[:, :, mover], vectors[..., :, None] * vectors[..., None, :])
    others = [a for a in range(terms.bare.shape[2]) if a != mover]
    assert not terms.bare[:, :, others].any() and not terms.tracer[:, :, others].any()
    # whatever the network that is named beside it, a relaxation brings its own jumps
    y = random_relaxation(network)
    other = jump_terms(y, occ, c, network=layered())
    np.testing.assert_array_equal(other.displacement, jump_terms(y, occ, c).displacement)
