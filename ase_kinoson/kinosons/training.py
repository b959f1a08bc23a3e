"""Minimising Λ[y]: the network learns the relaxation by lowering the upper bound itself.

The loss is the mean of Λ_q[y]/Λ_q[0] over the vacancy, every species and every tracer. It is an average over
equilibrium states of
the very rates that it uses; other states would minimise another functional.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonError, StatesError
from ase_kinoson.kinetics.rates import Rates, RateSource
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.functional import relaxed_displacements, species_sums
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.verdict import check_temperature
from ase_kinoson.units import DEFAULT_ATTEMPT_FREQUENCY

__all__ = ["train_relaxation"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Training states of one basis site with their model rates."""

    basis_site: int
    codes: Tensor  # (n, n_window)
    probabilities: Tensor | None  # (n, n_inner, J)
    rates: Tensor  # (n, J), in units of the mean escape rate
    weights: Tensor  # (n,), mean 1 over the whole pool


def train_relaxation(
    cell: Supercell,
    jumps: JumpNetwork,
    model: Any,
    *,
    temperature_K: float | None = None,
    lookahead: int = 1,
    seed: int = 0,
    states: States | None = None,
    n_states: int = 2048,
    epochs: int = 8,
    batch_size: int = 32,
    hidden: int = 24,
    n_blocks: int = 2,
    cutoff: float | None = None,
    learning_rate: float = 1.5e-2,
    attempt_frequency: float = DEFAULT_ATTEMPT_FREQUENCY,
    start: Relaxation | None = None,
    progress: bool = False,
) -> Relaxation:
    """Train a relaxation on equilibrium states of a model's rates.

    Parameters
    ----------
    cell
        Supercell of the training states.
    jumps
        Jumps of the carrier.
    model
        Barrier model or lattice gas whose rates are cheap.
    temperature_K
        K; not needed for a lattice gas that gives rates.
    lookahead
        Steps of the Poisson equation with the model rates, ≥ 0.
    seed
        Seed of states, weights and batches.
    states
        Equilibrium states of the model to train on; default: sampled here by Monte Carlo.
    n_states
        Number of states to sample.
    epochs, batch_size, learning_rate
        Adam with a one-cycle schedule.
    hidden, n_blocks, cutoff
        The network; see :meth:`Relaxation.create`.
    attempt_frequency
        s⁻¹; common to all jumps.
    start
        A trained relaxation to start from (another temperature or composition).
    progress
        Show a bar with the current bound.

    Returns
    -------
    Relaxation
        With the weights that were best on the validation states (one fifth, never trained on). Its ``report`` holds the
        loss Λ[y]/Λ[0] of the untrained and the trained model on them.
    """
    if jumps.supercell != cell:
        jumps = jumps.with_supercell(cell)
    rates = Rates.of(model, jumps, temperature_K=temperature_K, attempt_frequency=attempt_frequency)
    if states is None:
        states = sample_states(
            cell,
            n_states,
            method="monte-carlo",
            model=rates.source,
            # a gas of rates has no energies and is as random at any temperature
            temperature_K=temperature_K or 300.0,
            # a stream of its own: states that a user samples with the same seed must not be the training states
            seed=int(np.random.SeedSequence([int(seed), 1]).generate_state(1)[0]),
            progress=progress,
        )
    if states.supercell != cell:
        raise StatesError(
            "the training states belong to another supercell; expected the one to train on; sample them again"
        )
    if states.ensemble == "random" and getattr(rates.source, "energy", None) is not None:
        raise StatesError(
            "found random training states for a model with energies; expected its equilibrium states; use "
            "method='monte-carlo'"
        )
    if not isinstance(rates.source, RateSource):
        check_temperature(states, temperature_K)
    relaxation = Relaxation.create(
        jumps, rates=rates, lookahead=lookahead, cutoff=cutoff, hidden=hidden, n_blocks=n_blocks, seed=seed
    )
    if start is not None:
        relaxation.field.load_state_dict(start.field.state_dict())
    rng = np.random.default_rng(seed)
    held = _held_out(states, rng)
    pools, bare = _prepare(relaxation, states[~held], rng)
    # each set in units of its own Λ[0], so that the ratio reported has no noise from other states
    check, check_bare = _prepare(relaxation, states[held], rng)
    _fit(relaxation, pools, bare, check, check_bare, epochs, batch_size, learning_rate, rng, progress)
    relaxation.report |= {
        "n_training_states": int((~held).sum()),
        "n_validation_states": int(held.sum()),
        "seed": int(seed),
        "ensemble": states.ensemble,
        "training_keys": states.keys,
    }
    return relaxation


def _held_out(states: States, rng: np.random.Generator) -> NDArray[np.bool_]:
    groups = np.unique(states.groups)
    if len(groups) < 5:
        raise StatesError(
            f"found {len(groups)} independent groups of training states; expected at least 5, so that some can "
            "validate; sample more"
        )
    chosen = rng.permutation(groups)[: max(1, len(groups) // 5)]
    return np.isin(states.groups, chosen)


@dataclass(frozen=True)
class _Scale:
    """Λ_q[0] of all quantities, in units of the mean escape rate, and that rate in s⁻¹."""

    escape: float
    carrier: float
    collective: NDArray[np.float64]


def _prepare(relaxation: Relaxation, states: States, rng: np.random.Generator) -> tuple[list[_Pool], _Scale]:
    network = relaxation.network
    basis = network.basis_of(states.carriers)
    raw = []
    for b in np.unique(basis):
        rows = rng.permutation(np.flatnonzero(basis == b))
        occ, carriers = states.occupations[rows], states.carriers[rows]
        assert relaxation.rates is not None or relaxation.lookahead == 0
        ball = relaxation.ball(int(b))
        if relaxation.lookahead:
            inner = np.concatenate(
                [relaxation.inner_rates(int(b), occ[i : i + 64], carriers[i : i + 64]) for i in range(0, len(rows), 64)]
            )
            root = inner[:, 0]
        else:
            inner = np.zeros((len(rows), 0, network.n_jumps))
            assert relaxation.rates is not None
            root = relaxation.rates(occ, carriers)
        codes = ball.stencil.window(occ, carriers)
        raw.append((int(b), codes, inner, root, states.weights[rows] * len(states)))
    total = sum(float((w[:, None] * root).sum()) for *_, root, w in raw) / len(states)
    if not total > 0:
        raise KinosonError(
            "found no jump with a positive rate in the training states; expected at least one; check the rates"
        )
    collective = np.zeros(len(network.supercell.species) - 1)
    for b, codes, _, root, w in raw:
        ball = relaxation.ball(b)
        length = np.square(network.vectors[b] @ network.projector).sum(-1)
        moved = codes[:, ball.mover[0].numpy()]
        for a in range(len(collective)):
            collective[a] += float((w[:, None] * root * length * (moved == a + 1)).sum()) / len(states) / total
    scale = _Scale(total, float(collective.sum()), collective)
    pools = [
        _Pool(
            b,
            torch.as_tensor(codes),
            relaxation.probabilities(inner) if relaxation.lookahead else None,
            torch.as_tensor(root / scale.escape, dtype=relaxation.dtype),
            torch.as_tensor(w, dtype=relaxation.dtype),
        )
        for b, codes, inner, root, w in raw
    ]
    return pools, scale


def _loss(relaxation: Relaxation, pool: _Pool, rows: Tensor, scale: _Scale) -> Tensor:
    """Σ over the batch of the weighted mean of Λ_q[y]/Λ_q[0] over all quantities."""
    ball = relaxation.ball(pool.basis_site)
    codes = pool.codes[rows]
    p = None if pool.probabilities is None else pool.probabilities[rows]
    y = relaxation.ball_fields(ball, codes, p)
    species = torch.as_tensor(np.flatnonzero(scale.collective > 0) + 1)
    moved, member = relaxed_displacements(ball, y, codes, species)
    if relaxation.network.dimension < 3:  # motion across a layer or chain is no diffusion
        moved = moved @ torch.as_tensor(relaxation.network.projector, dtype=moved.dtype)
    total, squares = species_sums(moved, member)
    w = pool.rates[rows] * pool.weights[rows, None]
    bare = torch.as_tensor(scale.collective[scale.collective > 0], dtype=w.dtype)
    carrier = (w * total.sum(2).square().sum(-1)).sum() / scale.carrier
    collective = torch.einsum("bk,bks->s", w, total.square().sum(-1)) / bare
    tracer = torch.einsum("bk,bks->s", w, squares) / bare
    parts = torch.cat([carrier[None], collective, tracer])
    return parts.mean()


def _evaluate(relaxation: Relaxation, pools: list[_Pool], scale: _Scale, batch: int) -> float:
    total, count = 0.0, 0.0
    with torch.no_grad():
        for pool in pools:
            for rows in torch.arange(len(pool.codes)).split(batch):
                total += float(_loss(relaxation, pool, rows, scale))
            count += len(pool.codes)
    return total / count


def _fit(
    relaxation: Relaxation,
    pools: list[_Pool],
    scale: _Scale,
    check: list[_Pool],
    check_scale: _Scale,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
    progress: bool,
) -> None:
    batches = [(i, rows) for i, pool in enumerate(pools) for rows in torch.arange(len(pool.codes)).split(batch_size)]
    steps = max(1, epochs * len(batches))
    optimizer = torch.optim.Adam(relaxation.field.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=0.15)
    best = untrained = _evaluate(relaxation, check, check_scale, batch_size)
    weights = copy.deepcopy(relaxation.field.state_dict())
    history = [untrained]
    bar = tqdm(total=epochs * len(batches), desc="training y", unit="batch", disable=not progress)
    bar.set_postfix({"bound": f"{untrained:.4f}"})
    for _ in range(epochs):
        order = [torch.as_tensor(rng.permutation(len(pool.codes))) for pool in pools]
        for index in rng.permutation(len(batches)):
            which, rows = batches[int(index)]
            optimizer.zero_grad()
            loss = _loss(relaxation, pools[which], order[which][rows], scale) / len(rows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(relaxation.field.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
        value = _evaluate(relaxation, check, check_scale, batch_size)
        history.append(value)
        bar.set_postfix({"bound": f"{value:.4f}"})
        if value < best:
            best, weights = value, copy.deepcopy(relaxation.field.state_dict())
    bar.close()
    relaxation.field.load_state_dict(weights)
    relaxation.report |= {"untrained_bound_ratio": untrained, "trained_bound_ratio": best, "history": history}
    _log.info("relaxation: validation bound ratio %.4f -> %.4f", untrained, best)
