"""Relaxations as files: weights, and a JSON file with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ase_kinoson.barriers.model_file import read_model, read_tensors, refuse_gigantic, write_model
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.errors import KinosonError, ModelError
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.relaxation import Relaxation

__all__ = ["load_relaxation", "save_relaxation"]

FORMAT = "ase_kinoson.Relaxation"
VERSION = 2


def save_relaxation(relaxation: Relaxation, path: str | Path) -> None:
    """Write a relaxation; see :meth:`Relaxation.save`."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "network": relaxation.network.fingerprint,
        "species": list(relaxation.network.supercell.species),
        "cutoff": relaxation.environment.cutoff,
        "form": relaxation.form,
        "hidden": getattr(relaxation.field, "hidden", 0),
        "n_blocks": getattr(relaxation.field, "n_blocks", 0),
        "lookahead": relaxation.lookahead,
        "closure": "exact" if relaxation.closure is None else "learned",
        "gates": 0 if relaxation.closure is None else relaxation.closure.hidden,
        "temperature_K": relaxation.rates.temperature_K if relaxation.rates else None,
        "attempt_frequency": relaxation.rates.attempt_frequency if relaxation.rates else None,
        "scales": None if relaxation.scales is None else relaxation.scales.tolist(),
        "report": relaxation.report,
    }
    write_model(path, about, save({k: v.cpu().contiguous() for k, v in relaxation.modules.state_dict().items()}))


def load_relaxation(
    path: str | Path, network: JumpNetwork, *, model: Any = None, temperature_K: float | None = None
) -> Relaxation:
    """Read a relaxation; see :meth:`Relaxation.load`."""
    about, data = read_model(path, FORMAT, VERSION)
    tensors = {k: torch.from_numpy(v) for k, v in read_tensors(path, data).items()}
    stem = Path(path)
    try:
        return _rebuild(about, tensors, stem, network, model, temperature_K)
    except KinosonError:
        raise
    except Exception as error:
        raise ModelError(
            f"the file of the relaxation {path} is incomplete ({type(error).__name__}: {error}); expected a complete "
            "one; copy both files again or train it again"
        ) from error


def _rebuild(
    about: Mapping[str, Any],
    tensors: dict[str, torch.Tensor],
    stem: Path,
    network: JumpNetwork,
    model: Any,
    temperature_K: float | None,
) -> Relaxation:
    if not network.goes_by(about["network"]) or about["species"] != list(network.supercell.species):
        raise ModelError(
            f"the relaxation in {stem.name} was trained on other jumps or species ({about['species'][1:]}); "
            "expected "
            f"{list(network.supercell.species[1:])} on {network!r}; train one for this network"
        )
    rates = None
    if about["lookahead"] > 0 or about.get("scales") is not None:
        if model is None:
            raise ModelError(
                f"the relaxation in {stem.name} looks {about['lookahead']} step ahead; expected the model "
                "whose rates it uses; "
                "pass model="
            )
        rates = Rates.of(
            model,
            network,
            temperature_K=temperature_K or about["temperature_K"],
            attempt_frequency=about["attempt_frequency"],
        )
    _refuse_other_widths(about, tensors)
    refuse_gigantic(network.supercell.alloy, network.supercell.matrix, about["cutoff"])
    made = Relaxation.create(
        network,
        rates=rates,
        lookahead=about["lookahead"],
        cutoff=about["cutoff"],
        form=about["form"],
        hidden=about["hidden"],
        n_blocks=about["n_blocks"],
        closure=about["closure"],
        gates=about["gates"],
    )
    if any(t.dtype == torch.float64 for t in tensors.values()):
        made = made.to(torch.float64)
    try:
        made.modules.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"the weights in {stem.name} do not fit this supercell ({error}); expected those of its JSON file; "
            "save it again"
        ) from error
    made.report = dict(about["report"])
    if about.get("scales") is not None:
        scales = np.array(about["scales"], dtype=float)
        if scales.ndim != 1 or not np.isfinite(scales).all():
            raise ModelError(
                f"the relaxation in {stem.name} has the scales {str(about['scales'])[:60]}; expected one finite "
                "number per species; train it again"
            )
        made.scales = scales
    return made


def _refuse_other_widths(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """A network of the announced width has at least that many weights: no memory is taken for others."""
    most = sum(t.numel() for t in tensors.values())
    for name in ("hidden", "n_blocks", "gates", "lookahead"):
        value = about[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10_000:
            raise ModelError(f"found {name}={str(value)[:40]}; expected a small integer; train the relaxation again")
    field = about["hidden"] * max(1, about["hidden"] * about["n_blocks"]) if about["form"] == "network" else 0
    for name, least in (("hidden", field), ("gates", about["gates"])):
        if least > most:
            raise ModelError(
                f"the relaxation announces {name}={about[name]} and holds {most} weights; expected those of its width; "
                "copy both files again or train it again"
            )
