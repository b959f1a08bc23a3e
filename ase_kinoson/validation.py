"""The physics table: our numbers beside exact or published ones.

Every row computes from scratch with the public functions. References are published values (Onsager package by D. R.
Trinkle for the
correlation factors of infinite crystals, and its interstitial calculator for the hcp network), exact rational or
linear-solve
results of small cells, or identities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from numpy.typing import NDArray
from tqdm import tqdm

from ase_kinoson.barriers.energy import PairEnergy
from ase_kinoson.crystal.alloy import Alloy
from ase_kinoson.crystal.jumps import JumpNetwork
from ase_kinoson.crystal.states import States
from ase_kinoson.crystal.supercell import Supercell
from ase_kinoson.errors import KinosonWarning
from ase_kinoson.kinetics.five_frequency import FiveFrequency
from ase_kinoson.kinetics.lattice_gas import PairBarriers, SiteBarriers, SpeciesRates
from ase_kinoson.kinetics.rates import Rates
from ase_kinoson.kinetics.sampling import sample_states
from ase_kinoson.kinosons.correction import correct
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda, exact_transport
from ase_kinoson.kinosons.training import train_relaxation
from ase_kinoson.kinosons.trajectories import run_kmc
from ase_kinoson.kinosons.transport import transport

__all__ = ["ValidationRow", "run_validation"]

PARENTS: dict[str, Callable[[], Atoms]] = {
    "sc": lambda: bulk("Po", "sc", a=3.0),
    "bcc": lambda: bulk("Fe", "bcc", a=2.87),
    "fcc": lambda: bulk("Cu", "fcc", a=3.6),
    "diamond": lambda: bulk("Si", "diamond", a=5.43),
    "square": lambda: Atoms("Cu", cell=[1, 1, 10], pbc=(1, 1, 0)),
    "honeycomb": lambda: Atoms(
        "C2",
        cell=[[3**0.5, 0, 0], [-(3**0.5) / 2, 1.5, 0], [0, 0, 12]],
        scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
        pbc=(1, 1, 0),
    ),
}

FINITE_CELLS = [
    ("fcc", 2, "conventional", 0.811320755),
    ("fcc", 8, "primitive", 0.783535),
    ("bcc", 3, "conventional", 0.743006),
    ("bcc", 5, "conventional", 0.730891),
    ("sc", 4, "conventional", 0.675393),
    ("sc", 8, "conventional", 0.655040),
]
"""Lattice, supercell, tracer correlation factor of one vacancy in a periodic pure crystal, equal rates."""

INFINITE = [
    ("sc", (8, 10), 0.65310884),
    ("bcc", (8, 10), 0.72719414),
    ("fcc", (6, 8), 0.78145142),
    ("diamond", (5, 6), 0.5),
    ("square", (14, 20), 0.46694220),
    ("honeycomb", (10, 16), 1 / 3),
]
"""Lattice, two supercells to extrapolate from, tracer correlation factor of the infinite crystal."""

TINY = [
    ({"Ag": 4, "Cu": 4}, {"Ag": 0.1, "Cu": 1.0}, [[0.0478002294, 0.0219977056], [0.0219977056, 0.2800229438]]),
    ({"Ag": 4, "Cu": 4}, {"Ag": 1.0, "Cu": 1.0}, [[0.3961038961, 0.1038961039], [0.1038961039, 0.3961038961]]),
    ({"Ag": 4, "Cu": 4}, {"Ag": 0.001, "Cu": 1.0}, [[0.0004997230, 0.0002770173], [0.0002770173, 0.2229826806]]),
    (
        {"Ag": 3, "Cu": 3, "Pd": 2},
        {"Ag": 0.1, "Cu": 1.0, "Pd": 0.5},
        [
            [0.0350694401, 0.0114077464, 0.0064489265],
            [0.0114077464, 0.1903500492, 0.0352862434],
            [0.0064489265, 0.0352862434, 0.0751122460],
        ],
    ),
]
"""Random alloys on a periodic 3×3 square lattice with one vacancy: numbers of atoms, rates, exact Λ in (unit
length)²/s."""


@dataclass(frozen=True)
class ValidationRow:
    """One comparison.

    Attributes
    ----------
    name : str
    ours, reference, tolerance : float
        Passed if ``|ours − reference| ≤ tolerance``.
    unit : str
    """

    name: str
    ours: float
    reference: float
    tolerance: float
    unit: str = "1"

    @property
    def passed(self) -> bool:
        """Whether ours agrees with the reference within the tolerance."""
        return bool(abs(self.ours - self.reference) <= self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "ours": self.ours,
            "reference": self.reference,
            "tolerance": self.tolerance,
            "unit": self.unit,
            "passed": self.passed,
        }


def parent(lattice: str, composition: dict[str, float] | None = None) -> Alloy:
    """Model alloy on a lattice of ``PARENTS``; half Ag, half Cu unless a composition is given."""
    atoms = PARENTS[lattice]()
    return Alloy.from_atoms(atoms, {atoms.get_chemical_symbols()[0]: composition or {"Ag": 0.5, "Cu": 0.5}})


def tracer_factor(cell: Supercell) -> float:
    """Exact tracer correlation factor of one vacancy in a pure periodic cell: one tagged atom, equal rates."""
    network = JumpNetwork.from_supercell(cell)
    space = StateSpace.enumerate(network, counts={"Ag": cell.n_sites - 2, "Cu": 1})
    matrix, bare, _ = exact_lambda(space, Rates.of(SpeciesRates({"Ag": 1.0, "Cu": 1.0}), network))
    return float(np.trace(matrix[1, 1]) / np.trace(bare[1, 1]))


def infinite_factor(lattice: str, sizes: Sequence[int]) -> float:
    """Tracer correlation factor of the infinite crystal: f_N − 1/(N−1) extrapolated in 1/N from two cells."""
    cells = [parent(lattice).supercell(n, of="primitive") for n in sizes]
    n = np.array([c.n_sites for c in cells])
    f = np.array([tracer_factor(c) for c in cells]) - 1.0 / (n - 1)
    return float((n[1] * f[1] - n[0] * f[0]) / (n[1] - n[0]))


def tiny_cell(counts: dict[str, int]) -> tuple[Supercell, JumpNetwork]:
    """3×3 square lattice with the given numbers of atoms and one vacancy."""
    total = sum(counts.values())
    cell = parent("square", {s: n / total for s, n in counts.items()}).supercell((3, 3, 1))
    return cell, JumpNetwork.from_supercell(cell)


def hcp_interstitials() -> JumpNetwork:
    """Octahedral and tetrahedral sites of ideal hcp, a = 3 Å, found; jumps o-o along c, o-t, t-t along c."""
    cell = Alloy.from_atoms(bulk("Mg", "hcp", a=3.0, c=3.0 * np.sqrt(8 / 3))).supercell((2, 2, 2))
    return JumpNetwork.from_supercell(cell, mechanism="interstitial", species="H", sites=["octahedral", "tetrahedral"])


def carbon_in_iron(temperature_K: float) -> float:
    """D0 (m²/s) of C on the octahedral sites of bcc Fe, found from the structure: 0.816 eV, 10 THz."""
    cell = Alloy.from_atoms(bulk("Fe", "bcc", a=2.8553, cubic=True)).supercell(2)
    network = JumpNetwork.from_supercell(cell, mechanism="interstitial", species="C", sites="octahedral")
    source = SiteBarriers((0.0,), (0.816,))
    result = exact_transport(network.supercell, network, source, temperature_K, attempt_frequency=1e13)
    return float(result.vacancy_diffusivity) * float(np.exp(0.816 / (units.kB * temperature_K)))


def hcp_tensor(
    site_energies: tuple[float, float], saddles: dict[float, float], thermal_eV: float
) -> NDArray[np.float64]:
    """Diagonal of the exact diffusion tensor (Å²/s, prefactors 1/s) of one interstitial in hcp."""
    network = hcp_interstitials()
    by_class = tuple(saddles[min(saddles, key=lambda x: abs(x - length))] for length in network.lengths)
    result = exact_transport(
        network.supercell,
        network,
        SiteBarriers(site_energies, by_class),
        thermal_eV / units.kB,
        attempt_frequency=1.0,
    )
    return np.diag(np.asarray(result.vacancy_diffusivity_tensor.value)) * 1e20


def _exact_rows() -> Iterator[ValidationRow]:
    for lattice, size, of, reference in FINITE_CELLS:
        cell = parent(lattice).supercell(size, of=of)
        name = f"tracer f, {lattice}, periodic cell of {cell.n_sites} sites"
        yield ValidationRow(name, tracer_factor(cell), reference, 1e-6)
    for lattice, sizes, reference in INFINITE:
        yield ValidationRow(f"tracer f, {lattice}, infinite", infinite_factor(lattice, sizes), reference, 1e-3)
    for counts, rates, matrix in TINY:
        cell, network = tiny_cell(counts)
        result = exact_transport(cell, network, SpeciesRates(rates))
        error = np.abs(np.asarray(result.lambda_matrix.value) - np.array(matrix)).max()
        what = " + ".join(f"{n} {s} (rate {rates[s]:g})" for s, n in counts.items())
        yield ValidationRow(f"Λ of a tiny alloy, {what}: largest deviation", float(error), 0.0, 1e-9, "Å^2/s")
        w = np.array([rates[s] for s in result.species])
        assert result.states is not None
        bare = np.diag(np.asarray(transport(result.states, network, SpeciesRates(rates)).lambda_matrix.value))
        sums = (np.asarray(result.lambda_matrix.value) * w[:, None] / w[None, :]).sum(axis=1) / bare
        worst = float(sums[np.abs(sums - 1).argmax()])
        yield ValidationRow("   its sum rule Σ_b Λ_ab w_a/w_b = Λ_aa[0]", worst, 1.0, 1e-12)
    for energies, saddles, thermal, diagonal in (
        ((0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, 1.0, (1.15694147, 1.15694147, 0.705694102)),
        ((0.0, 1.0), {2.4495: 3.0, 1.8371: 1.5, 1.2247: 1.25}, 0.5, (0.352635551, 0.352635551, 0.196350125)),
        ((0.0, 0.0), {2.4495: 0.0, 1.8371: 0.0, 1.2247: 0.0}, 1.0, (3.0, 3.0, 3.2)),
    ):
        ours = hcp_tensor(energies, saddles, thermal)
        error = np.abs(ours - np.array(diagonal)).max()
        name = f"hcp interstitial tensor, k_BT = {thermal:g} eV, site energies {energies} eV: largest deviation"
        yield ValidationRow(name, float(error), 0.0, 1e-6, "Å^2/s")
    d0 = (2.8553e-10) ** 2 * 1e13 / 6
    yield ValidationRow("C in bcc Fe, octahedral sites, D0 = a²ν/6", carbon_in_iron(700.0), d0, 1e-9 * d0, "m^2/s")


def _variational_rows() -> Iterator[ValidationRow]:
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    exact = exact_transport(cell, network, gas)
    relaxation = train_relaxation(cell, network, gas, lookahead=1, n_states=600, seed=1)
    assert exact.states is not None
    ours = transport(exact.states, network, gas, relaxation)
    for name, a, b in [
        ("Λ_vv", ours.vacancy_diffusivity, exact.vacancy_diffusivity),
        *((f"Λ*({s})", ours.tracer_diffusivity[s], exact.tracer_diffusivity[s]) for s in exact.species),
    ]:
        title = f"trained y on all states of a tiny alloy, {name}/exact: 1 to 1.1"
        yield ValidationRow(title, float(a) / float(b), 1.05, 0.05)
    energy = PairEnergy.from_interactions(cell, {("Ag", "Cu"): -0.05, ("Cu", "X"): -0.03})
    model = PairBarriers(energy, {"Ag": 0.6, "Cu": 0.5})
    rates = Rates.of(model, network, temperature_K=600.0)
    y = train_relaxation(cell, network, model, temperature_K=600.0, n_states=400, lookahead=1, seed=2)
    space = StateSpace.enumerate(network)
    for ensemble in ("equilibrium", "quenched"):
        whole = space.states(space.weights(rates, ensemble=ensemble), ensemble=ensemble)
        reference = _quiet_diffusivity(whole, network, model, y)
        drawn = sample_states(
            cell, 800, method="monte-carlo", model=rates.source, temperature_K=600.0, ensemble=ensemble, seed=3
        )
        ours_d, error = _quiet_diffusivity(drawn, network, model, y, error=True)
        yield ValidationRow(
            f"Λ_vv[y] of Monte Carlo states, {ensemble}, against enumeration (tolerance 3 σ)",
            ours_d,
            reference[0],
            3 * error,
            "m^2/s",
        )


FIVE_FREQUENCY = (
    ((1, 4, 1, 1, 4), (3.41002218, 1.06208409, 0.852506)),
    ((1, 4, 4, 1, 4), (9.45597646, 2.94515449, 0.590999)),
    ((1, 1, 100, 1, 1), (3.45220327, -4.41768124, 0.034522)),
)
"""w0 … w4 and L_ss, L_sv, f₂ of the infinite fcc crystal with a = 1 (Onsager package 1.4)."""


def _dilute_rows() -> Iterator[ValidationRow]:
    """Cells of one solute and one vacancy: 1/N, then the images of cubic cells, whose lowest multipole falls as L⁻⁵."""
    alloy = Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    networks = [JumpNetwork.from_supercell(alloy.supercell(n)) for n in (4, 5, 6, 7)]
    spaces = [StateSpace.enumerate(n, counts={"Ag": n.supercell.n_sites - 2, "Cu": 1}) for n in networks]
    n = np.array([float(s.network.supercell.n_sites) for s in spaces])
    terms = np.stack([np.ones_like(n), 1 / n, n ** (-5 / 3), n**-2], axis=1)
    for w, references in FIVE_FREQUENCY:
        values = []
        for space, sites in zip(spaces, n, strict=True):
            rates = Rates.of(FiveFrequency("Cu", *w, temperature_K=1000.0), space.network, temperature_K=1000.0)
            tensors, zero, _ = exact_lambda(space, rates)
            matrix, bare = np.einsum("abxx->ab", tensors) / 3, np.einsum("abxx->ab", zero) / 3
            z = sites - 13 + 12 * w[4] / w[3]
            values.append([z * matrix[1, 1], -z * matrix[1].sum(), matrix[1, 1] / bare[1, 1]])
        found = np.linalg.solve(terms, np.array(values))[0]
        for name, ours, reference in zip(("L_ss", "L_sv", "f2"), found, references, strict=True):
            title = f"five-frequency model {w}, extrapolated, {name}"
            yield ValidationRow(title, float(ours), reference, 1e-3 * abs(reference))


def _trajectory_rows() -> Iterator[ValidationRow]:
    cell, network = tiny_cell({"Ag": 4, "Cu": 4})
    gas = SpeciesRates({"Ag": 0.1, "Cu": 1.0})
    states = sample_states(cell, 1000, seed=5)
    relaxation = train_relaxation(cell, network, gas, form="scaled-bias", lookahead=1, n_states=400, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)  # random states are the equilibrium of a gas
        start = transport(states, network, gas, relaxation)
        ladder = correct(start, gas, n_steps=64, n_trajectories=1000, seed=2)
        kmc = run_kmc(states, network, gas, n_walkers=500, n_jumps=2048, seed=3)
    exact = exact_transport(cell, network, gas)
    for name, result in (("residual ladder", ladder), ("kinetic Monte Carlo", kmc)):
        for what, of in (
            ("D_v", lambda r: r.vacancy_diffusivity),
            ("D*(Cu)", lambda r: r.tracer_diffusivity["Cu"]),
        ):
            ours, reference = of(result), of(exact)
            # a tail of the ladder of up to 1 % may remain above
            width = 3 * ours.error + 0.01 * reference.value
            yield ValidationRow(
                f"{name}, tiny alloy, {what} (tolerance 3 σ + 1 %)", ours.value, reference.value, width, ours.unit
            )


def _quiet_diffusivity(
    states: States, network: JumpNetwork, model: Any, y: Any, *, error: bool = False
) -> tuple[float, float]:
    """Vacancy diffusivity and its error; the drift of the quenched ensemble is expected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KinosonWarning)
        q = transport(states, network, model, y, 600.0, n_resamples=200 if error else 2).vacancy_diffusivity
    return float(q.value), float(q.error)


def _barrier_rows() -> Iterator[ValidationRow]:
    from ase.calculators.emt import EMT

    from ase_kinoson.barriers.campaign import compute_barriers

    cell = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.61)).supercell(3)
    network = JumpNetwork.from_supercell(cell)
    states = sample_states(cell, 1, seed=0)
    found = compute_barriers(states, network, EMT, jumps={0: [0]})
    name = "vacancy barrier of Cu, EMT, a = 3.61 Å, 107 atoms"
    yield ValidationRow(name, float(found.barrier[0, 0]), 0.76, 0.005, "eV")


def run_validation(*, progress: bool = False) -> list[ValidationRow]:
    """Compute the table; about a minute on one core."""
    rows: list[ValidationRow] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the cells are tiny: more threads only wait for each other
    try:
        with tqdm(desc="validation", unit="row", disable=not progress) as bar:
            for part in (_exact_rows, _dilute_rows, _variational_rows, _trajectory_rows, _barrier_rows):
                for row in part():
                    rows.append(row)
                    bar.update()
    finally:
        torch.set_num_threads(threads)
    return rows
