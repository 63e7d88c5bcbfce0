"""Which layers may be FP4: the rows of training formats, and the exceptions that are published."""

import math
import re

import pandas as pd

# X and Y rounded, as the weight gradient of training in a format has them; or X alone
FORMATS = (("nvfp4-both", "mxfp4-both", "fp8-both"), ("nvfp4", "mxfp4", "fp8"))
SHARE = 0.15
EXCEPTIONS = "NVFP4 with other exceptions in BF16"
RECIPE = "the last 15 % of blocks, and what is in none, in BF16; NVFP4 else"


def keep_formats(measured: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of formats, and exact ones, of a table of ``measure_layers``; those with X and
    Y rounded if there are any, else those with X alone.

    Raises ValueError where NVFP4 was not measured.
    """
    there = set(measured["estimator"])
    names = next((names for names in FORMATS if names[0] in there), None)
    if names is None:
        raise ValueError(
            "these rows have no NVFP4; measure formats, as in sketchvar run --estimators"
            f" {' '.join(FORMATS[0])}"
        )
    return measured[measured["estimator"].isin({"exact", *names})]


def follow_recipe(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``list_candidates`` that the published recipe chooses, one per layer: exact in
    the last ``SHARE`` of blocks and in layers of no block, NVFP4 else.

    A block is the first number in a layer's name. Source: NVIDIA 2025,
    https://arxiv.org/abs/2509.25149. Raises ValueError where no name has a number.
    """
    blocks = {layer: find_block(layer) for layer in table["layer"]}
    numbers = sorted({number for number in blocks.values() if number is not None})
    if not numbers:
        raise ValueError(
            "no layer has the number of a block in its name, by which the recipe chooses; give"
            " --memory"
        )
    last = set(numbers[-math.ceil(SHARE * len(numbers)) :]) | {None}
    name = find_fp4(table)
    stays = table["layer"].map(lambda layer: blocks[layer] in last)
    exact = table["estimator"] == "exact"
    return table[exact & stays | (table["estimator"] == name) & ~stays]


def find_fp4(table: pd.DataFrame) -> str:
    """What NVFP4 is called in a table that has it."""
    return next(names[0] for names in FORMATS if names[0] in set(table["estimator"]))


def find_block(layer: str) -> int | None:
    """The first number that stands alone between the dots of a layer's name."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", layer)
    return int(found[1]) if found else None
