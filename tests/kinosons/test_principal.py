"""Principal axes: eigenvalues, directions, errors, degeneracy, channels."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_kinoson.crystal import Alloy, JumpNetwork
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinetics.lattice_gas import SpeciesRates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.principal import principal_axes
from ase_kinoson.kinosons.statistics import Quantity
from ase_kinoson.kinosons.transport import transport

TURN = Rotation.from_euler("xyz", [0.3, -0.8, 1.1]).as_matrix()


def tensor(diagonal, turn=TURN, error=0.0):
    value = turn @ np.diag(diagonal) @ turn.T
    return Quantity(value, np.full((3, 3), error), "m^2/s", "bound")


def test_values_and_axes_of_a_rotated_tensor():
    found = principal_axes(tensor([1.0, 3.0, 2.0]))
    assert found.diffusivities.value == pytest.approx([3.0, 2.0, 1.0], rel=1e-12)
    assert np.abs(np.einsum("ia,ai->i", found.axes, TURN[:, [1, 2, 0]])) == pytest.approx(np.ones(3))
    assert found.groups == ((0,), (1,), (2,)) and not found.is_isotropic
    assert found.anisotropy == pytest.approx(3.0) and found.diffusivities.unit == "m^2/s"
    assert np.asarray(found.diffusivities.error) == pytest.approx(np.zeros(3))


def test_degenerate_axes_are_said_so():
    found = principal_axes(tensor([2.0, 1.0, 1.0]))
    assert found.groups == ((0,), (1, 2)) and "arbitrary" in str(found).splitlines()[1]
    found = principal_axes(tensor([1.0, 1.0, 1.0]))
    assert found.is_isotropic and np.array_equal(found.axes, np.eye(3)) and found.anisotropy == pytest.approx(1.0)
    # what the error does not resolve is not called anisotropy; what it does resolve is
    assert principal_axes(tensor([1.0, 1.05, 1.1], error=0.06)).is_isotropic
    assert len(principal_axes(tensor([1.0, 1.5, 2.0], error=0.06)).groups) == 3
    # three independent diagonal elements: their mean is known √3 times better than each
    found = principal_axes(tensor([1.0, 1.0, 1.0], np.eye(3), error=0.06))
    assert found.group_errors == pytest.approx((0.06 / np.sqrt(3),)) and found.diffusivities.error[0] == pytest.approx(
        0.06
    )


def test_a_channel_is_open_along_one_axis():
    found = principal_axes(tensor([0.0, 4e-12, 0.0], np.eye(3), error=1e-13))
    assert found.n_open == 1 and found.closed == (1, 2) and found.directions[0] == "[0 1 0]"
    assert np.array_equal(np.asarray(found.diffusivities.value)[1:], [0.0, 0.0]) and found.anisotropy == np.inf
    assert "nothing moves" in str(found)
    assert principal_axes(np.zeros((3, 3))).n_open == 0


def test_directions_are_named_in_the_lattice():
    hexagonal = np.array([[3.0, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 5.0]])
    along = np.array([1.5, 1.5 * np.sqrt(3), 0]) / 3.0  # a + b
    value = np.outer(along, along) + 0.5 * np.diag([0, 0, 1.0])
    found = principal_axes(value, lattice=hexagonal)
    assert found.directions[:2] == ("[1 1 0]", "[0 0 1]")
    assert principal_axes(value).directions[0].startswith("(0.500, 0.866")


def noisy(diagonal, size, n, seed=0):
    """Samples of a tensor whose elements have common noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 3, 3)) * size
    common = rng.normal(size=(n, 1, 1)) * size * 3
    return TURN @ (np.diag(diagonal) + noise + noise.transpose(0, 2, 1) + common * np.diag([1, 0, 1])) @ TURN.T


def test_errors_are_those_of_the_eigenvalues_and_of_the_axes():
    samples = noisy([3.0, 1.0, 2.0], 0.01, 2000)
    mean = samples.mean(axis=0)
    found = principal_axes(Quantity(mean, samples.std(axis=0), "m^2/s", "bound"), resamples=samples)
    values, vectors = np.linalg.eigh(samples)
    assert found.diffusivities.error == pytest.approx(values.std(axis=0)[::-1], rel=0.05)
    cosine = np.abs(np.einsum("ia,nai->ni", found.axes, vectors[:, :, ::-1]))
    angle = np.degrees(np.sqrt((np.arccos(np.clip(cosine, -1, 1)) ** 2).mean(axis=0)))
    assert found.tilt == pytest.approx(angle, rel=0.05)
    # errors of single elements cannot know what they have in common
    alone = principal_axes(Quantity(mean, samples.std(axis=0), "m^2/s", "bound"))
    assert np.abs(np.asarray(alone.diffusivities.error) / values.std(axis=0)[::-1] - 1).max() > 0.05


def test_independent_elements_give_the_error_of_their_spread():
    rng = np.random.default_rng(1)
    sigma = np.array([[0.02, 0.01, 0.03], [0.01, 0.01, 0.02], [0.03, 0.02, 0.04]])
    noise = rng.normal(size=(4000, 3, 3)) * sigma
    noise = np.triu(noise) + np.triu(noise, 1).transpose(0, 2, 1)
    mean = TURN @ np.diag([3.0, 1.0, 2.0]) @ TURN.T
    found = principal_axes(Quantity(mean, sigma, "m^2/s", "bound"))
    assert found.diffusivities.error == pytest.approx(np.linalg.eigvalsh(mean + noise).std(axis=0)[::-1], rel=0.05)


@pytest.fixture(scope="module")
def layered():
    """Tetragonal alloy whose vacancy makes short jumps in the plane and longer ones across."""
    parent = Atoms("Cu", cell=[2.5, 2.5, 3.4], pbc=True)
    cell = Alloy.from_atoms(parent, {"Cu": {"Cu": 0.5, "Ni": 0.5}}).supercell(3)
    network = JumpNetwork.from_supercell(cell, cutoff=3.41)
    states = sample_states(cell, 40, seed=0)
    return transport(states, network, SpeciesRates({"Cu": 1.0, "Ni": 0.2}))


def test_of_a_transport(layered):
    found = principal_axes(layered)
    value = np.asarray(layered.vacancy_diffusivity_tensor.value)
    assert found.directions[0] == "[0 0 1]" and found.groups == ((0,), (1, 2))
    assert np.asarray(found.diffusivities.value) == pytest.approx(np.diag(value)[[2, 0, 1]], rel=1e-9, abs=0)
    error = np.diag(np.asarray(layered.vacancy_diffusivity_tensor.error))
    assert np.asarray(found.diffusivities.error) == pytest.approx(error[[2, 0, 1]], rel=1e-9, abs=0)
    copper = principal_axes(layered, "Cu")
    assert copper.diffusivities.unit == "m^2/s per c_v"
    own = np.asarray(layered.tracer_diffusivity_tensor["Cu"].value)
    assert np.asarray(copper.diffusivities.value).sum() == pytest.approx(np.trace(own), rel=1e-9, abs=0)
    own = np.diag(np.asarray(layered.tracer_diffusivity_tensor["Cu"].error))[[2, 0, 1]]
    assert np.asarray(copper.diffusivities.error) == pytest.approx(own, rel=1e-9, abs=0)


def test_bad_input_is_refused(layered):
    with pytest.raises(KinosonError, match="not symmetric"):
        principal_axes([[1, 2, 0], [0, 1, 0], [0, 0, 1]])
    with pytest.raises(KinosonError, match="3 x 3"):
        principal_axes([1.0, 2.0])
    with pytest.raises(KinosonError, match="NaN"):
        principal_axes(np.full((3, 3), np.nan))
    with pytest.raises(KinosonError, match="negative diffusivity"):
        principal_axes(np.diag([1.0, 1.0, -0.5]))
    with pytest.raises(KinosonError, match="choose from these"):
        principal_axes(layered, "Fe")
    with pytest.raises(KinosonError, match="Transport only"):
        principal_axes(np.eye(3), "Cu")
