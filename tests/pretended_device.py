"""A device that is not there: tensors without numbers, which know where they are and refuse others, as torch does.

`FakeTensorMode` needs no GPU, but torch without CUDA refuses to index tensors that pretend to be on one; of the device
``lazy`` it asks nothing. What else fails is replaced: `Tensor.to` of tensors that do not pretend yet, the exchange of
parameters of a module in place, and deep copies.
"""

import contextlib
import copy

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def _apply(module, fn, recurse=True):
    for child in module.children():
        _apply(child, fn)
    with torch.no_grad():
        own = {k: p for k, p in module._parameters.items() if p is not None}
        module._parameters.update({k: torch.nn.Parameter(fn(p), p.requires_grad) for k, p in own.items()})
    module._buffers.update({k: fn(b) for k, b in module._buffers.items()})
    return module


def _deepcopy(value, memo=None, *, right=copy.deepcopy):
    if isinstance(value, torch.nn.Module):
        made = copy.copy(value)
        made._parameters = {k: p if p is None else torch.nn.Parameter(p.detach()) for k, p in value._parameters.items()}
        made._buffers = dict(value._buffers)
        made._modules = {k: _deepcopy(m) for k, m in value._modules.items()}
        return made
    if isinstance(value, dict) and all(isinstance(v, torch.Tensor) for v in value.values()):
        return {k: v.clone() for k, v in value.items()}
    return right(value, memo)


@contextlib.contextmanager
def pretended_device(monkeypatch):
    """A device other than the CPU. What is on the CPU stays there until it is moved."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    right = torch.Tensor.to

    def to(tensor, *args, **options):
        pretends = isinstance(tensor, FakeTensor) or tensor.device.type == "meta"  # torch asks the latter for shapes
        return right(tensor if pretends else mode.from_tensor(tensor), *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", to)
        patch.setattr(torch.nn.Module, "_apply", _apply)
        patch.setattr(copy, "deepcopy", _deepcopy)
        with mode:
            yield torch.device("lazy")
