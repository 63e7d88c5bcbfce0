"""The page of a run: whole in itself, its numbers those of the rows, everything escaped."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report import page as page_module
from sketchvar.analysis.report.contents import Picture
from sketchvar.analysis.report.kinds import read_folder
from sketchvar.analysis.report.page import report
from sketchvar.analysis.study.study import Study, run

DIGITS = 6e-3  # relative: three digits are shown
NAMES = ("countsketch", "uniform-rows", "optimal-rows", "rounding:2")


class Page(HTMLParser):
    """Tables as lists of rows of cells, images, what is loaded from elsewhere, scripts, and whether
    all tags close.
    """

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.loaded, self.open, self.titles, self.tags = (
            [],
            [],
            [],
            [],
            [],
            set(),
        )
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.titles.append("")
        for name, value in attributes:
            if name == "src" and tag == "img":
                self.images.append(value)
            elif name in ("src", "href", "srcset", "data", "action"):
                self.loaded.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] == "h2":
            self.titles[-1] += data

    def table(self, first):
        (found,) = [lines for lines in self.tables if lines[0][: len(first)] == first]
        return [dict(zip(found[0], line, strict=True)) for line in found[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(
        Study("digits-mlp", 2, (0, 2), NAMES, (0.5, 0.1)), tmp_path_factory.mktemp("report") / "run"
    )


@pytest.fixture(scope="module")
def page(folder):
    return Page(report(folder))


def test_it_is_whole_and_loads_nothing(folder, page):
    text = report(folder)
    assert text.startswith("<!DOCTYPE html>") and page.open == [] and page.loaded == []
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(page.images) == 6
    for source in page.images:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG\r\n")


def test_ratios_over_the_layers_are_those_of_the_rows(folder, page):
    rows = records.read_rows(folder / "rows.parquet")
    last, lines = rows[rows["step"] == 2], page.table(["estimator", "rate", "median"])
    assert len(lines) == 7
    for line in lines:
        part = last[
            (last["estimator"] == line["estimator"]) & (last["rate"] == float(line["rate"]))
        ]
        for name, value in (
            ("median", part["ratio"].median()),
            ("least", part["ratio"].min()),
            ("most", part["ratio"].max()),
        ):
            assert float(line[name]) == pytest.approx(value, rel=DIGITS)
        total = part["variance"].sum() / part["minibatch_example"].sum()
        assert float(line["all layers"]) == pytest.approx(total, rel=DIGITS)
        fraction = float(line["effective batch"].removesuffix(" %")) / 100
        assert fraction == pytest.approx(1 / (1 + total), abs=0.005)
        assert (line["remark"] == "oracle") == (line["estimator"] == "optimal-rows")


@pytest.mark.parametrize("rate", [None, 0.5])
def test_ratio_by_layer(folder, rate):
    rows = records.read_rows(folder / "rows.parquet")
    last = rows[rows["step"] == 2]
    table = Page(report(folder, rate)).table(["layer", "minibatch variance"])
    lines = {line["layer"]: line for line in table}
    layers = list(dict.fromkeys(last["layer"]))
    assert list(lines) == ["bytes kept", *layers, "median", "all layers", "effective batch"]
    for layer in layers:
        of = last[last["layer"] == layer]
        assert float(lines[layer]["minibatch variance"]) == pytest.approx(
            of["minibatch_example"].iloc[0], rel=0.05
        )
        for name in NAMES:
            at = of[(of["estimator"] == name) & (of["rate"].isin([rate or 0.1, 1.0]))]
            title = f"{name} (oracle)" if name == "optimal-rows" else name
            assert float(lines[layer][title]) == pytest.approx(at["ratio"].iloc[0], rel=DIGITS)


def test_coverage_and_provenance(folder, page):
    covered = page.table(["parameter", "module"])
    names = [f"{layer}.{key}" for layer in (0, 2, 4) for key in ("weight", "bias")]
    assert [line["parameter"] for line in covered] == names
    assert sum(float(line["share"]) for line in covered) == pytest.approx(1, abs=0.02)
    about, cells = (
        records.read_json(folder / "run.json"),
        [cell for lines in page.tables for line in lines for cell in line],
    )
    for name in ("run", "commit", "date", "hardware", "python", "torch"):
        assert about[name] in cells
    assert page.titles[-2].startswith("Coverage") and page.titles[-1] == "Provenance"


def test_with_a_plan_and_without_what_an_older_run_lacks(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet").drop(columns="input_of")
    records.write_rows(tmp_path / "rows.parquet", rows)
    page = Page(report(tmp_path))
    assert len(page.images) == 4
    assert not any(title.startswith(("Coverage", "Plan")) for title in page.titles)
    plan = {
        "budget": {"memory": 0.25, "noise": None},
        "totals": {"ratio": 0.5},
        "layers": {"0": "rounding:2"},
    }
    records.write_json(tmp_path / "plan.json", plan)
    page = Page(report(tmp_path))
    assert "Plan for at most 0.25 of X's bytes" in page.titles
    assert page.table(["layer", "estimator"]) == [{"layer": "0", "estimator": "rounding:2"}]
    assert page.table(["", "kept bytes"])[0]["ratio"] == "0.500"
    assert not any("None" in cell for lines in page.tables for line in lines for cell in line)


def test_a_picture_without_a_caption_is_no_crash(folder, monkeypatch):
    """What a picture is called serves as its caption."""
    contents = read_folder(folder)
    more = Picture("a_new_one", "", contents.pictures[0].draw)
    monkeypatch.setattr(page_module, "read_folder", lambda *_: replace(contents, pictures=(more,)))
    page = Page(report(folder))
    assert len(page.images) == 1 and "a new one" in report(folder)


def test_everything_is_escaped(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet")
    evil = '<script>alert("1")</script>&'
    records.write_rows(
        tmp_path / "rows.parquet", rows.assign(layer=rows["layer"].replace("0", evil))
    )
    records.write_json(tmp_path / "run.json", {"run": evil, "study": {evil: [evil]}})
    records.write_json(tmp_path / "plan.json", {"layers": {evil: evil}})
    text = report(tmp_path)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert evil in [line["layer"] for line in Page(text).table(["layer", "minibatch variance"])]


def test_of_files_that_a_probe_wrote_step_by_step(folder, tmp_path):
    for step, part in records.read_rows(folder / "rows.parquet").groupby("step"):
        records.write_rows(tmp_path / f"step-{step:08d}.parquet", part)
    assert Page(report(tmp_path)).table(["estimator", "rate"]) == Page(report(folder)).table(
        ["estimator", "rate"]
    )


def test_command(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.html")
    assert Page((tmp_path / "a.html").read_text()).titles[0] == "Words"
    assert main(["report", str(folder)]) == 0 and (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{here}/nowhere"], "there is no folder .*nowhere; give the folder of a run"),
        (["{here}/empty"], "holds no rows; the run stopped before its first measured step"),
        (["{run}", "--rate", "0.3"], r"no rows at rate 0\.3; measured were 0\.1, 0\.5"),
        (
            ["{run}", "--out", "{here}/nowhere/a.html"],
            "there is no folder .*nowhere; make it, or choose another --out",
        ),
        (["{here}/broken"], r"run\.json is not readable JSON"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys, words, says):
    for name, rows in (
        ("empty", pd.DataFrame()),
        ("broken", records.read_rows(folder / "rows.parquet")),
    ):
        (tmp_path / name).mkdir()
        records.write_rows(tmp_path / name / "rows.parquet", rows)
    (tmp_path / "broken" / "run.json").write_text(json.dumps({"run": "x"})[:-3])
    assert main(["report", *(word.format(here=tmp_path, run=folder) for word in words)]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(says, error) and "\n" not in error, error
