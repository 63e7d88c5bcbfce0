"""The published recipe by hand: which layers it leaves in BF16."""

import pandas as pd
import pytest

from sketchvar.analysis.plan.formats import find_block, follow_recipe, keep_formats
from sketchvar.estimators import BothRounded, GridRounding, parse

LAYERS = ["embed", *(f"blocks.{i}.{part}" for i in range(8) for part in ("up", "down")), "head"]


def table(*names):
    lines = [(layer, name, 1.0) for layer in LAYERS for name in ("exact", *names)]
    return pd.DataFrame(lines, columns=["layer", "estimator", "rate"])


def test_blocks_are_found_by_their_numbers():
    names = {"model.layers.11.mlp.up": 11, "0": 0, "h.3": 3, "head": None, "conv2.weight": None}
    assert {name: find_block(name) for name in names} == names


@pytest.mark.parametrize("names", [("nvfp4-both", "fp8-both"), ("nvfp4", "fp8")])
def test_the_last_blocks_and_what_is_in_none_stay(names):
    """Of eight blocks 15 % are the last two."""
    chosen = follow_recipe(table(*names))
    assert list(chosen["layer"]) == LAYERS
    exact = list(chosen["layer"][chosen["estimator"] == "exact"])
    assert exact == ["embed", *LAYERS[-5:]]
    assert set(chosen["estimator"]) == {"exact", names[0]}


def test_formats_with_both_sides_come_before_those_of_x_alone():
    both = keep_formats(table("nvfp4", "nvfp4-both", "fp8", "mxfp4-both", "rounding:2"))
    assert set(both["estimator"]) == {"exact", "nvfp4-both", "mxfp4-both"}
    one = keep_formats(table("nvfp4", "fp8", "rounding:2"))
    assert set(one["estimator"]) == {"exact", "nvfp4", "fp8"}


def test_what_has_no_formats_or_no_blocks():
    with pytest.raises(ValueError, match="have no NVFP4; measure formats"):
        keep_formats(table("fp8", "rounding:2"))
    with pytest.raises(ValueError, match="no layer has the number of a block"):
        follow_recipe(table("nvfp4").query("layer == 'head'"))


def test_formats_are_spelled():
    block = GridRounding("e2m1", 32, "power", axis="tokens")
    assert parse("mxfp4-both") == BothRounded(block, block)
    assert parse("fp8-both").of_y == GridRounding("e4m3", axis="tokens")
