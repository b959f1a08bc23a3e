"""Dilute fcc alloys: the five-frequency model of periodic cells, extrapolated, against the infinite crystal.

The table is from D. R. Trinkle's Onsager package 1.4 (fcc, a = 1, bulk rate 1, so that L_vv = 1).
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase.build import bulk

import ase_kinoson as ak
from ase_kinoson.kinetics.five_frequency import FiveFrequency
from ase_kinoson.kinosons.exact import StateSpace, exact_lambda

T = 1000.0
SIZES = (5, 6, 7, 8)

TABLE = [
    ((1, 1, 1, 1, 1), (0.78145142, -1.0, 0.781451)),
    ((1, 4, 1, 1, 4), (3.41002218, 1.06208409, 0.852506)),
    ((1, 4, 1, 1, 16), (13.44801751, 9.98411581, 0.840501)),
    ((1, 4, 4, 1, 4), (9.45597646, 2.94515449, 0.590999)),
    ((1, 4, 1, 4, 1), (0.23366287, -0.29901139, 0.934651)),
    ((1, 1, 10, 1, 1), (2.63386569, -3.37047913, 0.263387)),
    ((1, 1, 0.1, 1, 1), (0.09727939, -0.12448552, 0.972794)),
    ((1, 1, 100, 1, 1), (3.45220327, -4.41768124, 0.034522)),
]
"""w0, w1, w2, w3, w4 and L_ss, L_sv, f₂."""


@pytest.fixture(scope="module")
def spaces():
    """All states of one solute (Cu) and one vacancy in cubic fcc cells, a = 1 Å."""
    alloy = ak.Alloy.from_atoms(bulk("Cu", a=1.0), {"Cu": {"Ag": 0.5, "Cu": 0.5}})
    networks = [ak.JumpNetwork.from_supercell(alloy.supercell(n)) for n in SIZES]
    return [StateSpace.enumerate(n, counts={"Ag": n.supercell.n_sites - 2, "Cu": 1}) for n in networks]


def dilute(space, w):
    """L_ss, L_sv and f₂ of one cell."""
    rates = ak.Rates.of(FiveFrequency("Cu", *w, temperature_K=T), space.network, temperature_K=T)
    tensors, zero, _ = exact_lambda(space, rates)
    matrix, bare = np.einsum("abxx->ab", tensors) / 3, np.einsum("abxx->ab", zero) / 3
    z = space.network.supercell.n_sites - 13 + 12 * w[4] / w[3]
    return np.array([z * matrix[1, 1], -z * matrix[1].sum(), matrix[1, 1] / bare[1, 1]])


def infinite(spaces, w):
    """Extrapolate: a drift of 1/N, then the images of cubic cells, whose lowest multipole falls as L⁻⁵."""
    n = np.array([float(space.network.supercell.n_sites) for space in spaces])
    terms = np.stack([np.ones_like(n), 1 / n, n ** (-5 / 3), n**-2], axis=1)
    return np.linalg.solve(terms, [dilute(space, w) for space in spaces])[0]


@pytest.mark.parametrize(("w", "reference"), TABLE)
def test_five_frequency_table(spaces, w, reference):
    ours = infinite(spaces, w)
    np.testing.assert_allclose(ours[0], reference[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], reference[1], rtol=1e-5)
    np.testing.assert_allclose(ours[2], reference[2], atol=1e-6)
    # broken twin: a finite cell is another number
    assert abs(dilute(spaces[0], w)[0] / reference[0] - 1) > 1e-4


def test_escape_and_return_may_not_be_confused(spaces):
    (w0, w1, w2, w3, w4), reference = TABLE[1]
    assert abs(infinite(spaces, (w0, w1, w2, w4, w3))[0] / reference[0] - 1) > 0.1


def onsager_package(calculator, w):
    """L_ss and L_sv of the infinite crystal from the optional package."""
    w0, w1, w2, w3, w4 = w
    shell = calculator.thermo2kin[0]
    inside = [first == shell and last == shell for first, last in calculator.om1_SP]
    # free energies over k_BT of states and of saddle points; a saddle is reached at its rate times its state's weight
    saddle = -np.log([w1 * w4 / w3 if both else w4 for both in inside])
    zero = np.zeros(1)
    _, ss, sv, _ = calculator.Lij(zero, zero, -np.log([w4 / w3]), -np.log([w0]), saddle, -np.log([w2 * w4 / w3]))
    return ss[0, 0], sv[0, 0]


def test_against_the_onsager_package(spaces):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("onsager", reason="the optional package onsager is not installed")
        from onsager import OnsagerCalc, crystal

        fcc = crystal.Crystal.FCC(1.0)
        calculator = OnsagerCalc.VacancyMediated(fcc, 0, fcc.sitelist(0), fcc.jumpnetwork(0, 0.75), 1)
        rates = [(1, 4, 1, 1, 4), (1, 0.3, 2.5, 0.6, 1.7), (2, 5, 0.2, 3, 0.5)]
        published = [onsager_package(calculator, w) for w in rates]
    np.testing.assert_allclose(published[0], TABLE[1][1][:2], rtol=1e-8)
    for w, (ss, sv) in zip(rates, published, strict=True):
        ours = infinite(spaces, w)
        np.testing.assert_allclose(ours[0], ss, rtol=1e-6)
        np.testing.assert_allclose(ours[1], sv, rtol=1e-5)
