"""Value ± error holds the truth in 68 of 100 cases: small runs of benchmarks/interval_coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from ase_kinoson.kinetics.resampling import draw_groups, standard_error
from ase_kinoson.kinosons.statistics import Bootstrap, rows_of_sums

SOURCE = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("interval_coverage", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def mean_share(rows):
    """Over all coefficients: known better than that of one."""
    assert len(rows) == 11 and all(c.n_repeats == 100 and c.n_unknown == 0 for c in rows)
    return float(np.mean([c.share for c in rows]))


@pytest.mark.skipif(not SOURCE.exists(), reason="benchmarks are not part of an installed package")
def test_coverage_of_bounds(harness):
    """30 groups of three states that are alike in two of three cases: D_v, D*, L_ab, f, drift, activation energy."""
    about = {"n_repeats": 100, "seed": 1}
    assert 0.62 <= mean_share(harness.samples("even", "groups of 3", 90, **about)) <= 0.76
    # broken twins: an error that lacks a root of two, and states of one group taken for independent ones
    assert mean_share(harness.samples("even", "groups of 3", 90, shrink=2**0.5, **about)) < 0.58
    assert mean_share(harness.samples("even", "groups of 3", 90, blind=True, **about)) < 0.58


def held(n, draw, error, n_repeats=4000):
    """How often the mean of n normal numbers is held."""
    rng = np.random.default_rng(3)
    values = rng.normal(5.0, 1.0, (n_repeats, n))
    counts = draw(n, 400, rng)
    rows = counts @ values.T / counts.sum(axis=1, keepdims=True)
    return float(np.mean(np.abs(values.mean(axis=1) - 5.0) < error(rows)))


@pytest.mark.parametrize("n", [4, 10, 40])
def test_few_groups(n):
    """Student's t by drawing two groups less."""
    assert 0.66 <= held(n, draw_groups, standard_error) <= 0.73
    if n <= 10:  # broken twin: as many drawn as there are
        plain = held(n, lambda n, r, rng: rng.multinomial(n, np.full(n, 1.0 / n), size=r), lambda x: x.std(axis=0))
        assert plain < 0.65


def test_a_scatter_of_one_group():
    """Its size is hardly known: Student's t of one degree of freedom; normal scatter: as it is."""
    rng = np.random.default_rng(0)
    one = rng.poisson(1.0, 100_000) * 1e-12  # how often one group is drawn: an excess kurtosis of 1
    assert standard_error(one) / one.std() == pytest.approx(1.82, abs=0.05)
    assert standard_error(one) == pytest.approx(1e-12 * standard_error(one * 1e12), rel=1e-9, abs=0)
    many = rng.normal(size=100_000)
    assert standard_error(many) / many.std() == pytest.approx(1.0, abs=0.01)
    assert np.isnan(standard_error(np.array([1.0, np.nan, 2.0])))
    assert np.isnan(standard_error(np.ones((1, 2)))).all()
    assert (standard_error(np.ones((5, 2))) == 0.0).all()


def test_groups_without_weight_are_not_drawn():
    """As if they were not there, in memory and from sums."""
    rng = np.random.default_rng(2)
    values, groups = rng.random((12, 2)), np.repeat(np.arange(6), 2)
    weights = np.where(groups == 3, 0.0, rng.random(12))
    boot, kept = Bootstrap.over(weights, groups), groups != 3
    less = Bootstrap.over(weights[kept], groups[kept])
    np.testing.assert_allclose(boot.rows(values), less.rows(values[kept]), rtol=1e-12)
    own = np.bincount(groups, weights)
    sums = np.stack([np.bincount(groups, weights * v) for v in values.T], axis=1)
    rows, known = rows_of_sums(own, sums)
    np.testing.assert_allclose(rows, boot.rows(values), rtol=1e-12)
    assert known
    error = boot.estimate(lambda m: m, values)[1]
    np.testing.assert_allclose(error, standard_error(boot.rows(values)[1:]), rtol=1e-12)
