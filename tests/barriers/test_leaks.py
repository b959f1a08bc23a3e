"""What a fit is judged by has no say in it: other barriers of test states change no number of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.crystal import JumpNetwork
from ase_kinoson.validation import parent
from tests.barriers.synthetic import synthetic


def fitted(data, epochs):
    return BarrierModel.fit(data, seed=3, hidden=2 if epochs else 0, epochs=epochs, device="cpu")


@pytest.mark.parametrize("epochs", [0, 2])
def test_what_is_tested_on_is_never_trained_on(epochs):
    network = JumpNetwork.from_supercell(parent("square", {"Cu": 0.4, "Ni": 0.35, "Pd": 0.25}).supercell(5))
    data = synthetic(network, n=40)
    data.states = replace(data.states, groups=np.arange(40) // 2)
    model = fitted(data, epochs)
    trained = np.isin(data.states.keys, model.training_keys)
    assert 0 < (~trained).sum() == 40 - len(model.training_keys)
    assert not set(data.states.groups[trained]) & set(data.states.groups[~trained])  # groups stay together
    # energies and barriers of the test states, all others as they were
    other = replace(data)
    other.barrier, other.delta_e, other.energy_final = (
        x.copy() for x in (data.barrier, data.delta_e, data.energy_final)
    )
    other.energy_initial = np.where(trained, data.energy_initial, data.energy_initial + 3.0)
    other.barrier[~trained] += 0.4
    other.delta_e[~trained] *= -1.0
    again = fitted(other, epochs)
    assert np.array_equal(again.predict(data.states), model.predict(data.states))
    error, worse = (m.report["held_out"]["all"]["barrier"]["model"]["mae"] for m in (model, again))
    assert worse > error + 0.2
    # and those of a state that it is trained on do change it
    data.barrier[np.flatnonzero(trained)[:8]] += 0.4
    assert not np.array_equal(fitted(data, epochs).predict(data.states), model.predict(data.states))
