"""Per which site, in which unit: closed forms on crystals with immobile sites and in fewer than three dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

import ase_kinoson as ak

T, NU, CV = 1000.0, 5e12, 1e-4
BARRIER = 0.7
RATE = NU * np.exp(-BARRIER / (units.kB * T))
THERMAL_J = units.kB * T / units.J


def solve(alloy: ak.Alloy, size: int | tuple[int, int, int], *, tracers: bool = True) -> ak.Transport:
    """Exact coefficients of one mobile species whose every jump has the rate ``RATE``."""
    cell = alloy.supercell(size)
    network = ak.JumpNetwork.from_supercell(cell)
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(cell, {}), {"Cu": BARRIER})
    return ak.exact_transport(
        cell, network, model, T, vacancy_fraction=CV, attempt_frequency=NU, tracers=tracers, limit=1000
    )


@pytest.mark.parametrize("fixed", ["Ag", "Cu"])
def test_sites_that_do_not_move_count_for_nothing(fixed):
    """B2: Cu on the mobile sublattice; on the fixed one another metal, or Cu as well, which then does not diffuse."""
    a = 3.0
    crystal = bulk("CsCl", "cesiumchloride", a=a)
    crystal.set_chemical_symbols(["Cu", fixed])
    crystal.arrays["sublattice"] = np.array([0, 1])
    result = solve(ak.Alloy.from_atoms(crystal, mobile=["0"]), 4)
    n_mobile = 64
    assert result.states.supercell.n_sites == 2 * n_mobile
    length = a * 1e-10
    diffusivity = 6 * RATE * length**2 / 6
    assert float(result.vacancy_diffusivity) == pytest.approx(diffusivity, rel=1e-9, abs=0)
    per_mobile_site = length**3  # one mobile site in each cubic cell of two sites
    onsager = CV * diffusivity / (per_mobile_site * THERMAL_J)
    np.testing.assert_allclose(result.onsager_matrix.value, [[onsager]], rtol=1e-9)
    # D* = f D_v c_v / x with x the Cu atoms per mobile site, and f of a simple cubic cell of 64 sites
    fraction = (n_mobile - 1) / n_mobile
    expected = 0.675393 * diffusivity * CV / fraction
    assert float(result.tracer_diffusivity["Cu"]) == pytest.approx(expected, rel=2e-6, abs=0)
    # the same through the functional, where without relaxation f = 1
    model = ak.PairBarriers(ak.PairEnergy.from_interactions(result.states.supercell, {}), {"Cu": BARRIER})
    network = ak.JumpNetwork.from_supercell(result.states.supercell)
    bound = ak.transport(result.states, network, model, None, T, vacancy_fraction=CV, attempt_frequency=NU)
    np.testing.assert_allclose(bound.onsager_matrix.value, [[onsager]], rtol=1e-9)
    ideal = diffusivity * CV / fraction
    assert float(bound.tracer_diffusivity["Cu"]) == pytest.approx(ideal, rel=1e-9, abs=0)
    np.testing.assert_allclose(bound.tracer_diffusivity_tensor["Cu"].value, ideal * np.eye(3), rtol=1e-9, atol=1e-26)


@pytest.mark.parametrize(
    ("pbc", "size", "unit"),
    [((1, 1, 0), (3, 3, 1), "1/(J s)"), ((1, 0, 0), (4, 1, 1), "m/(J s)")],
)
def test_onsager_coefficients_of_planes_and_chains(pbc, size, unit):
    """Flux per length or as such instead of per area; the vacuum around the crystal does not count."""
    a, d = 2.5, sum(pbc)
    lengths = np.where(pbc, a, 9.0)
    result = solve(ak.Alloy.from_atoms(Atoms("Cu", cell=lengths, pbc=pbc)), size, tracers=False)
    length = a * 1e-10
    diffusivity = 2 * d * RATE * length**2 / (2 * d)
    assert float(result.vacancy_diffusivity) == pytest.approx(diffusivity, rel=1e-9, abs=0)
    onsager = CV * diffusivity / (length**d * THERMAL_J)
    np.testing.assert_allclose(result.onsager_matrix.value, [[onsager]], rtol=1e-9)
    assert result.onsager_matrix.unit == unit


def test_only_the_plane_counts_in_a_buckled_layer():
    """Honeycomb whose sublattices lie at two heights: the jump up and down is no diffusion."""
    a, height = 4.0, 0.6
    crystal = Atoms(
        "Cu2",
        cell=[[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 12]],
        scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5 + height / 12]],
        pbc=(1, 1, 0),
    )
    result = solve(ak.Alloy.from_atoms(crystal), (3, 3, 1))
    in_plane = (a * 1e-10) ** 2 / 3
    diffusivity = 3 * RATE * in_plane / 4
    assert float(result.vacancy_diffusivity) == pytest.approx(diffusivity, rel=1e-9, abs=0)
    area = (a * 1e-10) ** 2 * 3**0.5 / 4
    onsager = CV * diffusivity / (area * THERMAL_J)
    np.testing.assert_allclose(result.onsager_matrix.value, [[onsager]], rtol=1e-9)
    table = result.kinosons
    total = float((table["weight"] * table["kinoson_vacancy"]).sum()) * 1e-20
    assert total == pytest.approx(diffusivity, rel=1e-9, abs=0)
    # a flat layer is the same
    crystal.positions[:, 2] = 6.0
    flat = solve(ak.Alloy.from_atoms(crystal), (3, 3, 1))
    for name in ("tracer_diffusivity", "correlation_factor"):
        ours, other = (float(getattr(r, name)["Cu"]) for r in (result, flat))
        assert ours == pytest.approx(other, rel=1e-9, abs=0)
