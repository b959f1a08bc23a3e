"""Interstitial diffusion from the structure to the tensor, against published and exact numbers."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_kinoson.barriers.clusters import PairClusters
from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import ModelError
from ase_kinoson.kinetics.lattice_gas import PairBarriers, SiteBarriers, SpeciesRates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.exact import exact_transport
from ase_kinoson.kinosons.principal import principal_axes
from ase_kinoson.kinosons.static_disorder import static_transport

IRON = bulk("Fe", "bcc", a=2.8553, cubic=True)


def carbon_in_iron(temperature_K, kind="octahedral"):
    cell = Alloy.from_atoms(IRON).supercell(2)
    network = JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=kind, species="C")
    source = SiteBarriers((0.0,), (0.816,))
    return exact_transport(network.supercell, network, source, temperature_K, attempt_frequency=1e13)


@pytest.mark.parametrize("temperature_K", [300.0, 1000.0])
def test_carbon_in_iron(temperature_K):
    """D0 = a0² ν / 6 with the octahedral sites found from the structure."""
    result = carbon_in_iron(temperature_K)
    d0 = float(result.vacancy_diffusivity) * np.exp(0.816 / (ase.units.kB * temperature_K))
    assert d0 == pytest.approx(2.8553e-10**2 * 1e13 / 6, rel=1e-9, abs=0)
    assert d0 == pytest.approx(1.3588e-7, rel=1e-5, abs=0)
    assert principal_axes(result).is_isotropic
    wrong = carbon_in_iron(temperature_K, "tetrahedral")  # another network, another number
    assert float(wrong.vacancy_diffusivity) < 0.6 * float(result.vacancy_diffusivity)


# k_BT (eV), site energies, saddles by length: exact diagonal in Å² (Onsager package)
TENSORS = [
    (1.0, (0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, (1.15694147, 1.15694147, 0.705694102)),
    (0.5, (0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, (0.352635551, 0.352635551, 0.196350125)),
    (1.0, (0.0, 0.0), {2.4495: 0.0, 1.8371: 0.0, 1.2247: 0.0}, (3.0, 3.0, 3.2)),
]


@pytest.mark.parametrize("thermal, sites, saddles, expected", TENSORS)
def test_hcp_tensor_with_sites_and_jumps_found_from_the_structure(thermal, sites, saddles, expected):
    cell = Alloy.from_atoms(bulk("Mg", "hcp", a=3.0, c=3.0 * np.sqrt(8 / 3))).supercell(2)
    network = JumpNetwork.from_supercell(
        cell, mechanism="interstitial", sites=["octahedral", "tetrahedral"], species="H"
    )
    by_class = tuple(next(e for x, e in saddles.items() if abs(x - length) < 1e-3) for length in network.lengths)
    source = SiteBarriers(sites, by_class)
    result = exact_transport(network.supercell, network, source, thermal / ase.units.kB, attempt_frequency=1.0)
    value = np.asarray(result.vacancy_diffusivity_tensor.value) * 1e20
    assert value == pytest.approx(np.diag(expected), rel=1e-6, abs=1e-8)
    axes = principal_axes(result)
    assert sorted(np.asarray(axes.diffusivities.value) * 1e20) == pytest.approx(sorted(expected), rel=1e-6)
    assert "[0 0 1]" == axes.directions[next(g[0] for g in axes.groups if len(g) == 1)]
    without = network.restrict([c for c, x in enumerate(network.lengths) if x < 2.0])
    other = exact_transport(
        without.supercell, without, SiteBarriers(sites, by_class[:2]), thermal / ase.units.kB, attempt_frequency=1.0
    )
    c_axis = np.asarray(other.vacancy_diffusivity_tensor.value)[2, 2] * 1e20
    assert c_axis < (1 - 1e-3) * expected[2]  # the jumps between octahedra along c do count


# -- disordered hosts ---------------------------------------------------------------------------------------------


def pair_model(network, interactions, kra, site_energies=None, cutoff=3.2):
    """Energies of the interstitial atom with the atoms around it, and one activation."""
    clusters = PairClusters.build(network.supercell, cutoff=cutoff, network=network)
    coefficients = np.zeros(clusters.n_features)
    coefficients[clusters.carrier_offset :] = clusters.carrier.coefficients(interactions, site_energies)
    return PairBarriers(PairEnergy(clusters, coefficients), kra)


def test_energies_of_an_interstitial_count_its_neighbours():
    """Shells are distances from the sites of the interstitial: 2 atoms at a/2, 4 at a/√2 in bcc; 4 around each hole."""
    alloy = Alloy.from_atoms(IRON, {"Fe": {"Fe": 0.5, "Cr": 0.5}})
    network = JumpNetwork.from_supercell(
        alloy.supercell(3), mechanism="interstitial", sites=["octahedral", "tetrahedral"], species="C"
    )
    cell = network.supercell
    shells = (1.0, 0.1, 0.01)  # 1.43, 1.60 (tetrahedral) and 2.02 Å
    model = pair_model(network, {("C", "Cr"): shells, ("Cr", "Fe"): 9.0}, {"C": 0.5}, site_energies=(-3.0, -5.0))
    states = sample_states(cell, 12, seed=0)
    expected = []
    for occupation, carrier in zip(states.occupations, states.carriers, strict=True):
        distance = np.linalg.norm(cell.minimum_image(cell.positions - cell.positions[carrier]), axis=1)
        around = [
            (occupation == cell.species.index("Cr")) & (np.abs(distance - x) < 0.02) for x in (1.428, 1.596, 2.019)
        ]
        is_octahedral = (np.abs(distance - 2.8553 / 2) < 0.02) & (occupation > 0)
        expected.append(-3.0 if is_octahedral.any() else -5.0)
        expected[-1] += sum(e * n.sum() for e, n in zip(shells, around, strict=True))
    assert model.energy.energies(states.occupations) == pytest.approx(np.array(expected), abs=1e-10)
    with pytest.raises(ModelError, match="2, one per class"):
        pair_model(network, {}, {"C": 0.5}, site_energies=(1.0,))


def channels(n_cells, manganese=0.25):
    """Tetragonal host whose holes form straight channels along c, 2.5 Å per jump."""
    host = Alloy.from_atoms(Atoms("Fe", cell=[4.0, 4.0, 2.5], pbc=True), {"Fe": {"Fe": 1 - manganese, "Mn": manganese}})
    cell = host.supercell((3, 3, n_cells))  # channels beside each other differ
    return JumpNetwork.from_supercell(cell, mechanism="interstitial", sites=[[0.5, 0.5, 0.5]], species="Li", cutoff=2.6)


def chain(network, model, occupation, temperature_K):
    """D along the channels of one arrangement: L² / (Σ e^(−βE) Σ e^(βE_s)) of each, which is exact in one dimension."""
    beta = 1 / (ase.units.kB * temperature_K)
    cell = network.supercell
    home = cell.find_carrier(occupation)
    total, moved = 0.0, 0.0
    x, y, _ = (cell.positions[cell.mobile_sites] / np.array([4.0, 4.0, 2.5])).round(6).T
    for column in np.unique(x + 10 * y):
        sites = cell.mobile_sites[np.isclose(x + 10 * y, column)]
        states = np.repeat(occupation[None], len(sites), axis=0)
        states[:, home] = 0
        states[np.arange(len(sites)), sites] = occupation[home]
        energy = model.energy.energies(states)
        order = np.argsort(cell.positions[sites][:, 2])
        saddle = 0.5 * (energy[order] + energy[np.roll(order, -1)]) + 0.5  # KRA of 0.5 eV
        partition = np.exp(-beta * energy).sum()
        total += partition
        moved += (2.5 * len(sites)) ** 2 / np.exp(beta * saddle).sum()
    return 1e13 * moved / total * 1e-20


def test_a_channel_in_a_disordered_host_is_exact_and_has_one_axis():
    network = channels(8)
    assert network.n_open_directions == 1
    model = pair_model(network, {("Li", "Mn"): [0.1]}, {"Li": 0.5})
    states = sample_states(
        network.supercell, 5, method="monte-carlo", model=model, temperature_K=400.0, ensemble="quenched", seed=4
    )
    result = static_transport(states, network, model, 400.0, kinosons=False)
    expected = np.mean([chain(network, model, o, 400.0) for o in states.occupations])
    found = principal_axes(result)
    assert found.n_open == 1 and found.directions[0] == "[0 0 1]"
    assert np.asarray(found.diffusivities.value) == pytest.approx([expected, 0.0, 0.0], rel=1e-9, abs=0)
    pure = pair_model(network, {}, {"Li": 0.5})
    assert chain(network, pure, states.occupations[0], 400.0) > 1.05 * expected  # disorder slows


def test_blocked_channels_stop_long_range_diffusion():
    """Immobile atoms on the sites of the channel: long enough, every channel holds one, and no direction is open."""
    parent = Atoms("Li", cell=[4.0, 4.0, 2.5], pbc=True)
    alloy = Alloy.from_atoms(parent, {"Li": {"Li": 0.9, "Fe": 0.1}})
    gas = SpeciesRates({"Li": 1.0, "Fe": 0.0})
    ratios = []
    for n in (4, 16, 100):
        network = JumpNetwork.from_supercell(alloy.supercell((2, 2, n)), cutoff=2.6)
        states = sample_states(network.supercell, 60, seed=n)
        result = static_transport(states, network, gas, kinosons=False)
        ratios.append(float(result.collective_correlation_factor["vacancy"].value))
    assert ratios[0] > 0.4 and 0.05 < ratios[1] < 0.4 and ratios[2] < 0.01
    closed = principal_axes(result) if ratios[2] == 0 else principal_axes(np.zeros((3, 3)))
    assert closed.n_open == 0 and "nothing moves" in str(closed)
    assert float(result.percolating_share) == pytest.approx(ratios[2], abs=0.02)
    assert float(result.short_time_diffusivity) > 0
