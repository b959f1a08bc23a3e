"""Everything that a training step needs is on the device of the relaxation; and a GPU gives the same bound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import backend_registration

import ase_kinoson as ak
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.validation import parent

pretended = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot pretend to have another device",
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SCRIPT = Path(__file__).with_name("pretended_device.py")


@pretended
def test_a_training_step_stays_on_its_device_and_misses_a_table_left_behind():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr[-3000:]


def case(form, lookahead, closure):
    cell = parent("fcc").supercell(3)
    network = ak.JumpNetwork.from_supercell(cell)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, closure=closure, form=form, hidden=6)
    generator = torch.Generator().manual_seed(3)
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return made, ak.sample_states(cell, 8, seed=1), rates


@gpu
@pytest.mark.parametrize("form", ["network", "clusters", "scaled-bias"])
@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize("closure", ["exact", "learned"])
def test_a_gpu_gives_the_same_bound(form, lookahead, closure, tmp_path):
    if form == "scaled-bias" and lookahead == 0:
        pytest.skip("no such relaxation")
    made, states, rates = case(form, lookahead, closure)
    there = made.to(device="cuda")
    values, gradients, terms = [], [], []
    for y in (made, there):
        objective = Objective.of(y, states, rates=rates)
        assert objective.pools[0].codes.device.type == y.device.type
        values.append(objective.evaluate(y)[0])
        y.modules.zero_grad()
        objective.loss(y, 0, torch.arange(8)).backward()
        gradients.append(torch.cat([p.grad.cpu().reshape(-1) for p in y.parameters() if p.grad is not None]))
        terms.append(jump_terms(y, states.occupations, states.carriers).tracer)
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    scale = float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(terms[1], terms[0], rtol=0, atol=1e-4 * np.abs(terms[0]).max())
    there.save(tmp_path / "y")
    again = ak.Relaxation.load(tmp_path / "y", made.network, model=rates.source)
    assert again.device.type == "cpu"
    for p, q in zip(again.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_a_copy_elsewhere_leaves_the_first_alone():
    made, states, _ = case("network", 1, "learned")
    double = made.to(torch.float64, device="cpu")
    assert double.dtype == torch.float64 and made.dtype == torch.float32
    assert double.to(device="cpu").dtype == torch.float64
    assert made.to().device == made.device == torch.device("cpu")
    np.testing.assert_allclose(
        double(states.occupations, states.carriers), made(states.occupations, states.carriers), atol=1e-4
    )
