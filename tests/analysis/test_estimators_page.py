"""The page of all estimators is what the cards say, and its pictures are true."""

import re
from pathlib import Path

import pytest
import torch

from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report.cards import read_card, write_page
from sketchvar.analysis.report.glyphs import picture
from sketchvar.estimators import (
    CATALOG,
    Centered,
    CountSketch,
    GridRounding,
    HotColumns,
    NormRows,
    Residual,
    StochasticRounding,
    UniformRows,
    choices,
)

FILE = Path(__file__).parents[2] / "estimators" / "README.md"
PICTURE = re.compile(r"```\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def page():
    return write_page()


def test_it_is_up_to_date(page):
    """Words letter by letter; pictures by their size, as torch may draw other numbers one day."""
    written = FILE.read_text()
    remedy = "run sketchvar estimators --markdown > estimators/README.md"
    assert PICTURE.sub("", written) == PICTURE.sub("", page), remedy
    sizes = [[list(map(len, p.split("\n"))) for p in PICTURE.findall(t)] for t in (written, page)]
    assert sizes[0] == sizes[1], remedy


def test_the_command_prints_it(page, capsys):
    assert main(["estimators", "--markdown"]) == 0
    assert capsys.readouterr().out == page


def test_all_are_on_it(page):
    for name in CATALOG:
        assert f"| `{name}` |" in page
    for choice in choices(list(CATALOG), [0.1]):
        kind = type(choice.estimator)
        assert f"\n## {kind.__name__}\n" in page and f"(#{kind.__name__.lower()})" in page
        about, parts = read_card(kind)
        assert about and {"Variance", "Use"} <= set(parts)
        assert all(parts.values())


def test_pictures():
    _, lines = picture(CountSketch(0.25))
    entries = [line.replace("·", "") for line in lines]
    assert list(map(len, entries)) == [4] * 6  # balanced: four of 24 rows in each of six sums
    assert sorted(i for line in lines for i, c in enumerate(line) if c != "·") == list(range(24))
    assert picture(Centered(CountSketch(0.25)))[1] == lines
    for estimator in (UniformRows(0.25), NormRows(0.25)):
        assert all(line.count("+") == 1 and line.count("·") == 23 for line in picture(estimator)[1])
    assert picture(StochasticRounding(2))[1][0].count("|") == 4
    (values,) = picture(GridRounding("e2m1"))[1]
    assert values.count("|") == 15 and values == values[::-1]
    _, columns = picture(Residual(0.25, HotColumns))
    assert len(set(columns)) == 1 and columns[0].count("#") == 6


def test_pictures_leave_random_numbers_alone():
    state = torch.get_rng_state()
    picture(CountSketch(0.25))
    assert torch.equal(torch.get_rng_state(), state)
