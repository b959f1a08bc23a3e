"""The relaxation y: network, training steps, look-ahead, and the functional."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ase_kinoson.bench.cases import filled, five_species, gas_rates, random_states
from ase_kinoson.bench.machine import PRODUCT, SQUARE, square_product, two_threads
from ase_kinoson.bench.row import Figure, Row, Target, rate, with_limit
from ase_kinoson.bench.timing import in_turns, sample
from ase_kinoson.crystal.environment import CarrierEnvironment, EnvironmentClass
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.lattice_gas import SpeciesRates
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.field import EquivariantField
from ase_kinoson.kinosons.functional import jump_terms
from ase_kinoson.kinosons.objective import Objective
from ase_kinoson.kinosons.relaxation import Relaxation
from ase_kinoson.kinosons.side_by_side import threads_for_a_while
from ase_kinoson.kinosons.training import set_gradients
from ase_kinoson.kinosons.twofold import Twofold

__all__ = [
    "field_step",
    "functional_row",
    "look_ahead_row",
    "operations_in_blocks",
    "operations_per_state",
    "training_step",
    "y_row",
]

BATCH = 256
"""States of a step of y alone."""

N_STATES = 145
"""Distinct states within two jumps of a vacancy in fcc, of which look-ahead needs y."""


def operations_per_state(
    n_env: int, n_ops: int, n_out: int, hidden: int, n_layers: int = 2, *, sums: bool = True
) -> float:
    """Operations of y of one state as the formula is written: table rows summed, pointwise layers, output.

    The layers act on each orientation and on their mean.
    """
    width = n_ops * hidden
    return (n_env * width if sums else 0.0) + _layers(n_ops, hidden, n_layers) + 2.0 * width * 3.0 * n_out


def operations_in_blocks(
    kind: EnvironmentClass, n_codes: int, hidden: int, n_layers: int = 2, *, sums: bool = True
) -> float:
    """Operations of y of one state as they are made for a vacancy: first sums and output in one block per character.

    The layers are the same; signed sums over the m members come before and after each filter.
    """
    half = Twofold.of(kind)
    m, orbits, block = half.n_members, half.sites.shape[1], half.n_cosets * hidden
    signs = 2.0 * m * m * block
    first = 2.0 * m * m * n_codes * orbits + 2.0 * m * (n_codes * orbits + 1) * block + signs
    output = signs + 2.0 * m * block * 3.0 * orbits + 2.0 * (3.0 * m) ** 2 * orbits
    return (first if sums else 0.0) + _layers(kind.n_ops, hidden, n_layers) + output


def _layers(n_ops: int, hidden: int, n_layers: int) -> float:
    return n_layers * (2.0 * n_ops * hidden * hidden + 2.0 * hidden**2)


def y_row(quick: bool) -> Row:
    """The network of y around a carrier, forward and with its gradient."""
    torch.set_num_threads(1)
    network = five_species(4)
    environment = CarrierEnvironment.build(network)
    kind = environment.classes[0]
    n_codes = len(network.supercell.species) - 2  # one species is what the others are told from
    batch, figures, counts = BATCH // (2 if quick else 1), [], []
    for hidden in (24, 32):
        step, look = field_step(environment, network, hidden, batch)
        found = in_turns({"step": step, "look": look, "product": square_product()}, repeats=5 if quick else 9)
        speed = PRODUCT / found["product"].median
        work = operations_in_blocks(kind, n_codes, hidden)
        written = operations_per_state(kind.n_sites, kind.n_ops, kind.n_sites, hidden)
        counts.append(f"{work / 1e3:.0f} thousand instead of {written / 1e3:.0f} thousand at width {hidden}")
        for name, which, share, target in (
            ("training step", "step", 3.0, Target(15_000.0)),
            ("inference", "look", 1.0, None),
        ):
            figure = rate(f"{name}, width {hidden}", found[which], batch, "states/s", target=target)
            figures.append(with_limit(figure, "arithmetic, single precision", speed / (share * work)))
    return Row(
        "y",
        f"Network of y, {kind.n_sites} sites, {kind.n_ops} orientations, five species, {batch} states at a time, one "
        "core.",
        tuple(figures),
        "Activation functions and their gradients, which read and write every channel of every orientation, beside the "
        "products of matrices.",
        (
            "A training step is forward and backward, weights folded over the orientations once per step. The limit "
            "counts the operations of the blocks into which the network falls, forward, and three times that with the "
            f"gradient, at the speed of a product of matrices of side {SQUARE}: {'; '.join(counts)}, which the same "
            "formula takes without blocks.",
        ),
    )


def field_step(
    environment: CarrierEnvironment, network: JumpNetwork, hidden: int, n: int, *, device: str = "cpu"
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward, and forward alone, of the network of y on ``n`` random environments."""
    field = filled(EquivariantField(environment, network, hidden=hidden)).to(device)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(1, 6, (n, environment.classes[0].n_sites), generator=generator).to(device)

    def step() -> None:
        field.zero_grad()
        field(codes, 0).square().sum().backward()

    def look() -> None:
        with torch.no_grad():
            field(codes, 0)

    return step, look


def training_step(network: JumpNetwork, closure: str, n_states: int, *, device: str = "cpu") -> Callable[[], None]:
    """A step of training with one jump of look-ahead on random states."""
    rates = Rates.of(SpeciesRates(gas_rates()), network)
    relaxation = Relaxation.create(network, rates=rates, lookahead=1, closure=closure, form="network", hidden=24)
    filled(relaxation.field)
    relaxation = relaxation.to(device=device)
    objective = Objective.of(relaxation, random_states(network.supercell, n_states))
    if closure == "learned":
        objective.calibrate(relaxation)
    rows = torch.arange(n_states, device=device)
    learning = list(relaxation.parameters())
    return partial(set_gradients, learning, relaxation, objective, 0, rows)


def look_ahead_row(quick: bool) -> Row:
    """A step of training with one jump of look-ahead: all 12 jumps, 145 distinct states each."""
    network = five_species(4)
    n = 32 if quick else 64
    kind = CarrierEnvironment.build(network).classes[0]
    layers = operations_in_blocks(kind, len(network.supercell.species) - 2, 24, sums=False)
    figures: list[Figure] = []
    for closure in ("exact", "learned"):
        step = training_step(network, closure, n)

        for threads in sorted({1, two_threads()}):
            torch.set_num_threads(threads)
            with threads_for_a_while(torch.device("cpu")):
                found = in_turns({"step": step, "product": square_product()})
            target = Target(400.0) if threads == 2 else None
            name = f"training step, {closure} closure"
            figure = rate(name, found["step"], n, "samples/s", threads=threads, target=target)
            if closure == "exact":
                best = PRODUCT / found["product"].median / (3.0 * N_STATES * layers)
                figure = with_limit(figure, "arithmetic of the layers", best)
            figures.append(figure)
    return Row(
        "look-ahead",
        f"Training with one jump of look-ahead, width 24, 12 jumps and 145 distinct states per sample, {n} samples at "
        "a time.",
        tuple(figures),
        "The network of y on 145 states per sample: samples/s times 145 is its rate of states.",
        (
            f"The limit counts layers and output of y on 145 states, in blocks: {layers / 1e3:.0f} thousand operations "
            "each, three times for the gradient, at the speed of a product of large matrices; first sums, activation "
            "functions and displacements are left out.",
        ),
    )


def functional_row(quick: bool) -> Row:
    """What transport computes per state: relaxed displacements of all jumps, by species and for tracers."""
    network = five_species(4)
    n = 64 if quick else 256
    states = random_states(network.supercell, n)
    figures: list[Figure] = []
    for lookahead, share in ((0, 1), (1, 4)):
        rates = Rates.of(SpeciesRates(gas_rates()), network)
        relaxation = Relaxation.create(network, rates=rates, lookahead=lookahead, form="network", hidden=24)
        if relaxation.closure is not None:
            Objective.of(relaxation, states[: n // share]).calibrate(relaxation)
        part = states[: n // share]
        for threads in sorted({1, two_threads()}):
            torch.set_num_threads(threads)
            found = sample(partial(jump_terms, relaxation, part.occupations, part.carriers))
            name = "y alone" if lookahead == 0 else "with one jump of look-ahead"
            figures.append(rate(f"jump terms, {name}", found, len(part), "states/s", threads=threads))
    return Row(
        "functional",
        "Relaxed displacements of all jumps of a state, of all species and for tracers, without gradients, width 24.",
        tuple(figures),
        "The network of y on the states around each one (13 without look-ahead, 145 with one jump).",
    )
