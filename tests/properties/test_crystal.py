"""Crystals: translations, Atoms and occupations, environments, jumps, and one crystal described in several ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

import ase_kinoson as ak
from ase_kinoson.crystal.environment import CarrierEnvironment, JumpEnvironment
from ase_kinoson.testing.cells import relabelled, repeated
from tests.properties.running import breaks, holds
from tests.properties.strategies import View, arrangement, cells, networks, seeds, views

steps = st.tuples(*[st.integers(-9, 9)] * 3)


def on_lattice(cell, vectors, tolerance=1e-6):
    """Whether vectors are whole combinations of the supercell vectors."""
    scaled = np.asarray(vectors) @ np.linalg.inv(cell.cell)
    return bool(np.abs(scaled - np.rint(scaled) * cell.pbc).max(initial=0.0) < tolerance)


# -- translations -----------------------------------------------------------------------------------------------


def wraps_each_axis_alone(cell, sites, by):
    """Wrong where the Hermite form has entries off its diagonal."""
    n = cell.cell_coordinates(sites // cell.alloy.n_basis) + by
    return cell.cell_index(n % np.diag(cell.hermite)) * cell.alloy.n_basis + sites % cell.alloy.n_basis


def translations_form_a_group(translate):
    def check(recipe, a, b):
        cell = recipe.cell
        sites, a, b = np.arange(cell.n_sites), np.array(a) * cell.pbc, np.array(b) * cell.pbc
        here = translate(cell, sites, a)
        assert np.array_equal(np.sort(here), sites)
        assert np.array_equal(cell.basis_index[here], cell.basis_index)
        assert np.array_equal(translate(cell, here, b), translate(cell, sites, a + b))  # closed
        assert np.array_equal(translate(cell, here, b), translate(cell, translate(cell, sites, b), a))  # they commute
        assert np.array_equal(translate(cell, here, -a), sites)  # inverse
        assert np.array_equal(translate(cell, sites, a @ cell.matrix * cell.pbc), sites)  # identity
        # as many as cells, and each but the identity moves every site
        every = np.array([translate(cell, sites, n) for n in cell.cell_coordinates(np.arange(cell.n_cells))])
        assert len(np.unique(every, axis=0)) == cell.n_cells
        assert ((every == sites).sum(axis=1) > 0).sum() == 1
        assert on_lattice(cell, cell.positions[here] - cell.positions - a @ cell.alloy.cell)

    return check


def test_translations_form_an_abelian_group():
    holds(translations_form_a_group(ak.Supercell.translate), cells(), steps, steps, n=25)


def test_translations_that_forget_the_shear_do_not():
    breaks(translations_form_a_group(wraps_each_axis_alone), cells(), steps, steps)


# -- Atoms to occupations and back -------------------------------------------------------------------------------


def by_nearest_position(cell, atoms):
    """Wrong minimum image: no image at all."""
    distance = np.linalg.norm(atoms.positions[:, None] - cell.positions[None], axis=-1)
    occupation = np.zeros(cell.n_sites, dtype=np.int8)
    occupation[distance.argmin(axis=1)] = [cell.species.index(s) for s in atoms.symbols]
    return occupation


def atoms_come_back(occupation_of):
    def check(recipe, seed, kick, drift):
        cell, rng = recipe.cell, np.random.default_rng(seed)
        assume(cell.n_sites > 1)
        (occupation,), (carrier,) = arrangement(recipe, seed)
        assert cell.find_carrier(occupation) == carrier
        atoms = cell.to_atoms(occupation)[rng.permutation(int((occupation > 0).sum()))]
        atoms.positions += rng.integers(-2, 3, (len(atoms), 3)) * cell.pbc @ cell.cell  # any image of each atom
        # a drift and kicks that leave every atom nearest to its own site
        atoms.positions += drift * 0.1 * cell.shortest_distance * rng.normal(size=3) / 3
        atoms.positions += kick * 0.1 * cell.shortest_distance * rng.uniform(-1, 1, (len(atoms), 3)) / 2
        assert np.array_equal(occupation_of(cell, atoms), occupation)

    return check


sizes = st.sampled_from([0.0, 0.5, 1.0])


def test_atoms_in_any_order_and_image_come_back_as_the_same_occupation():
    holds(atoms_come_back(ak.Supercell.occupation_from_atoms), cells(), seeds, sizes, sizes, n=20)


def test_nearest_sites_without_images_do_not():
    breaks(atoms_come_back(by_nearest_position), cells(), seeds, sizes, sizes)


def rigid_shifts_are_found(mapping):
    """However far the crystal is shifted: every atom is on a site but for one common vector, and each has its own."""

    def check(recipe, seed, shift):
        cell = recipe.cell
        assume(cell.n_sites > 1)
        (occupation,), _ = arrangement(recipe, seed)
        atoms = cell.to_atoms(occupation)
        atoms.positions += np.array(shift) * cell.pbc @ cell.cell
        mapped = mapping(cell, atoms)
        filled = np.flatnonzero(mapped.atom_of_site >= 0)
        atom = mapped.atom_of_site[filled]
        assert np.array_equal(np.sort(atom), np.arange(len(atoms)))
        assert [cell.species[c] for c in mapped.occupation[filled]] == list(atoms.symbols[atom])
        assert np.abs(mapped.displacements).max() < 1e-6
        miss = cell.positions[filled] - atoms.positions[atom]
        assert on_lattice(cell, miss - miss[0])

    return check


def without_drift(cell, atoms):
    """Sites as if nothing had moved."""
    found = cell.map_atoms(atoms)
    occupation = np.roll(found.occupation, 1)
    return replace(found, occupation=occupation, atom_of_site=np.roll(found.atom_of_site, 1))


shifts = st.tuples(*[st.floats(-2, 2)] * 3)


def test_a_crystal_shifted_as_a_whole_is_mapped_up_to_one_vector():
    holds(rigid_shifts_are_found(ak.Supercell.map_atoms), cells(most=20), seeds, shifts, n=12)


def test_atoms_on_the_next_site_are_noticed():
    breaks(rigid_shifts_are_found(without_drift), cells(most=20), seeds, shifts)


# -- environments ------------------------------------------------------------------------------------------------


def environments_permute(permutations_of):
    """Turning the environment is permuting its sites: R_g v_e = v_(g e), and the permutations are a group."""

    def check(recipe):
        network = recipe.network
        for environment in (CarrierEnvironment.build(network), JumpEnvironment.build(network)):
            for kind in environment.classes:
                perms = permutations_of(kind)
                turned = np.einsum("gij,ej->gei", kind.rotations, kind.vectors)
                assert np.abs(turned - kind.vectors[perms]).max(initial=0.0) < 1e-3
                subs = network.supercell.alloy.site_sublattice[kind.basis]
                assert all(np.array_equal(subs[p], subs) for p in perms)
                known = {(*np.round(r, 3).ravel() + 0.0, *p) for r, p in zip(kind.rotations, perms, strict=True)}
                some = range(0, len(perms), max(1, len(perms) // 6))
                for g in some:
                    for h in some:
                        r = np.round(kind.rotations[g] @ kind.rotations[h], 3).ravel() + 0.0
                        assert (*r, *perms[g][perms[h]]) in known

    return check


def test_environments_permute_as_their_group_says():
    holds(environments_permute(lambda kind: kind.permutations), networks(most=30), n=8)


def test_inverse_permutations_do_not():
    breaks(environments_permute(lambda kind: kind.inverse_permutations), networks(most=30))


def environments_are_where_they_say(frames_of):
    def check(recipe):
        cell, network = recipe.cell, recipe.network
        environment = CarrierEnvironment.build(network)
        for b in np.flatnonzero(cell.alloy.mobile_basis):
            carriers = np.flatnonzero(cell.basis_index == b)[:5]
            kind = environment.classes[environment.class_of_basis[b]]
            found = cell.positions[environment.sites(carriers, int(b))] - cell.positions[carriers][:, None]
            assert on_lattice(cell, found - kind.vectors @ frames_of(environment, b).T, 1e-3)

    return check


def test_every_environment_is_the_turned_one_of_its_class():
    holds(environments_are_where_they_say(lambda e, b: e.frames[b]), networks(most=30), n=8)


def test_an_environment_without_its_frame_is_not():
    lattices = ("diamond", "hcp", "honeycomb", "L1₂", "octahedra of bcc")
    breaks(environments_are_where_they_say(lambda e, b: np.eye(3)), networks(lattices, most=30))


# -- jumps -------------------------------------------------------------------------------------------------------


def jumps_reverse(reverse_of):
    def check(recipe, seed):
        network, cell = recipe.network, recipe.cell
        occ, c = arrangement(recipe, seed, 6)
        basis, reverse = network.basis_of(c), reverse_of(network)
        exists = network.exists
        for b, k in np.argwhere(exists):
            t, back = network.target_basis[b, k], reverse[b, k]
            assert exists[t, back] and reverse[t, back] == k and network.target_basis[t, back] == b
            assert np.allclose(network.vectors[t, back], -network.vectors[b, k], rtol=0, atol=1e-9)
            assert np.array_equal(network.target_cell[t, back], -network.target_cell[b, k])
            assert network.jump_class[t, back] == network.jump_class[b, k]
        # a bijection of all directed jumps
        ends = {(int(network.target_basis[b, k]), int(reverse[b, k])) for b, k in np.argwhere(exists)}
        assert len(ends) == exists.sum()
        for k in range(network.n_jumps):
            rows = np.flatnonzero(exists[basis, k])
            after, there = network.apply(occ[rows], c[rows], np.full(len(rows), k))
            assert on_lattice(cell, cell.positions[there] - cell.positions[c[rows]] - network.vectors[basis[rows], k])
            again, home = network.apply(after, there, reverse[basis[rows], k])
            assert np.array_equal(again, occ[rows]) and np.array_equal(home, c[rows])
            moved = network.moving_species(occ[rows], c[rows])[:, k]
            assert np.array_equal(
                moved, network.moving_species(after, there)[np.arange(len(rows)), reverse[basis[rows], k]]
            )

    return check


def test_jumps_and_their_reverses_are_a_bijection():
    holds(jumps_reverse(lambda network: network.reverse), networks(), seeds, n=12)


def test_a_jump_that_is_its_own_reverse_is_noticed():
    def itself(network):
        return np.tile(np.arange(network.n_jumps), (len(network.exists), 1))

    breaks(jumps_reverse(itself), networks(), seeds)


# -- one crystal in several descriptions -------------------------------------------------------------------------


def descriptions_agree(seen):
    """The same crystal rotated, shifted, its sites renumbered, its parent cell doubled or sheared: the same jumps.

    Equal are the numbers of sites, jumps and classes and the lengths; jump vectors turn along, as a set.
    """

    def check(recipe, view):
        one, two = recipe.network, seen(view, recipe)
        assert (one.supercell.n_sites, one.n_jumps, one.n_classes) == (
            two.supercell.n_sites,
            two.n_jumps,
            two.n_classes,
        )
        assert np.allclose(np.sort(one.lengths), np.sort(two.lengths), rtol=1e-6)
        assert one.n_open_directions == two.n_open_directions
        assert one.supercell.alloy.space_group.n_ops == two.supercell.alloy.space_group.n_ops
        # where two sublattices are as large, the one described first has the vacancy: only the sum is the same
        atoms = [sum(sum(c.values()) for c in network.supercell.counts) for network in (one, two)]
        assert atoms[0] == atoms[1]
        first = one.vectors[one.exists] @ view.rotation.T
        other = two.vectors[two.exists]
        gap = np.linalg.norm(first[:, None] - other[None], axis=-1)
        assert gap.min(axis=1).max() < 1e-5 and gap.min(axis=0).max() < 1e-5

    return check


def test_one_crystal_has_one_network_however_it_is_described():
    holds(descriptions_agree(View.network), networks(), views, n=10)


def test_a_crystal_stretched_by_one_in_a_thousand_is_another():
    def stretched(view, recipe):
        found = View.network(view, recipe)
        return replace(found, vectors=found.vectors * 1.001)

    breaks(descriptions_agree(stretched), networks(), views, n=4)


def test_a_crystal_that_turns_the_other_way_is_another():
    def turned_back(view, recipe):
        found = View.network(view, recipe)
        return replace(found, vectors=found.vectors @ view.rotation @ view.rotation)

    breaks(descriptions_agree(turned_back), networks(), views)


def doubling_covers(projection):
    """The doubled cell lies over the cell: neighbours of a site lie over the neighbours of the site under it."""

    def check(recipe, times):
        small, network = recipe.cell, recipe.network
        large = repeated(small, times)
        under = projection(large, small)
        mobile = large.mobile_sites
        assert np.array_equal(
            np.bincount(under, minlength=small.n_sites), [times**small.alloy.dimension] * small.n_sites
        )
        above, below = network.with_supercell(large).targets(mobile), network.targets(under[mobile])
        assert np.array_equal(np.where(above >= 0, under[above], -1), below)

    return check


def test_a_doubled_cell_covers_the_cell():
    def under(large, small):
        n = small.alloy.n_basis
        cells_ = small.cell_index(large.cell_coordinates(np.arange(large.n_sites) // n))
        return cells_ * n + large.basis_index

    holds(doubling_covers(under), networks(most=24), st.integers(2, 3), n=8)


def test_counting_on_from_the_last_site_covers_nothing():
    breaks(
        doubling_covers(lambda large, small: np.arange(large.n_sites) % small.n_sites), networks(most=24), st.just(2)
    )


def names_leave_jumps_alone(codes_of):
    """Species by other symbols: the same jumps, and each moves the atom that it moved, under its new name."""

    def check(recipe, seed):
        names = dict(zip(recipe.cell.species[1:], reversed(recipe.cell.species[1:]), strict=True))
        other = relabelled(recipe.network, names)
        assert other.fingerprint == recipe.network.fingerprint
        occ, c = arrangement(recipe, seed, 3)
        codes = codes_of(other.supercell.species, [names[s] for s in recipe.cell.species[1:]])
        before, after = recipe.network.moving_species(occ, c), other.moving_species(codes[occ], c)
        new_code = np.array([0, *(other.supercell.species.index(names[s]) for s in recipe.cell.species[1:])])
        assert np.array_equal(np.where(before >= 0, new_code[before], -1), after)

    return check


@pytest.mark.parametrize("lattice", ["hcp", "honeycomb"])
def test_relabelled_species_leave_the_jumps_alone(lattice):
    by_name = lambda species, new: np.array([0, *(species.index(s) for s in new)])  # noqa: E731
    holds(names_leave_jumps_alone(by_name), networks((lattice,)), seeds, n=4)


def test_species_that_keep_their_numbers_under_new_names_are_noticed():
    by_number = lambda species, new: np.arange(len(species))  # noqa: E731
    breaks(names_leave_jumps_alone(by_number), networks(), seeds)
