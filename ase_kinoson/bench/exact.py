"""The exact solver beside SciPy's, and the five-frequency model beside a Green function."""

from __future__ import annotations

import numpy as np
import scipy
import scipy.sparse as sp
import torch
from ase.build import bulk
from scipy.sparse.linalg import cg, spsolve

from ase_kinoson.bench import peers
from ase_kinoson.bench.row import Figure, Peer, Row, rate, seconds
from ase_kinoson.bench.timing import in_turns, ratio, sample
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.kinetics.five_frequency import FiveFrequency
from ase_kinoson.kinetics.lattice_gas import SpeciesRates
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinosons.exact import exact_lambda, solve_poisson, transfer_matrix
from ase_kinoson.kinosons.state_space import StateSpace

__all__ = ["exact_row", "five_frequency_row"]

FREQUENCIES = (1.0, 4.0, 1.0, 1.0, 4.0)
"""w0 … w4, s⁻¹."""


def exact_row(quick: bool) -> Row:
    """A random binary alloy on a small periodic fcc cell."""
    torch.set_num_threads(1)
    alloy = Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    counts = {"Ag": 4, "Cu": 22} if quick else {"Ag": 5, "Cu": 21}
    network = JumpNetwork.from_supercell(alloy.supercell(3, of="primitive"))
    rates = Rates.of(SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    space = StateSpace.enumerate(network, counts=counts)
    n = len(space)
    weights = space.weights(rates)
    flow = weights[:, None] * np.where(space.next_state >= 0, rates(space.occupations, space.carriers), 0.0)
    rng = np.random.default_rng(0)
    rhs = rng.standard_normal((n, 1))
    rhs -= rhs.mean()
    total = flow.sum(axis=1)
    scale = 1.0 / np.sqrt(total)
    right = rhs[:, 0] * scale
    right -= np.sqrt(total) * (np.sqrt(total) @ right) / total.sum()

    def scipy_solve() -> np.ndarray:
        matrix = sp.eye_array(n, format="csr") - transfer_matrix(space.next_state, flow, scale)
        return cg(matrix, right, rtol=1e-11, atol=0.0, maxiter=50_000)[0] * scale

    calls = {
        "build": lambda: StateSpace.enumerate(network, counts=counts),
        "lambda": lambda: exact_lambda(space, rates, weights=weights),
        "ours": lambda: solve_poisson(space.next_state, flow, rhs),
        "cg": scipy_solve,
    }
    found = in_turns(calls)
    ours = solve_poisson(space.next_state, flow, rhs)[:, 0]
    theirs = scipy_solve()
    apart = float(np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max() / np.abs(ours - ours.mean()).max())
    iterated = Peer(
        "SciPy, conjugate gradients", scipy.__version__, n / found["cg"].median, ratio(found["cg"], found["ours"]),
        f"the same matrix and tolerance, matrix built too; solutions agree within {apart:.0e}",
    )  # fmt: skip
    figures = [
        rate("states enumerated and linked", found["build"], n, "states/s"),
        rate("coefficients of an enumerated space", found["lambda"], n, "states/s"),
        rate("one right-hand side solved", found["ours"], n, "states/s", peer=iterated),
        _direct(),
    ]
    return Row(
        "exact",
        f"Random Ag{counts['Ag']}Cu{counts['Cu']} on {network.supercell.n_sites} sites of fcc, one vacancy: {n} "
        "states, one core.",
        tuple(figures),
        "Memory traffic of the sparse matrix in every step of conjugate gradients.",
        ("Direct factors of such graphs are nearly dense: above 2,000 states the solver iterates.",),
    )


def _direct() -> Figure:
    """One right-hand side on a space of some thousand states, against SciPy's direct solver."""
    alloy = Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.25, "Cu": 0.75}})
    network = JumpNetwork.from_supercell(alloy.supercell(3, of="primitive"))
    space = StateSpace.enumerate(network, counts={"Ag": 3, "Cu": 23})
    rates = Rates.of(SpeciesRates({"Ag": 0.1, "Cu": 1.0}), network)
    n = len(space)
    flow = space.weights(rates)[:, None] * rates(space.occupations, space.carriers)
    rhs = np.random.default_rng(0).standard_normal((n, 1))
    rhs -= rhs.mean()
    rows = np.repeat(np.arange(n), flow.shape[1])
    laplacian = sp.diags_array(flow.sum(axis=1)) - sp.csr_array((flow.ravel(), (rows, space.next_state.ravel())))
    pinned = laplacian.tocsc()[1:, 1:]
    found = in_turns(
        {
            "ours": lambda: solve_poisson(space.next_state, flow, rhs),
            "theirs": lambda: spsolve(pinned, rhs[1:, 0], permc_spec="MMD_AT_PLUS_A"),
        }
    )
    peer = Peer(
        "SciPy, spsolve", scipy.__version__, n / found["theirs"].median, ratio(found["theirs"], found["ours"]),
        "one state held at zero",
    )  # fmt: skip
    return rate(f"one right-hand side of {n} states", found["ours"], n, "states/s", peer=peer)


def five_frequency_row(quick: bool) -> Row:
    """L_ss of one solute in fcc: our exact cells, extrapolated, and the Green function of the infinite crystal."""
    torch.set_num_threads(1)
    repeats = 1 if quick else 5
    kept: dict[str, tuple[float, float]] = {}

    def ours() -> None:
        kept["ours"] = extrapolated_coefficients(FREQUENCIES)

    name, here = "onsager, VacancyMediated", peers.installed("onsager") and peers.installed("yaml")
    if here:

        def theirs() -> None:
            kept["theirs"] = peers.dilute_coefficients(FREQUENCIES)

        found = in_turns({"ours": ours, "theirs": theirs}, repeats=repeats)
        apart = max(abs(a / b - 1.0) for a, b in zip(kept["ours"], kept["theirs"], strict=True))
        peer = Peer(
            name, peers.version("onsager"), found["theirs"].median, ratio(found["theirs"], found["ours"]),
            f"L_ss = {kept['theirs'][0]:.6f}; L_ss and L_sv agree within {apart:.0e}",
        )  # fmt: skip
    else:
        found = {"ours": sample(ours, repeats=repeats)}
        peer = peers.absent(name, "onsager")
    return Row(
        "five-frequency",
        f"L_ss and L_sv of one solute in infinite fcc, w0 … w4 = {', '.join(f'{w:g}' for w in FREQUENCIES)}, from "
        f"nothing: L_ss = {kept['ours'][0]:.6f}.",
        (seconds("both coefficients", found["ours"], peer=peer),),
        "Enumeration and conjugate gradients of four cells of 256 to 1372 sites.",
        (
            "Both sides include their preparation. Once prepared, the Onsager package gives further rates of the same "
            "lattice in milliseconds; the exact cells start again.",
        ),
    )


def extrapolated_coefficients(w: tuple[float, float, float, float, float]) -> tuple[float, float]:
    """L_ss and L_sv in units of a² s⁻¹ from periodic cells of N sites, without terms in N⁻¹, N^(−5/3) and N⁻²."""
    alloy = Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    values, sizes = [], []
    for n in (4, 5, 6, 7):
        network = JumpNetwork.from_supercell(alloy.supercell(n))
        sites = network.supercell.n_sites
        space = StateSpace.enumerate(network, counts={"Ag": sites - 2, "Cu": 1})
        rates = Rates.of(FiveFrequency("Cu", *w, temperature_K=1000.0), network, temperature_K=1000.0)
        tensors, _, _ = exact_lambda(space, rates)
        matrix = np.einsum("abxx->ab", tensors) / 3.0
        z = sites - 13 + 12 * w[4] / w[3]
        values.append([z * matrix[1, 1], -z * matrix[1].sum()])
        sizes.append(float(sites))
    n_sites = np.array(sizes)
    terms = np.stack([np.ones(4), 1 / n_sites, n_sites ** (-5 / 3), n_sites**-2], axis=1)
    found = np.linalg.solve(terms, np.array(values))[0]
    return float(found[0]), float(found[1])
