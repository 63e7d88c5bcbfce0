"""The page of all estimators is what the cards say, and its pictures are true."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report import glyphs
from sketchvar.analysis.report.cards import read_card, write_page
from sketchvar.analysis.report.glyph_figures import chances
from sketchvar.analysis.report.glyphs import list_parts, name_picture
from sketchvar.estimators import (
    CATALOG,
    Centered,
    CountSketch,
    Exact,
    GridRounding,
    HotColumns,
    NormRows,
    Residual,
    RowBits,
    StochasticRounding,
    Then,
    UniformRows,
    choices,
)

FILE = Path(__file__).parents[2] / "estimators" / "README.md"
PICTURES = FILE.parent / "pictures"
LINK = re.compile(r"!\[([^\]]+)\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def page():
    return write_page()


def test_it_is_up_to_date(page):
    remedy = "run sketchvar estimators --markdown > estimators/README.md"
    assert FILE.read_text() == page, remedy


def test_every_name_has_its_picture_and_all_are_shown(page):
    """Numbers may be drawn otherwise by another torch one day: the files are not compared."""
    remedy = "run sketchvar estimators --pictures estimators/pictures"
    names = {f"{name_picture(name)}.png" for name in CATALOG}
    assert len(names) == len(CATALOG)
    assert {file.name for file in PICTURES.iterdir()} == names, remedy
    assert {link for _, link in LINK.findall(page)} == {f"pictures/{name}" for name in names}
    assert sum(file.stat().st_size for file in PICTURES.iterdir()) < 300_000


def test_the_command_draws_them(tmp_path, monkeypatch, capsys):
    some = {name: CATALOG[name] for name in ("countsketch", "rounding:2", "optimal-rows")}
    monkeypatch.setattr(glyphs, "CATALOG", some)
    assert main(["estimators", "--pictures", str(tmp_path / "new")]) == 0
    assert len(capsys.readouterr().out.split()) == 3
    for name in some:
        file = f"{name_picture(name)}.png"
        with Image.open(tmp_path / "new" / file) as drawn, Image.open(PICTURES / file) as kept:
            assert drawn.size == kept.size


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


def test_pictures_of_sketches():
    """S of the definitions: signs, weights, what is left of the mean."""
    (part,) = list_parts(CountSketch(0.25))
    assert part.values.shape == (6, 24)
    assert ((part.values != 0).sum(0) == 1).all() and ((part.values != 0).sum(1) == 4).all()
    assert abs(part.values[part.values != 0]) == pytest.approx(1)
    (rows,) = list_parts(UniformRows(0.25))
    assert rows.values[rows.values != 0] == pytest.approx([2.0] * 6)  # √(n / k)
    (chosen,) = list_parts(NormRows(0.25, replacement=True))
    norms = np.linspace(0.2, 1, 24)
    for line in chosen.values:
        (at,) = line.nonzero()[0]
        assert line[at] == pytest.approx((norms.sum() / norms[at] / 6) ** 0.5)
    (centred,) = list_parts(Centered(CountSketch(0.25)))
    assert centred.values[0] == pytest.approx([1 / 24] * 24)
    assert centred.values[1:] == pytest.approx(part.values - part.values.mean(1, keepdims=True))


def test_pictures_of_grids():
    two, eight = (list_parts(StochasticRounding(bits))[0] for bits in (2, 8))
    assert two.values == pytest.approx([0, 1 / 3, 2 / 3, 1]) and len(eight.values) == 256
    for nearest in (False, True):
        (part,) = list_parts(GridRounding("e2m1", 16, "e4m3", nearest=nearest))
        assert list(part.values[8:]) == [0.5, 1, 1.5, 2, 3, 4, 6] and part.nearest == nearest
        where, chance = chances(part.values, nearest)
        for x in np.linspace(-5.9, 5.9, 37):
            of = [np.interp(x, a, c, 0, 0) for a, c in zip(where, chance, strict=True)]
            assert sum(of) == pytest.approx(1)
            mean = x if not nearest else part.values[abs(part.values - x).argmin()]
            assert sum(of * part.values) == pytest.approx(mean)
    assert len(list_parts(RowBits(2))) == 4
    first, second = list_parts(Then(CountSketch(0.25), StochasticRounding(4)))
    assert first.values.shape == (6, 24) and len(second.values) == 16


def test_pictures_of_what_stands_for_x():
    x, back = list_parts(Residual(0.25, HotColumns))
    same = np.isclose(x.values, back.values).all(0)
    assert same.sum() == 6 and (back.values[:, ~same] == 0).all()
    (identity,) = list_parts(Exact())
    assert (identity.values == np.eye(24)).all()


def test_pictures_leave_random_numbers_alone():
    state = torch.get_rng_state()
    list_parts(CountSketch(0.25))
    assert torch.equal(torch.get_rng_state(), state)
