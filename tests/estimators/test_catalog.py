"""The catalog: every name builds, and a wrong one says what was meant."""

import dataclasses
import re

import pytest
import torch

import sketchvar
from sketchvar import estimators
from sketchvar.estimators import CATALOG, Estimator, build
from sketchvar.estimators.catalog import ORACLES, WITHOUT_RATE, check_name


@pytest.mark.parametrize("name", CATALOG)
def test_every_name_builds_its_class(name):
    e = build(name, 0.25, torch.ones(4, dtype=torch.float64))
    assert (
        e == CATALOG[name]()
        if name in WITHOUT_RATE
        else name in ORACLES or e == CATALOG[name](0.25)
    )
    assert isinstance(e, Estimator)
    assert dataclasses.is_dataclass(e)
    assert getattr(e, "rate", 0.25) == 0.25
    assert type(e).__name__ in repr(e)


@pytest.mark.parametrize("name", CATALOG)
def test_every_class_is_public_and_has_a_card(name):
    kind = type(build(name, 0.25, torch.ones(4, dtype=torch.float64)))
    assert getattr(estimators, kind.__name__) is kind
    for word in ("variance:", "bytes", "time", "use:"):
        assert word in kind.__doc__.lower(), f"the card of {kind.__name__} does not speak of {word}"


def test_names_are_words():
    for name in CATALOG:
        words = (
            re.sub(r":\d+$", "", name).replace("centered(", "").replace(")", "").split("+")
        )  # see spelling.py
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", word) for word in words), name
    assert set(CATALOG) >= WITHOUT_RATE | ORACLES


def test_public_names_exist():
    assert all(hasattr(estimators, name) for name in estimators.__all__)
    assert len(set(estimators.__all__)) == len(estimators.__all__)
    for name in set(estimators.__all__) - set(sketchvar.__all__):
        module = getattr(estimators, name).__module__.removeprefix("sketchvar")
        pytest.fail(f"sketchvar/__init__.pyi lacks `from {module} import {name}`")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gausian", "gaussian"),
        ("Gaussian", "gaussian"),
        ("uniform_rows", "uniform-rows"),
        ("count-sketch", "countsketch"),
    ],
)
def test_unknown_names_suggest_the_nearest(typed, meant):
    with pytest.raises(
        ValueError, match=f"unknown estimator '{typed}'; did you mean '{meant}'\\?.*known are exact"
    ):
        build(typed, 0.5)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(ValueError, match=r"unknown estimator 'zzz'; known are exact, gaussian"):
        check_name("zzz")
    check_name("srht")


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_oracles_need_y_sq(name):
    with pytest.raises(ValueError, match=f"{name} is an oracle: it needs y_sq"):
        build(name, 0.5)
