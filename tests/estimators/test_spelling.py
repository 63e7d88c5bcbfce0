"""Estimators as text: what is easy to guess is read, what cannot be read says what can, and spell
is the inverse.
"""

import pytest
import torch

from sketchvar.estimators import (
    CATALOG,
    SRHT,
    Centered,
    CountSketch,
    Exact,
    FeatureProjection,
    Gaussian,
    GridRounding,
    LowRank,
    OptimalRows,
    Rademacher,
    Residual,
    ScoredRows,
    SparseSign,
    StochasticRounding,
    Then,
    UniformRows,
    build,
    parse,
    spell,
)
from sketchvar.estimators.catalog import ORACLES, WITHOUT_RATE
from sketchvar.estimators.combine import innermost
from sketchvar.estimators.spelling import takes_rate

SPELLED = {
    "exact": Exact(),
    "gaussian:0.1": Gaussian(0.1),
    "countsketch:0.25": CountSketch(0.25),
    "countsketch-iid:0.25": CountSketch(0.25, balanced=False),
    "sparse-sign:0.1": SparseSign(0.1),
    "sparse-sign:0.1,nonzeros=8": SparseSign(0.1, nonzeros=8),
    "uniform-rows-iid:0.5": UniformRows(0.5, replacement=True),
    "rounding:2": StochasticRounding(2),
    "rounding:4,group=64": StochasticRounding(4, group=64),
    "rounding-rotated:2": StochasticRounding(2, rotate=True),
    "rounding-rotated:2,group=8": StochasticRounding(2, group=8, rotate=True),
    "low-rank:0.1": Residual(0.1, LowRank),
    "low-rank-countsketch:0.1": Residual(0.1, LowRank, CountSketch),
    "nvfp4": GridRounding("e2m1", 16, "e4m3"),
    "nvfp4,axis=tokens,rotate=16": GridRounding("e2m1", 16, "e4m3", "tokens", 16),
    "nvfp4-nearest": GridRounding("e2m1", 16, "e4m3", nearest=True),
    "grid:nf4,block=64": GridRounding("nf4", 64),
    "grid-nearest:e5m2,scale=power": GridRounding("e5m2", scale="power", nearest=True),
    "feature-gaussian:0.1": FeatureProjection(0.1),
    "feature-rademacher:0.1": FeatureProjection(0.1, Rademacher),
    "feature-columns:0.1": FeatureProjection(0.1, UniformRows),
    "gaussian:0.1+rounding:4": Then(Gaussian(0.1), StochasticRounding(4)),
    "feature-gaussian:0.125+rounding:2": Then(FeatureProjection(0.125), StochasticRounding(2)),
    "centered(countsketch):0.1": Centered(CountSketch(0.1)),
    "centered(rounding:2)": Centered(StochasticRounding(2)),
    "centered(sparse-sign:0.1,nonzeros=2)": Centered(SparseSign(0.1, nonzeros=2)),
    "centered(gaussian:0.1+rounding:4)": Centered(Then(Gaussian(0.1), StochasticRounding(4))),
}


@pytest.mark.parametrize("text", SPELLED)
def test_text_and_estimator(text):
    assert parse(text) == SPELLED[text]
    assert spell(SPELLED[text]) == text
    assert not takes_rate(text)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("rate", [0.1, 1 / 3, 1.0])
def test_round_trip_of_the_catalog(name, rate):
    y_sq = torch.rand(5)
    built = build(name, rate, y_sq)
    text = spell(built)
    assert spell(parse(text, y_sq=y_sq)) == text
    assert takes_rate(name) == (name not in WITHOUT_RATE)
    if name not in ORACLES:  # these hold tensors, which have no equality of one bit
        assert parse(text) == built == parse(name, rate=rate)
        assert name in WITHOUT_RATE or parse(name, rate=0.9) != parse(name, rate=0.8)


SAME = {
    " gaussian : 0.1 ": "gaussian:0.1",
    "centered( countsketch ) : 0.1": "centered(countsketch):0.1",
    "centered(countsketch:0.1)": "centered(countsketch):0.1",
    "centered(gaussian+rounding:4):0.1": "centered(gaussian:0.1+rounding:4)",
    "gaussian:1e-1 + rounding:4": "gaussian:0.1+rounding:4",
}


@pytest.mark.parametrize("text", SAME)
def test_other_ways_to_write_it(text):
    assert spell(parse(text)) == SAME[text]


def test_a_rate_is_filled_in_where_it_is_missing():
    assert parse("countsketch", rate=0.2) == CountSketch(0.2)
    assert parse("centered(countsketch)", rate=0.2) == Centered(CountSketch(0.2))
    assert parse("gaussian+rounding:4", rate=0.2) == Then(Gaussian(0.2), StochasticRounding(4))
    assert parse("gaussian:0.1", rate=0.2) == Gaussian(0.1)
    assert parse("rounding:2", rate=0.2) == StochasticRounding(2)
    for text in (
        "countsketch",
        "centered(countsketch)",
        "gaussian+rounding:4",
        "centered(gaussian+rounding:4)",
    ):
        assert takes_rate(text)


@pytest.mark.parametrize("text", SPELLED)
def test_the_rate_can_be_left_out_of_a_spelling(text):
    name, rate = spell(SPELLED[text], rate=False), getattr(innermost(SPELLED[text]), "rate", None)
    assert parse(name, rate) == SPELLED[text]
    assert takes_rate(name) == (name != text) == (rate is not None)


def test_oracles_are_given_y_sq():
    y_sq = torch.tensor([1.0, 4.0])
    optimal, scored = (
        parse("optimal-rows:0.5", y_sq=y_sq),
        parse("scored-rows:0.5,floor=0.2", y_sq=y_sq),
    )
    assert isinstance(optimal, OptimalRows) and torch.equal(optimal.y_sq, y_sq)
    assert (
        isinstance(scored, ScoredRows)
        and torch.equal(scored.scores, y_sq.sqrt())
        and scored.floor == 0.2
    )
    assert spell(scored) == "scored-rows:0.5,floor=0.2"
    with pytest.raises(ValueError, match="optimal-rows is an oracle: it needs y_sq"):
        parse("optimal-rows:0.5")


UNREADABLE = {
    "gausian:0.1": (
        r"unknown estimator 'gausian' in 'gausian:0\.1'; did you mean 'gaussian'\?.*as in"
        r" gaussian:0\.1"
    ),
    "Gaussian:0.1": r"did you mean 'gaussian'\?",
    "count-sketch:0.1": r"did you mean 'countsketch'\?",
    "zzz": (
        r"unknown estimator 'zzz' in 'zzz'; write one as in gaussian:0\.1, rounding:2,"
        r" centered\(countsketch\):0\.1"
    ),
    "": r"unknown estimator ''.*the names are exact, gaussian",
    "centred(gaussian):0.1": r"only centered\(\.\.\.\) has parentheses",
    "gaussian": r"'gaussian' in 'gaussian' needs rate; write gaussian:0\.1",
    "centered(countsketch)": r"'countsketch' in 'countsketch' needs rate; write countsketch:0\.1",
    "rounding": r"'rounding' in 'rounding' needs bits; write rounding:2",
    "gaussian:0.1+rounding": (
        r"'rounding' in 'gaussian:0\.1\+rounding' needs bits; write rounding:2"
    ),
    "rounding:3": r"needs bits of 1, 2, 4 or 8.*got bits=3",
    "rounding:2.5": r"'2\.5' in 'rounding:2\.5' is no bits for rounding",
    "gaussian:ten": r"'ten' in 'gaussian:ten' is no rate for gaussian",
    "gaussian:1.5": r"Gaussian needs 0 < rate <= 1, got rate=1\.5",
    "exact:0.1": r"'exact' in 'exact:0\.1' takes nothing after its name; write exact",
    "gaussian:0.1,nonzeros=2": r"gaussian in .* has no field 'nonzeros'; it has none",
    "sparse-sign:0.1,nonzero=2": r"sparse-sign in .* has no field 'nonzero'; it has nonzeros",
    "sparse-sign:0.1,nonzeros=x": r"'x' in .* is no nonzeros for sparse-sign",
    "countsketch:0.1,balanced=0": r"has no field 'balanced'; it has none",
    "centered(countsketch:0.1": r"cannot read the parentheses of 'centered\(countsketch:0\.1'",
    "centered(countsketch)0.1": r"cannot read the parentheses",
    "centered(countsketch:0.1):0.1": (
        r"gives 'countsketch:0\.1' a rate that it does not take or has already"
    ),
    "centered(rounding:2):0.1": r"gives 'rounding:2' a rate that it does not take",
    "centered(centered(gaussian)):0.1": "makes no sense",
    "gaussian:0.1+countsketch:0.1": "a sketch of a sketch",
    "centered(gaussian):0.1+rounding:4": r"centre first, as in Centered\(Then",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_cannot_be_read_says_what_can(text):
    with pytest.raises(ValueError, match=UNREADABLE[text]):
        parse(text)


def test_a_sketch_of_a_sketch_is_refused_for_what_it_is():
    with pytest.raises(ValueError, match="a sketch of a sketch"):
        parse("gaussian+countsketch", rate=0.1)


def test_what_has_no_name_has_no_spelling():
    with pytest.raises(ValueError, match=r"has no spelling; the names are exact"):
        spell(FeatureProjection(0.1, SRHT))
