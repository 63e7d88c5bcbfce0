"""A choice: what is asked for in any way is read once, with its flags, and an oracle is told layer
by layer.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sketchvar.estimators import (
    CATALOG,
    Centered,
    Choice,
    CountSketch,
    Estimator,
    Gaussian,
    OptimalRows,
    ScoredRows,
    StochasticRounding,
    UniformRows,
    build,
    choices,
)
from sketchvar.estimators.catalog import ORACLES, WITHOUT_RATE
from sketchvar.estimators.choice import choose
from sketchvar.estimators.combine import innermost

Y_SQ = torch.tensor([1.0, 4.0, 9.0])


def pairs(found):
    return [(choice.name, choice.rate) for choice in found]


NAMES = {
    "gaussian:0.1": ("gaussian", 0.1),
    "gaussian": ("gaussian", 0.5),
    " centered( countsketch ):0.25": ("centered(countsketch)", 0.25),
    "centered(gaussian:0.1+rounding:4)": ("centered(gaussian+rounding:4)", 0.1),
    "gaussian:1+rounding:1": ("gaussian+rounding:1", 1.0),
    "sparse-sign:0.1,nonzeros=8": ("sparse-sign,nonzeros=8", 0.1),
    "scored-rows,floor=0.2": ("scored-rows,floor=0.2", 0.5),
    "rounding:2": ("rounding:2", 1.0),
    "exact": ("exact", 1.0),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_spelling_is_a_name_and_a_rate(text):
    assert pairs(choices(text, 0.5)) == [NAMES[text]]


def test_every_estimator_comes_at_every_rate_once():
    found = choices(["countsketch", "rounding:2", "gaussian:0.1", "countsketch"], [0.5, 0.1])
    assert pairs(found) == [
        ("countsketch", 0.5),
        ("countsketch", 0.1),
        ("rounding:2", 1.0),
        ("gaussian", 0.1),
    ]
    assert [choice.estimator for choice in found] == [
        CountSketch(0.5),
        CountSketch(0.1),
        StochasticRounding(2),
        Gaussian(0.1),
    ]


def test_objects_and_single_ones_are_as_good_as_lists_of_text():
    assert choices("countsketch", 0.5) == choices(["countsketch"], [0.5])
    assert choices(CountSketch(0.5)) == choices("countsketch:0.5") == [Choice.of(CountSketch(0.5))]
    mixed = choices([Centered(UniformRows(0.25)), "uniform-rows"], np.array([0.25]))
    assert pairs(mixed) == [("centered(uniform-rows)", 0.25), ("uniform-rows", 0.25)]
    assert choices((name for name in ("exact", "srht")), (rate for rate in (0.5,))) == choices(
        ["exact", "srht"], [0.5]
    )
    assert choices([], [0.5]) == []


WRONG = {
    "gausian": r"unknown estimator 'gausian'.*did you mean 'gaussian'\?",
    "countsketch": r"'countsketch' in 'countsketch' needs rate; write countsketch:0\.1",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_read_says_what_can(text):
    with pytest.raises(ValueError, match=WRONG[text]):
        choices(["exact", text])


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan"), "0.5"])
def test_rates_are_checked_even_where_nobody_takes_them(rate, unchecked):
    with pytest.raises(ValueError, match=rf"0 < rate <= 1, got rate={rate}; write 0\.1 for 10 %"):
        choices(["rounding:2"], [0.5, rate])


@pytest.mark.parametrize("wrong", [CountSketch, None, 0.5])
def test_what_is_no_estimator_is_refused(wrong, unchecked):
    with pytest.raises(TypeError, match=r"a spelling, as in .* or an Estimator, as in CountSketch"):
        choices(["exact", wrong], 0.5)


@pytest.mark.parametrize("name", CATALOG)
def test_flags_are_those_of_the_estimator_that_is_built(name):
    (choice,) = choices(name, 0.3)
    traits = build(name, 0.3, Y_SQ).traits
    assert choice.oracle == (name in ORACLES) and choice.takes_rate == (name not in WITHOUT_RATE)
    assert choice.biased == traits.biased and choice.needs_pair == traits.needs_pair
    assert choice.no_closed_form == traits.no_closed_form
    assert choice.flags == (choice.oracle, choice.biased, choice.takes_rate)


@pytest.mark.parametrize(
    "inside", ["{}", "centered({})", "{}+rounding:4", "centered({}+rounding:4)"]
)
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_an_oracle_is_told_of_y_layer_by_layer(name, inside):
    (choice,) = choices(inside.format(name), 0.5)
    assert choice.oracle
    x, y = torch.randn(3, 4), torch.randn(3, 2)
    with pytest.raises(ValueError, match="is an oracle that has not been told of Y"):
        choice.estimator.compress(x, 0)
    for y_sq in (y.square().sum(1), torch.ones(3)):
        told = choice.told(y_sq)
        known = "scores" if name.startswith("scored-rows") else "y_sq"
        inner, expected = innermost(told), build(name, 0.5, y_sq)
        assert torch.equal(getattr(inner, known), getattr(expected, known))
        assert told.kept_bytes(3, 4, torch.float32) == choice.estimator.kept_bytes(
            3, 4, torch.float32
        )
    with pytest.raises(ValueError, match=f"{name} is an oracle: it needs y_sq"):
        choice.told(None)


def test_scores_that_a_user_gives_make_no_oracle():
    """They are what a layer may know: from a mask, or learned."""
    given = ScoredRows(0.5, torch.tensor([1.0, 1.0, 0.0]))
    choice = Choice.of(given)
    assert not choice.oracle and choice.told(Y_SQ) is given
    assert Choice.of(ScoredRows(0.5)).oracle
    again = Choice.of(OptimalRows(0.5, torch.ones(3))).told(Y_SQ)
    assert torch.equal(again.y_sq, Y_SQ)  # an oracle of one Y is told anew of another


def test_another_rate():
    assert choose("centered(gaussian:0.1+rounding:4)").at(0.2) == choose(
        "centered(gaussian+rounding:4)", 0.2
    )
    assert choose("srht-iid:0.1").at(0.2).estimator == build("srht-iid", 0.2)


@dataclass(frozen=True)
class Own(Estimator):
    """Somebody else's estimator."""

    rate: float
    power: int = 2

    def compress(self, x, seed): ...

    def contract(self, kept, y): ...

    def variance(self, m): ...

    def kept_bytes(self, n, p, dtype): ...


def test_an_estimator_of_ones_own_is_called_by_its_class():
    assert pairs(choices([Own(0.5), Own(0.1)])) == [("Own(power=2)", 0.5), ("Own(power=2)", 0.1)]
    assert Choice.of(Own(0.5)).flags == (False, False, True)
