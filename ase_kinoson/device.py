"""Where tensors live: the processor, or a GPU if there is one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ase_kinoson.errors import ModelError

__all__ = ["deterministic", "device_of"]


def device_of(name: str | torch.device) -> torch.device:
    """Return the device of a name.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU if there is one.

    Returns
    -------
    torch.device

    Raises
    ------
    ModelError
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"found device={name!r}; expected 'auto', 'cpu' or 'cuda'; correct it") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("found device='cuda' and no GPU that torch can use; expected one; pass device='auto'")
    return device


@contextlib.contextmanager
def deterministic(on: bool = True) -> Iterator[None]:
    """Let torch use only operations that give the same bits in every run; slower on a GPU, nothing changes on a CPU.

    Parameters
    ----------
    on
        False: leave torch as it is.
    """
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if on:
        # cuBLAS reads it when it starts; without it torch refuses matrix products on a GPU in this mode
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
