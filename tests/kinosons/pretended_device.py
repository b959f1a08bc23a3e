"""A whole training step on a device that only pretends to exist; run by ``test_devices.py`` in a process of its own.

Fake tensors know their shape and device and no numbers; torch refuses to mix those of two devices. Then every table in
turn is left behind on the processor, which must be noticed.
"""

from __future__ import annotations

from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import ase_kinoson as ak
from ase_kinoson.kinosons.ball import Ball
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.validation import parent

DEVICE = "pretended:0"


def to_fake(mode: FakeTensorMode, module: torch.nn.Module) -> None:
    """Give a module fake tensors on the processor in place of its own."""
    for part in module.modules():
        for name, x in part._parameters.items():
            part._parameters[name] = None if x is None else torch.nn.Parameter(mode.from_tensor(x.detach()))
        for name, x in part._buffers.items():
            part._buffers[name] = None if x is None else mode.from_tensor(x)
        for name, x in list(vars(part).items()):
            if isinstance(x, torch.Tensor):
                setattr(part, name, mode.from_tensor(x))
            elif isinstance(x, list) and x and isinstance(x[0], torch.Tensor):
                setattr(part, name, [mode.from_tensor(y) for y in x])


def apply(module: torch.nn.Module, fn, recurse: bool = True) -> torch.nn.Module:
    """``Module._apply`` without the exchange of storages, which fake tensors do not have."""
    for child in module.children():
        child._apply(fn)
    for name, x in module._parameters.items():
        module._parameters[name] = None if x is None else torch.nn.Parameter(fn(x.detach()))
    for name, x in module._buffers.items():
        module._buffers[name] = None if x is None else fn(x)
    return module


def step(form: str, lookahead: int, closure: str, left_behind: str | None) -> None:
    cell = parent("square").supercell(5)
    network = ak.JumpNetwork.from_supercell(cell)
    rates = ak.Rates.of(ak.SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    states = ak.sample_states(cell, 6, seed=1)
    made = ak.Relaxation.create(network, rates=rates, lookahead=lookahead, closure=closure, form=form, hidden=6)
    if made.closure is not None:
        Objective.of(made, states).calibrate(made)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    mode.may_turn_const = lambda _: False  # a number that is known would be sent to the device for real
    to_fake(mode, made.modules)
    patches = (
        mock.patch("ase_kinoson.kinosons.relaxation.copy.deepcopy", lambda x: x),
        mock.patch("torch.nn.Module._apply", apply),
    )
    with mode, patches[0], patches[1]:
        there = made.to(device=DEVICE)
        if left_behind is not None:
            owner: object = there.ball(0) if left_behind in Ball.__dataclass_fields__ else there.field.parts[0]
            table = getattr(owner, left_behind)
            table = tuple(x.cpu() for x in table) if isinstance(table, tuple) else table.cpu()
            object.__setattr__(owner, left_behind, table)
        objective = Objective.of(there, states, rates=rates)
        loss = objective.loss(there, 0, torch.arange(4))
        assert loss.device == torch.device(DEVICE), loss.device
        parameters = list(there.parameters())
        if parameters:
            optimizer = torch.optim.Adam(parameters, capturable=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        assert all(p.device == loss.device for p in parameters)


CASES = (
    ("network", 0, "exact"),
    ("network", 1, "learned"),
    ("network", 2, "exact"),
    ("clusters", 0, "exact"),
    ("clusters", 1, "exact"),
    ("clusters", 2, "learned"),
    ("paths", 1, "exact"),
    ("paths", 2, "learned"),
    ("scaled-bias", 2, "learned"),
)
TABLES = {
    "network": ("labels", "out_labels", "jump_vectors", "next_state", "rows", "rotations", "lift"),
    "clusters": ("value", "out_rows", "signs"),
}


def main() -> None:
    _setup_privateuseone_for_python_backend("pretended")
    for case in CASES:
        step(*case, None)
    for form, names in TABLES.items():
        for name in names:
            try:
                step(form, 1, "exact", name)
            except RuntimeError as error:
                assert "same device" in str(error), error
            else:
                raise AssertionError(f"nobody missed {name}")
    print("done")


if __name__ == "__main__":
    main()
