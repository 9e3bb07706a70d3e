"""Length distributions and the workload's moments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from planner.workload import load_workload
from planner.workload.lengths import (
    Constant,
    Empirical,
    Gamma,
    Lengths,
    Limited,
    Lognormal,
    lognormal_from_percentiles,
    normal_quantile,
)

KINDS: tuple[Lengths, ...] = (
    Constant(500.0),
    Lognormal.from_mean(1000, 1.0),
    Gamma.from_mean(800, 0.7),
    Empirical((10.0, 20.0, 30.0, 1000.0)),
    Limited(Lognormal.from_mean(1000, 1.5), 10, 4000),
)


@pytest.mark.parametrize("lengths", KINDS, ids=lambda x: type(x).__name__)
def test_moments_agree_with_samples(lengths: Lengths) -> None:
    sample = lengths.sample(np.random.default_rng(7), 200_000)
    assert sample.mean() == pytest.approx(lengths.mean, rel=0.02)
    assert (sample**2).mean() == pytest.approx(lengths.moment(2), rel=0.08)
    assert np.minimum(sample, 700).mean() == pytest.approx(lengths.mean_min(700), rel=0.02)


@pytest.mark.parametrize("lengths", KINDS, ids=lambda x: type(x).__name__)
def test_quantiles_grow(lengths: Lengths) -> None:
    values = lengths.quantile(np.linspace(0.001, 0.999, 200))
    assert np.all(np.diff(values) >= 0)


@settings(max_examples=50, deadline=None)
@given(st.floats(10, 1e5), st.floats(0.1, 3), st.floats(1, 1e6))
def test_mean_min_is_below_both(mean: float, cv: float, limit: float) -> None:
    found = Lognormal.from_mean(mean, cv).mean_min(limit)
    assert 0 <= found <= min(mean, limit) * (1 + 1e-9)


def test_against_scipy() -> None:
    q = np.linspace(0.0005, 0.9995, 101)
    assert normal_quantile(q) == pytest.approx(stats.norm.ppf(q), abs=1e-8)
    assert Gamma(2.5, 300.0).quantile(q) == pytest.approx(stats.gamma.ppf(q, 2.5, scale=300), rel=1e-6)
    assert Gamma(0.4, 300.0).quantile(q[5:]) == pytest.approx(stats.gamma.ppf(q[5:], 0.4, scale=300), rel=1e-5)
    sigma, limit = 0.9, 800.0
    expected = stats.lognorm.expect(lambda x: min(x, limit), (sigma,), scale=600.0)
    assert Lognormal(np.log(600.0), sigma).mean_min(limit) == pytest.approx(expected, rel=1e-3)


@given(st.floats(10, 1e5), st.floats(1.05, 50))
def test_percentiles_are_met(p50: float, ratio: float) -> None:
    fit, error = lognormal_from_percentiles({0.5: p50, 0.95: p50 * ratio})
    assert error < 1e-6
    assert float(fit.quantile(0.95)) == pytest.approx(p50 * ratio, rel=1e-5)


def test_length_biased_context() -> None:
    text = 'model = "m"\n[demand]\nrequests_per_second = 8\n[context]\nmean = 1000\ncv = 1.0\n[answer]\nmean = 250\ncv = 0.8\n'
    workload = load_workload("w", text=text)
    moments = workload.moments
    assert moments.resident_context == pytest.approx(1205, rel=1e-9)
    assert moments.kv_token_steps == pytest.approx(301_250, rel=1e-9)
    assert moments.resident_second == pytest.approx(2_501_894.67, rel=1e-6)
    contexts = workload.resident_contexts(64)
    assert contexts.mean() == pytest.approx(1205)
    assert np.all(np.diff(contexts) >= 0)
    rng = np.random.default_rng(5)
    i, o = (
        Lognormal.from_mean(1000, 1.0).sample(rng, 400_000),
        Lognormal.from_mean(250, 0.8).sample(rng, 400_000),
    )
    u = rng.random(400_000)
    assert np.average(i + u * o, weights=o) == pytest.approx(1205, rel=0.02)


def test_reasoning_adds_to_the_answer() -> None:
    text = 'model = "m"\n[demand]\nrequests_per_second = 8\n[context]\nmean = 100\n[reasoning]\nmean = 1500\n[answer]\nmean = 250\ncv = 0.5\n'
    workload = load_workload("w", text=text)
    assert workload.moments.mean_output == pytest.approx(1750)
    sample = workload.request_sample(512)
    assert np.average(sample.output, weights=sample.weights) == pytest.approx(1750, rel=0.01)
    assert ("reasoning.cv", "1.5", "default") in workload.assumptions


def test_samples_from_csv(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "t.csv").write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,374,44\r\n2023-11-16 18:17:04.0319600,396,109"
    )
    (folder / "w.toml").write_text(
        'model = "m"\n[demand]\nrequests_per_second = 8\n[context]\nsamples = "t.csv"\n[answer]\nsamples = "t.csv"\n'
    )
    moments = load_workload(folder / "w.toml").moments
    assert (moments.mean_input, moments.mean_output) == (385, 76.5)


def test_histogram() -> None:
    text = 'model = "m"\n[demand]\nrequests_per_second = 8\n[context]\n[context.histogram]\nedges = [0.5, 100, 300]\nweights = [1, 1]\n[answer]\nmean = 10\n'
    assert load_workload("w", text=text).moments.mean_input == pytest.approx((50.25 + 200) / 2, rel=1e-6)


def test_overrides_and_units() -> None:
    text = 'model = "m"\n[demand]\nrequests_per_second = 8\n[context]\nmean = "32k"\n[answer]\nmean = 10\n[slo]\nttft_p95 = "1.5 s"\n'
    workload = load_workload(
        "w", ["demand.requests_per_second=30", "context.mean='4K'", "slo.tpot_p99=40ms"], text=text
    )
    assert workload.demand.requests_per_second == 30
    assert workload.moments.mean_input == pytest.approx(4096)
    assert {(s.metric, s.statistic): s.limit_s for s in workload.slo} == {
        ("ttft", "p95"): 1.5,
        ("tpot", "p99"): 0.04,
    }
