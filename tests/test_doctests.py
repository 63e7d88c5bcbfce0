"""Every example in a docstring of the package does what it says."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from sketchvar.estimators import (
    Centered,
    CountSketch,
    Gaussian,
    Moments,
    StochasticRounding,
    UniformRows,
    choices,
    empirical,
    estimate,
    parse,
)

ROOT = Path(__file__).parents[1]
FILES = [
    f for folder in ("estimators", "analysis", "sketchvar") for f in (ROOT / folder).rglob("*.py")
]
TOLD = [f for f in FILES if ">>> " in f.read_text()]


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "sketchvar" else ("sketchvar", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", sorted({module_of(f) for f in TOLD}))
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    file = next(f for f in TOLD if module_of(f) == name)
    examples = len(re.findall(r"^\s+>>> ", file.read_text(), re.M))
    assert found.failed == 0 and found.attempted == examples


FIRST = [Moments.of, Centered, CountSketch, Gaussian, StochasticRounding, UniformRows]


@pytest.mark.parametrize("known", [*FIRST, choices, empirical, estimate, parse])
def test_what_users_call_first_has_one(known):
    assert ">>> " in known.__doc__


def test_a_wrong_example_is_seen():
    """Must fail."""
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(wrong, out=lambda _: None).failed == 1
