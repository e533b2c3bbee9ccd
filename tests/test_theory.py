"""The exact theory: against its vectors, against itself, against the optimizers, and against chance."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nested_lookahead import MultilayerLookahead, PublishedNestedLookahead, theory
from nested_lookahead.theory import findings
from nested_lookahead.theory.tuning import Problem, tune

ONE, TWO = [(5, 0.5)], [(5, 0.5), (5, 0.5)]
EXACT = {"rel": 1e-10, "abs": 1e-12}


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "layers", "curvature", "noise", "r", "q", "variance"),
    [
        (0.1, ONE, 1, 1, 0.795245000000, 0.00857002052500, 0.023314366563),
        (0.1, [(5, 0.8)], 1, 1, 0.672392000000, 0.02193925254400, 0.040043243450),
        (0.1, TWO, 1, 1, 0.659028418651, 0.00523897042581, 0.009261342334),
        (0.5, TWO, 1, 1, 0.518223837484, 0.02831285370331, 0.038708160301),
        (1.5, TWO, 1, 1, 0.513331487309, 0.24456285520515, 0.332065058345),
        (0.3, [(10, 0.3), (3, 0.7)], 0.5, 2, 0.606147235939, 0.01311697136541, 0.020735490740),
        (0.4, [(3, 0.5), (2, 0.6), (2, 0.4)], 1, 1, 0.754653300097, 0.00651820161253, 0.015141058975),
    ],
)
def test_cycles(lr, layers, curvature, noise, r, q, variance):
    outermost = theory.cycles(lr, layers, curvature, noise)[-1]
    assert 1 - outermost.gap == pytest.approx(r, abs=1e-12)
    assert outermost.noise == pytest.approx(q, abs=1e-14)
    assert theory.steady_variance(lr, layers, curvature, noise) == pytest.approx(variance, abs=1e-12)


def test_a_finite_horizon():
    mean, variance = theory.moments(0.1, TWO, steps=100)
    assert mean == pytest.approx(0.188632521734, abs=1e-12)
    assert variance == pytest.approx(0.00893180313756, abs=1e-14)


def test_identities():
    assert theory.steady_variance(0.1, [(5, 1.0), (5, 0.5)]) == pytest.approx(0.018363883307, abs=1e-12)
    assert theory.steady_variance(0.1, [(5, 1.0), (5, 0.5)]) == pytest.approx(
        theory.steady_variance(0.1, [(25, 0.5)]), rel=1e-13
    )
    assert theory.steady_variance(0.1, []) == pytest.approx(0.1 / 1.9, rel=1e-14)

    def share(x):
        return (1 - x) / (1 + x)

    layers = [(3, 0.5), (2, 0.6), (4, 0.3)]  # the product form, of which Proposition 2 is one layer
    stages = theory.cycles(0.4, layers, 0.7, 1.3)
    rates = [1 - stage.gap for stage in stages]
    product = 1.3 * share(rates[0])
    for (k, _), below, rate in zip(layers, rates[:-1], rates[1:], strict=True):
        product *= share(rate) / share(below**k)
    assert theory.steady_variance(0.4, layers, 0.7, 1.3) == pytest.approx(product, rel=1e-12)


HEAVY_BALL = [
    ([], "none", False, (0.513513513514, -0.270270270270, 5.405405405405), None),
    (
        ONE,
        "pullback",
        False,
        (0.101180524265, -0.092368671758, 0.719542030419),
        (0.007566500956, 0.101172661455),
    ),
    (TWO, "none", False, (0.043643483860, -0.019822211517, 2.850222034387), (0.259384072815, 0.040716392568)),
    (TWO, "reset", False, (0.025505776729, 0, 0), (0.263657517546, 0.023732735351)),
    (TWO, "pullback", False, (0.031540392026, -0.029175239629, 0.226461184502), (0.207433303047, 0.030212303227)),
    (
        TWO,
        ("pullback", "none"),
        False,
        (0.031494358964, -0.045155959445, 0.719796839312),
        (0.207348385874, 0.030158551038),
    ),
    (TWO, "none", True, (0.035738794402, -0.065094385162, 2.145875315437), (0.245630339390, 0.033618626981)),
]


@pytest.mark.parametrize(("layers", "pullback", "nesterov", "steady", "after_50"), HEAVY_BALL)
def test_momentum(layers, pullback, nesterov, steady, after_50):
    stages = theory.transitions(0.1, layers, momentum=0.9, nesterov=nesterov, pullback=pullback)
    covariance = stages[-1].steady_covariance()
    assert (covariance[0, 0], covariance[0, 1], covariance[1, 1]) == pytest.approx(steady, abs=1e-12)
    if after_50:
        state = theory.momentum_moments(stages, layers, 50, theory.State(np.array([1.0, 0.0]), np.zeros((2, 2))))
        assert (state.mean[0], state.covariance[0, 0]) == pytest.approx(after_50, abs=1e-12)


def test_the_published_rule():
    *_, (mean, covariance) = theory.trajectory([0.1] * 50, theory.published_rule())
    assert (mean[0], covariance[0, 0]) == pytest.approx((0.1507, 0.0213), abs=5e-5)
    *_, (mean, covariance) = theory.trajectory([0.1] * 50, theory.lookahead_rule(TWO))
    assert (mean[0], covariance[0, 0]) == pytest.approx((0.4343, 0.0075), abs=5e-5)


# --- independent ways to the same numbers -----------------------------------------------------------------------------

LAYERS = st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 1.0)), max_size=3)
MODE = st.sampled_from(["none", "reset", "pullback"])


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.floats(0.01, 1.9), st.integers(0, 60), st.floats(0, 0.95), MODE, st.booleans())
def test_closed_forms_equal_explicit_slow_weights_and_caches(layers, lr, steps, momentum, pullback, nesterov):
    """At any step of a cycle, for several coordinates and starts at once."""
    curvature, noise, start, spread = np.array([1.0, 0.3, 0.01]), np.array([1.0, 2.0, 0.0]), 1.5, 0.2
    stages = theory.transitions(lr, layers, curvature, noise, momentum, nesterov, pullback)
    at_first = theory.State(
        np.tile([start, 0.0], (3, 1)), np.broadcast_to(np.diag([spread, 0.0]), (3, 2, 2)).astype(float)
    )
    state = theory.momentum_moments(stages, layers, steps, at_first)
    rule = theory.lookahead_rule(layers, pullback)
    mean, covariance = at_first.mean, at_first.covariance
    for mean, covariance in theory.trajectory(  # noqa: B007
        [lr] * steps, rule, start, spread, curvature, noise, momentum, nesterov
    ):
        pass
    scale = max(1.0, np.abs(covariance[:, :2, :2]).max(), np.abs(mean[:, :2]).max())
    np.testing.assert_allclose(state.mean, mean[:, :2], rtol=1e-10, atol=1e-10 * scale)
    np.testing.assert_allclose(state.covariance, covariance[:, :2, :2], rtol=1e-10, atol=1e-10 * scale)
    if momentum == 0 and pullback == "none":
        for weights in range(len(layers) + 1):
            x = theory.moments(lr, layers, steps, start, spread, curvature, noise, weights)
            if steps:
                np.testing.assert_allclose(x.mean, mean[:, 2 * weights], rtol=1e-10, atol=1e-12)
                np.testing.assert_allclose(x.variance, covariance[:, 2 * weights, 2 * weights], rtol=1e-10, atol=1e-12)


def impulses(build, steps, lr, momentum=0.0, nesterov=False):
    """Mean factor and variance of the optimizer itself, after each step, by its answer to one unit of noise at a time.

    On coordinate 0 there is a start and no noise; on coordinate j there is noise at step j alone.
    """
    x = torch.zeros(steps + 1, dtype=torch.float64)
    x[0] = 1
    x.requires_grad_()
    optimizer = build(torch.optim.SGD([x], lr=lr, momentum=momentum, nesterov=nesterov))
    for step in range(1, steps + 1):
        c = torch.zeros_like(x)
        c[step] = 1
        x.grad = x.detach() - c
        optimizer.step()
        values = x.detach()
        yield values[0].item(), values[1:].square().sum().item()


@pytest.mark.parametrize(
    ("layers", "momentum", "pullback", "nesterov"),
    [
        ([(5, 0.5)], 0.0, "none", False),
        ([(3, 0.5), (2, 0.6), (2, 0.4)], 0.0, "none", False),
        ([(5, 0.5), (3, 0.8)], 0.9, "pullback", False),
        ([(5, 0.5), (3, 0.8)], 0.9, ("pullback", "none"), True),
        ([(2, 0.3), (2, 0.6), (3, 0.9)], 0.8, ("none", "reset", "pullback"), False),
        ([(2, 0.3), (2, 0.6), (3, 0.9)], 0.8, "reset", True),
    ],
)
def test_the_optimizers_are_what_the_theory_says(layers, momentum, pullback, nesterov):
    seen = impulses(lambda sgd: MultilayerLookahead(sgd, layers, pullback), 40, 0.3, momentum, nesterov)
    rule = theory.lookahead_rule(layers, pullback)
    expected = theory.trajectory([0.3] * 40, rule, momentum=momentum, nesterov=nesterov)
    for (mean, variance), (means, covariance) in zip(seen, expected, strict=True):
        assert (mean, variance) == pytest.approx((means[0], covariance[0, 0]), **EXACT)


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@pytest.mark.parametrize(("k", "s"), [(5, 5), (1, 2), (3, 1), (2, 4)])
def test_the_published_optimizer_is_what_its_theory_says(k, s, pullback):
    def build(sgd):
        return PublishedNestedLookahead(sgd, k, s, 0.6, 0.3, pullback)

    expected = theory.trajectory([0.2] * 40, theory.published_rule(k, s, 0.6, 0.3, pullback), momentum=0.9)
    for (mean, variance), (means, covariance) in zip(impulses(build, 40, 0.2, 0.9), expected, strict=True):
        assert (mean, variance) == pytest.approx((means[0], covariance[0, 0]), **EXACT)


def test_monte_carlo():
    """100,000 chains of explicit Lookahead; |z| of mean and variance below 4, which chance exceeds once in 8,000."""
    rng = np.random.default_rng(0)
    n, lr, k, s, alpha, h = 100_000, 0.4, 3, 2, 0.5, 0.7
    x = rng.normal(1.0, 0.5, n)
    slow, outer = x.copy(), x.copy()
    for step in range(1, 16):
        x = x - lr * 0.8 * (x - rng.normal(0, 1.3, n))
        if step % k == 0:
            slow = slow + alpha * (x - slow)
            x = slow
        if step % (k * s) == 0:
            outer = outer + h * (slow - outer)
            x = slow = outer
    mean, variance = theory.moments(lr, [(k, alpha), (s, h)], 15, 1.0, 0.25, 0.8, 1.69)
    assert abs(x.mean() - mean) / np.sqrt(variance / n) < 4
    assert abs(x.var() - variance) / (variance * np.sqrt(2 / n)) < 4


def test_a_schedule_is_the_product_of_its_steps():
    rates = np.linspace(0.5, 0.0, 30)
    *_, (mean, covariance) = theory.trajectory(rates, theory.lookahead_rule([]), curvature=0.7)
    assert mean[0] == pytest.approx(np.prod(1 - 0.7 * rates), rel=1e-12)
    after = [np.prod(1 - 0.7 * rates[t + 1 :]) * 0.7 * rates[t] for t in range(30)]
    assert covariance[0, 0] == pytest.approx(np.sum(np.square(after)), rel=1e-12)


@pytest.mark.parametrize("layers", [[], [(5, 0.4)], [(3, 0.5), (2, 0.6), (5, 0.4)]])
def test_scheduled_moments(layers):
    curvature, noise = theory.power_law(4)
    rates = 0.3 + 0.2 * np.sin(np.arange(60))
    now = theory.scheduled_moments(rates, layers, 1.5, 0.2, curvature, noise)
    *_, (mean, covariance) = theory.trajectory(rates, theory.lookahead_rule(layers), 1.5, 0.2, curvature, noise)
    np.testing.assert_allclose(now.mean, mean[:, 0], rtol=1e-10)
    np.testing.assert_allclose(now.variance, covariance[:, 0, 0], rtol=1e-10)
    if layers:
        with pytest.raises(ValueError, match="61 steps are no whole number of cycles of"):
            theory.scheduled_moments(np.ones(61), layers)


def test_slow_modes_keep_their_digits():
    """At a curvature of 1e-12, 1 − r² has no digits left in float64 unless it is kept as a gap."""
    # To first order in the curvature a cycle has the gap α k γ a and the noise α² k (γ a)² σ², layer by layer.
    variance = theory.steady_variance(0.1, [(5, 0.5), (5, 0.4)], 1e-12, 1.0)
    assert variance == pytest.approx(0.5 * 0.4 * 0.1 * 1e-12 / 2, rel=1e-9, abs=0)


# --- findings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "depth", "risk"),
    [
        (100, 0, 1.5558486002),
        (1000, 0, 0.6964038772),
        (10000, 0, 0.1879234956),
        (100, 1, 1.5087440634),
        (1000, 1, 0.6320798644),
        (100, 2, 1.4938250327),
    ],
)
def test_tuned_risks(steps, depth, risk):
    assert findings.best(Problem.power_law(), steps, depth).risk == pytest.approx(risk, abs=1e-10)


def test_the_settings_of_the_best_nested_at_a_thousand_steps():
    tuned = tune(Problem.power_law(), 1000, (25, 5))
    assert tuned.risk == pytest.approx(0.6077954473, abs=1e-10)
    for change in (0.9, 1.1):  # it is a minimum
        layers = [(k, alpha * change) for k, alpha in tuned.layers]
        assert Problem.power_law().risk(tuned.lr, layers, 1000) > tuned.risk
        assert Problem.power_law().risk(tuned.lr * change, tuned.layers, 1000) > tuned.risk


@pytest.mark.parametrize("steps", [100, 1000])
def test_without_noise_to_average_away_tuning_returns_sgd(steps):
    """x₀² = 1/a: the way to the optimum dominates."""
    problem = Problem.power_law(start_power=1.0)
    assert findings.best(problem, steps, 1).risk == pytest.approx(tune(problem, steps).risk, rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(LAYERS.filter(len), st.floats(0.05, 1.9))
def test_one_eigenvalue_no_depth_beats_sgd(layers, lr):
    outermost = theory.cycles(lr, layers)[-1]
    kept = abs(1 - outermost.gap) ** (1 / np.prod([k for k, _ in layers]))
    assert outermost.steady_variance() >= (1 - kept) / (1 + kept) * (1 - 1e-12)


def test_two_time_scales():
    table = {row[0]: float(row[2]) for row in findings.two_time_scales().rows}
    assert table["SGD"] == pytest.approx(0.0526315789, abs=1e-10)
    assert table["Lookahead (5, 0.5)"] == pytest.approx(0.0443393972, abs=1e-10)
    assert table["nested (5, 0.5), (5, 0.5)"] == pytest.approx(0.0301033560, abs=1e-10)
    (best,) = (value for name, value in table.items() if "best of a grid" in name)
    assert best == pytest.approx(0.0353729147, rel=1e-4)
    bounds = [findings.least_variance(0.1, depth) for depth in range(3)]
    assert bounds == pytest.approx([0.0526315789, 0.0352722621, 0.0276033079], abs=1e-10)
    # and nothing gets below it, however close
    slow = 1e-9
    for depth, alphas in ((1, np.sqrt(0.1)), (2, np.cbrt(0.1))):
        layers = [(60, float(alphas))] * depth
        variance = float(theory.steady_variance(findings.rate_for(layers, 0.1 * slow, slow), layers))
        assert findings.least_variance(0.1, depth) < variance < 1.01 * findings.least_variance(0.1, depth)


def test_what_is_evaluated():
    values = [float(value) for _, value in findings.evaluated().rows]
    assert values == pytest.approx([0.0092613, 0.0218928, 0.0278198, 0.0325340, 0.0416255, 0.0526316], abs=1e-7)


def test_the_command_writes_tables_and_figures_and_renews_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: risk -->\nold\n<!-- end -->\nbetween\n<!-- table: scales -->\n<!-- end -->\n")
    command = [sys.executable, "-m", "nested_lookahead.theory", "--coordinates", "20", "--horizons", "8", "16"]
    done = subprocess.run(
        [*command, "--out", "out", "--docs", "page.md"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "best nested" in done.stdout
    made = {"tables.md", "risk.png", "frontier.png", "scales.png", "cycle.png", "map.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == made
    assert len(list((tmp_path / "figures").iterdir())) == 5
    text = page.read_text()
    assert text.startswith("before\n<!-- table: risk -->\n| excess risk | T = 8 | T = 16 |")
    assert "old" not in text
    assert "between" in text
    assert text.endswith("|\n<!-- end -->\n")
    again = subprocess.run([*command, "--coordinates", "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, "error: --coordinates 0: must be >= 1\n")


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.steady_variance(2.0, ONE), r"unstable: lr must be in \(0, 2 / curvature\)"),
        (lambda: theory.steady_variance(0.1, ONE, [1.0, 0.0]), "unstable"),
        (lambda: theory.transitions(5.0, ONE, momentum=0.5)[-1].steady_covariance(), "unstable: no steady state"),
        (lambda: theory.cycles(-0.1, ONE), "lr must be finite and >= 0, got -0.1"),
        (lambda: theory.cycles(0.1, ONE, []), "curvature must not be empty"),
        (lambda: theory.cycles(0.1, ONE, 1.0, np.nan), "noise must be finite and >= 0"),
        (lambda: theory.cycles(0.1, [(5, 0.0)]), r"alpha must be in \(0, 1\], got 0.0"),
        (lambda: theory.cycles(0.1, [(0, 0.5)]), "k must be an integer >= 1, got 0"),
        (lambda: theory.cycles(0.1, [(2.5, 0.5)]), "k must be an integer >= 1, got 2.5"),
        (lambda: theory.transitions(0.1, ONE, momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: theory.transitions(0.1, ONE, pullback="reset_inner"), "pullback must be one of none, reset, pullback"),
        (lambda: theory.transitions(0.1, ONE, pullback=("none", "none")), r"or one for each of 1 layer\(s\)"),
        (lambda: theory.moments(0.1, ONE, -1), "steps must be >= 0, got -1"),
        (lambda: theory.moments(0.1, ONE, 1, weights=2), r"weights must name one of 1 layer\(s\)"),
        (lambda: theory.power_law(0), "coordinates must be >= 1, got 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_theory_needs_no_torch():
    code = "import sys, nested_lookahead.theory; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
