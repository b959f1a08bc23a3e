"""Round trips of alloys, cells, jumps, states and what is measured on them through JSON."""

import json

import numpy as np
import pytest
from monty.json import MontyDecoder, MontyEncoder, MSONable

import ase_kinoson as ak
from ase_kinoson.validation import hcp_interstitials, parent


def there_and_back(value):
    return json.loads(json.dumps(value, cls=MontyEncoder), cls=MontyDecoder)


@pytest.fixture(scope="module")
def alloy():
    """A sheared cell, an alloy whose fractions are no round numbers."""
    cell = parent("bcc", {"Cr": 1 / 3, "Fe": 2 / 3}).supercell([[2, 0, 1], [0, 3, 0], [0, 0, 3]])
    return cell, ak.JumpNetwork.from_supercell(cell)


def test_alloys_cells_and_jumps_come_back(alloy):
    cell, jumps = alloy
    for own in (cell.alloy, cell, jumps, hcp_interstitials(), hcp_interstitials().supercell.alloy):
        loaded = there_and_back(own)
        assert isinstance(own, MSONable) and type(loaded) is type(own) and loaded.fingerprint == own.fingerprint
    loaded = there_and_back(jumps)
    assert loaded.supercell == cell and np.array_equal(loaded.vectors, jumps.vectors)
    assert np.array_equal(loaded.targets(range(5)), jumps.targets(range(5)))
    sublattice = cell.alloy.sublattices[0]
    assert there_and_back(sublattice) == sublattice  # tuples, so that it can be compared and hashed
    assert hash(there_and_back(sublattice)) == hash(sublattice)


def test_states_and_their_order_come_back(alloy):
    cell, _ = alloy
    states = ak.sample_states(cell, 6, seed=0)
    loaded = there_and_back(states)
    assert loaded.keys == states.keys and loaded.occupations.dtype == states.occupations.dtype
    assert np.array_equal(loaded.weights, states.weights) and np.array_equal(loaded.groups, states.groups)
    assert loaded.source == states.source and json.dumps(loaded.as_dict()) == json.dumps(states.as_dict())
    order = ak.warren_cowley(states, n_shells=1)
    again = there_and_back(order)
    assert str(again) == str(order) and again.pair("Cr", "Fe") == order.pair("Cr", "Fe")
    # what was loaded works with what was not
    gas = ak.SpeciesRates({"Cr": 1.0, "Fe": 0.5})
    network = there_and_back(alloy[1])
    one, two = (ak.transport(s, n, gas) for s, n in ((states, alloy[1]), (loaded, network)))
    assert float(one.vacancy_diffusivity) == float(two.vacancy_diffusivity)
