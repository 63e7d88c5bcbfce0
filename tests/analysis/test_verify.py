"""verify accepts what is right and rejects a formula 5 % off and a biased estimator; its z-scores
are normal.
"""

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import binom, norm

from sketchvar.analysis import verify as module
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.verify import find_bound, make_pairs, read, score, verify
from sketchvar.estimators import CATALOG, Choice, Estimator, TopRows, UniformRows
from sketchvar.estimators.estimator import Traits


@dataclass(frozen=True)
class Altered(Estimator):
    """Uniform rows with an estimate, or a closed form, times a factor."""

    estimate: float = 1.0
    formula: float = 1.0

    @property
    def inner(self):
        return UniformRows(0.5)

    def compress(self, x, seed):
        return self.inner.compress(x, seed)

    def contract(self, kept, y):
        return self.inner.contract(kept, y) * self.estimate

    def variance(self, m):
        mean_square = self.estimate**2 * self.inner.variance(m) + (self.estimate - 1) ** 2 * m.C
        return mean_square * self.formula

    def kept_bytes(self, n, p, dtype):
        return self.inner.kept_bytes(n, p, dtype)


@pytest.fixture(scope="module")
def kinds():
    return make_pairs(0)


@pytest.fixture
def three(kinds, monkeypatch):
    few = {name: kinds[name] for name in ("gaussian", "heavy tails", "correlated")}
    monkeypatch.setattr(module, "make_pairs", lambda seed: few)
    return few


def judged(make, pairs, draws=6000, seed=0):
    (verdict,) = verify({"altered": Choice.of(make)}, pairs, seed, draws=draws)
    return verdict


def test_the_kinds_of_pairs(kinds):
    assert list(kinds) == [
        "gaussian",
        "heavy tails",
        "rank one",
        "large mean",
        "duplicates",
        "correlated",
        "zero row",
        "activations",
    ]
    for x, y in kinds.values():
        assert (
            x.dtype == y.dtype == torch.float64
            and len(x) == len(y)
            and x.isfinite().all()
            and y.isfinite().all()
        )
    assert torch.linalg.matrix_rank(kinds["rank one"][0]) == 1
    assert (kinds["zero row"][0].norm(dim=1) == 0).sum() == 1
    assert len(kinds["duplicates"][0].unique(dim=0)) == 5
    x, y = kinds["activations"]
    assert not x.requires_grad and x.shape == (32, 8) and x.std() > 0
    again = make_pairs(0)
    assert all(
        torch.equal(a, b) for kind in kinds for a, b in zip(kinds[kind], again[kind], strict=True)
    )


def test_a_right_formula_passes_and_5_percent_off_is_rejected(three, unchecked):
    """Seeds and draws are fixed; the margin says that other seeds do as well."""
    right = judged(Altered(), three)
    limit, count = find_bound([right], 1e-3)
    assert count == len(right.scores) == 2 * (30 + 1) + (30 + 1) + 3 + 1
    assert right.scores.abs().max() < limit == pytest.approx(norm.isf(1e-3 / 2 / count))
    assert (limit + 3.1) * right.stderr < 0.05
    for wrong in (1.05, 1 / 1.05):
        assert abs(judged(Altered(formula=wrong), three).z) > limit


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_a_biased_estimator_is_rejected_by_its_mean(three, factor, unchecked):
    """Its mean square is given rightly, so it is the mean that has to tell."""
    biased = judged(Altered(estimate=factor), three)
    limit, _ = find_bound([biased], 1e-3)
    assert max(check.means.abs().max() for check in biased.checks) > limit
    assert abs(biased.z) < limit


def test_a_wrong_bias_is_rejected(three):
    class Wrong(TopRows):
        def bias_sq(self, m):
            return super().bias_sq(m) * 1.05

    assert judged(TopRows(0.5), three, 100).scores.abs().max() < 1
    assert Wrong.traits == Traits(biased=True, needs_pair=True)
    assert judged(Wrong(0.5), three, 100).scores.abs().max() > 100


@pytest.mark.parametrize("power", [2, 4])
def test_z_scores_of_skewed_numbers_are_normal(power):
    """8000 z-scores of 2000 numbers each: both tails as often beyond 2.6 as a normal's, at a level
    of 10⁻⁴ each.

    Must fail: the plain t statistic of the more skewed numbers, whose lower tail is several times
    too heavy.
    """
    g = torch.Generator().manual_seed(0)
    mean, high, low, t_low = {2: 1.0, 4: 3.0}[power], 0, 0, 0
    for _ in range(16):
        samples = torch.randn(2000, 500, generator=g).double().pow(power)
        z = score(samples, torch.tensor(mean), torch.tensor(0.0))
        t = (samples.mean(0) - mean) / samples.std(0) * 2000**0.5
        high, low, t_low = (
            high + int((z > 2.6).sum()),
            low + int((z < -2.6).sum()),
            t_low + int((t < -2.6).sum()),
        )
    usual = binom(8000, norm.sf(2.6))
    for count in (high, low):
        assert usual.ppf(5e-5) <= count <= usual.isf(5e-5)
    assert power == 2 or t_low > usual.isf(5e-5)


def test_rounding_is_no_disagreement_and_certainty_is_none():
    """Equal numbers have no spread: right up to ``room`` they score 0, beyond it infinity."""
    z = score(torch.ones(10, 2), torch.tensor([1 + 1e-14, 1.1]), torch.tensor(1e-12))
    assert z[0] == 0 and z[1] == -torch.inf


def test_more_draws_with_more_time(three, monkeypatch):
    monkeypatch.setattr(module, "LEAST", 10)
    (few,) = verify(read(["uniform-rows"]), three, 0, budget=0)
    (more,) = verify(read(["uniform-rows"]), three, 0, budget=0.3)
    assert few.checks[0].draws == 10 < more.checks[0].draws
    (default,) = verify(read(["uniform-rows"]), three, 0)
    (again,) = verify(read(["uniform-rows"]), three, 0)
    assert torch.equal(default.scores, again.scores)
    (other,) = verify(read(["uniform-rows"]), three, 1)
    assert not torch.equal(default.scores, other.scores)


def test_the_command_takes_the_whole_catalog_unless_told(three, monkeypatch, capsys):
    asked = []

    def stop(estimators, *_):
        asked.extend(estimators)
        raise ValueError("enough")

    monkeypatch.setattr("sketchvar.analysis.verify.make_pairs", lambda seed: three)
    monkeypatch.setattr("sketchvar.analysis.verify.verify", stop)
    assert main(["verify"]) == 2
    assert asked == list(CATALOG) and "enough" in capsys.readouterr().err


def test_command(three, monkeypatch, capsys, unchecked):
    monkeypatch.setattr("sketchvar.analysis.verify.make_pairs", lambda seed: three)
    words = [
        "verify",
        "--budget",
        "0",
        "--estimators",
        "countsketch",
        "uniform-rows:0.5+rounding:4",
        "top-rows",
    ]
    assert main([*words, "countsketch+rounding:4", "optimal-rows"]) == 0
    printed = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    for word in (
        "All agree.",
        "no closed form",
        "joint level 0.001 (Bonferroni)",
        "is seen with probability 0.999",
    ):
        assert word in printed
    monkeypatch.setattr(
        "sketchvar.estimators.UniformRows.variance", lambda self, m: 1.5 * m.D * m.n
    )
    assert main(["verify", "--budget", "0", "--estimators", "uniform-rows"]) == 1
    printed = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert (
        "DISAGREES: uniform-rows on gaussian: measured variance" in printed
        and "All agree" not in printed
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--level", "2"], "--level is a probability, got 2"),
        (["--budget", "-1"], "--budget is in seconds, got -1"),
        (["--estimators", "gausian"], "did you mean 'gaussian'"),
        (["--estimators", "rounding:3"], "bits of 1, 2, 4 or 8"),
    ],
)
def test_bad_input(words, says, capsys):
    assert main(["verify", *words]) == 2
    assert says in capsys.readouterr().err
