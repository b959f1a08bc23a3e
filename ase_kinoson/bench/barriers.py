"""Barriers of a learned model, per second."""

from __future__ import annotations

from functools import partial

import torch

from ase_kinoson.barriers.carrier_network import NetworkEnergy
from ase_kinoson.barriers.learned import BarrierModel
from ase_kinoson.bench.cases import SYNTHETIC, five_species, random_states, synthetic_model
from ase_kinoson.bench.machine import PRODUCT, square_product, two_threads
from ase_kinoson.bench.row import Row, rate, with_limit
from ase_kinoson.bench.timing import in_turns, sample

__all__ = ["barriers_row", "operations_per_barrier"]


def barriers_row(quick: bool) -> Row:
    """All jumps of random states, from nothing but their occupations."""
    network = five_species(4)
    model = synthetic_model(network)
    states = random_states(network.supercell, 128 if quick else 512)
    n = len(states) * network.n_jumps
    figures = []
    for threads in sorted({1, two_threads()}):
        torch.set_num_threads(threads)
        found = in_turns(
            {"ours": partial(model.jump_energies, states.occupations, states.carriers), "product": square_product()}
        )
        figure = rate("barriers of random states", found["ours"], n, "barriers/s", threads=threads)
        best = PRODUCT / found["product"].median / operations_per_barrier(model)
        figures.append(with_limit(figure, "arithmetic, single precision", best))
    double = model.with_precision("double")
    torch.set_num_threads(1)
    alone = sample(partial(double.jump_energies, states.occupations, states.carriers))
    figures.append(rate("the same in double precision", alone, n, "barriers/s"))
    return Row(
        "barriers",
        f"All 12 barriers of {len(states)} random states of five species on {network.supercell.n_sites} sites.",
        tuple(figures),
        "Reading the rows of the tables of what each atom adds (larger than the first cache), and the activation "
        "function; products of matrices are the smaller part.",
        (
            SYNTHETIC,
            f"The limit counts {operations_per_barrier(model) / 1e3:.0f} thousand operations per barrier at the speed "
            "of a product of large matrices.",
        ),
    )


def operations_per_barrier(model: BarrierModel, *, sums: bool = True) -> float:
    """Additions and multiplications of one barrier: sums of table rows, mixing layers, readout.

    ΔE needs the network at both ends; all jumps of a state share one of them. Without ``sums``: of what remains where
    the sums, and the energy of the state, are known from the last jump.
    """
    share_of_state = 1.0 / model.network.n_jumps if sums else 0.0
    total = 0.0
    assert isinstance(model.energy, NetworkEnergy)
    for net, share in ((model.kra.networks[0], 1.0), (model.energy.carrier.networks[0], 1.0 + share_of_state)):
        width = net.n_ops * net.hidden
        mixing = net.layers * (2.0 * width * net.hidden + 2.0 * net.hidden**2)
        total += share * ((net.n_env * width if sums else 0.0) + mixing + 2.0 * width)
    return total
