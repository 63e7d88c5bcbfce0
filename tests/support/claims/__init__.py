"""The claims of data/README.md: the text of each -> a function that computes its numbers again."""

from collections.abc import Callable

import pandas as pd
from support.recorded import DATA

TASKS = ("stdlib-lm", "cifar10-vit", "glue-cola-minilm", "glue-mrpc-minilm")
NUMBERS: dict[str, Callable[[], str]] = {}


def claim(text: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register the function that writes the numbers of this claim."""

    def keep(function: Callable[[], str]) -> Callable[[], str]:
        NUMBERS[text] = function
        return function

    return keep


def read(path: str) -> pd.DataFrame:
    """A table in data/."""
    return pd.read_parquet(DATA / path)


def middle(values: pd.Series, digits: int = 2) -> str:
    """A median and its quartiles: median [low, high]."""
    low, half, high = (f"{values.quantile(q):.{digits}g}" for q in (0.25, 0.5, 0.75))
    return f"{half} [{low}, {high}]"


def span(values: list[float] | pd.Series, form: str = ".2f") -> str:
    """The least and the greatest: least–greatest."""
    return f"{min(values):{form}}–{max(values):{form}}"
