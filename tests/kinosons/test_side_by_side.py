"""Several states at a time: the same numbers in the same order, whatever the number of threads."""

from __future__ import annotations

import threading

import pytest
import torch

import ase_kinoson as ak
from ase_kinoson.kinosons import field_memory, training
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.side_by_side import n_side_by_side, on_all_cores, threads_for_a_while
from ase_kinoson.validation import tiny_cell

CPU = torch.device("cpu")
GAS = ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0})

pytestmark = pytest.mark.filterwarnings("ignore::ase_kinoson.errors.KinosonWarning")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_items_come_back_in_order_from_threads_of_one_core_each(two_threads):
    meet = threading.Barrier(2)

    def work(i):
        meet.wait(timeout=20)  # nobody gets here alone
        return i, torch.get_num_threads(), torch.is_grad_enabled(), threading.get_ident()

    with threads_for_a_while(CPU), torch.no_grad():
        assert n_side_by_side() == 2
        with threads_for_a_while(CPU):  # those that are there are used
            found = on_all_cores(work, range(6))
        own = torch.get_num_threads()
    assert [x[:3] for x in found] == [(i, 1, False) for i in range(6)]
    assert len({x[3] for x in found}) == 2 and own == torch.get_num_threads() == 2
    # none is left
    assert n_side_by_side() == 1
    assert on_all_cores(lambda i: (i, threading.get_ident()), [3]) == [(3, threading.get_ident())]


def test_an_error_of_a_thread_is_not_lost(two_threads):
    with pytest.raises(ZeroDivisionError), threads_for_a_while(CPU):
        on_all_cores(lambda i: 1 / i, [1, 0, 2])
    assert n_side_by_side() == 1


def trained(form, **options):
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    shape = {"hidden": 4, "n_blocks": 1, "gates": 4, "lookahead": 1, "epochs": 2, "closure_epochs": 2, "seed": 3}
    y = ak.train_relaxation(cell, jumps, GAS, n_states=90, batch_size=15, form=form, **shape, **options)
    return torch.cat([p.detach().reshape(-1) for p in y.parameters()]), y.report["history"]


@pytest.mark.parametrize("form", ["network", "clusters"])
def test_a_training_does_not_depend_on_the_number_of_threads(two_threads, form, monkeypatch):
    weights, history = trained(form)
    again, _ = trained(form)
    assert torch.equal(weights, again)
    assert sum(x.numel() for x in field_memory.RESERVE.blocks) == 0  # what the steps needed is free again
    # broken twin: the parts of a batch are averages of their own
    right = training.on_all_cores
    monkeypatch.setattr(training, "on_all_cores", lambda work, items: right(work, list(items)[:1]))
    wrong, _ = trained(form)
    monkeypatch.undo()
    torch.set_num_threads(1)
    alone, before = trained(form)
    torch.testing.assert_close(weights, alone, rtol=0, atol=2e-5)
    assert history == pytest.approx(before, rel=1e-5)
    assert float((wrong - alone).abs().max()) > 1e-3


def test_a_bound_has_the_same_bits(two_threads):
    cell, jumps = tiny_cell({"Ag": 4, "Cu": 4})
    y = ak.Relaxation.create(jumps, rates=ak.Rates.of(GAS, jumps), lookahead=1, hidden=4)
    objective = Objective.of(y, ak.sample_states(cell, 150, seed=0))
    with threads_for_a_while(CPU):
        together = objective.evaluate(y)
    torch.set_num_threads(1)
    assert together == objective.evaluate(y)
