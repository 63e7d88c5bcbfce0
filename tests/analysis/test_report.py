"""The page of a run: whole in itself, its numbers those of the rows, everything escaped."""

import base64
import io
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report import page as page_module
from sketchvar.analysis.report.beside import read_all
from sketchvar.analysis.report.contents import Picture
from sketchvar.analysis.report.kinds import read_folder
from sketchvar.analysis.report.page import report
from sketchvar.analysis.report.table import write_digits
from sketchvar.analysis.study.study import Study, run

DATA = Path(__file__).parents[2] / "data"
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
        if tag not in ("meta", "input", "wbr"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2"):
            self.titles.append("")
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action"):
                self.loaded.append(value)
        if tag == "svg":
            self.images.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "button"):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] in ("h1", "h2"):
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
    assert text.startswith("<!DOCTYPE html>") and page.open == [] and len(text) < 3e6
    assert all(link.startswith("data:text/csv;base64,") for link in page.loaded)
    assert "img" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert len(page.images) == 6 and page.titles[0] == "Verdict"
    names = re.findall(r' id="([^"]+)"', text)
    assert len(names) == len(set(names))


def test_a_table_downloads_with_all_digits(folder, page):
    rows = records.read_rows(folder / "rows.parquet")
    (first, *_) = page.loaded
    file = io.BytesIO(base64.b64decode(first.partition(",")[2]))
    table = pd.read_csv(file, dtype={"layer": str})
    table = table.set_index("layer")
    at = (rows["step"] == 2) & (rows["rate"] == 0.1) & (rows["estimator"] == "countsketch")
    for layer, ratio in rows[at].set_index("layer")["ratio"].items():
        assert table.loc[layer, "countsketch"] == pytest.approx(ratio, rel=1e-12)


def test_points_of_a_figure_say_what_they_are_and_lines_whose_they_are(folder):
    text = report(folder)
    said = re.findall(r"<title>([^<]+)</title></use>", text)
    rows = records.read_rows(folder / "rows.parquet")
    at = (rows["step"] == 2) & (rows["rate"] == 0.1) & (rows["estimator"] == "uniform-rows")
    for layer, ratio in rows[at].set_index("layer")["ratio"].items():
        near = {s for s in said if "uniform-rows" in s.split(": ")[0] and s.endswith(f", {layer}")}
        (value,) = {float(each.rpartition(": ")[2].split(",")[0]) for each in near}
        assert value == pytest.approx(ratio, rel=0.02)  # a line may stand for two within this
    assert {"optimal-rows", "rounding:2"} <= set(re.findall(r'data-of="([^"&]+)"', text))


def test_the_verdict_is_of_the_rows(folder):
    rows = records.read_rows(folder / "rows.parquet")
    last = rows[(rows["step"] == 2) & rows["rate"].isin([0.1, 1.0]) & ~rows["oracle"]]
    median = last.groupby("estimator")["ratio"].median()
    best, *rest = read_folder(folder).verdict
    assert best.startswith(f"After 2 updates {median.idxmin()} adds the least noise")
    assert f": {write_digits(median.min())} [" in best and len(rest) == 2
    assert f"{median.idxmax()} adds the most, {write_digits(median.max())} [" in best
    total = last[last["estimator"] == median.idxmin()]
    fraction = 1 / (1 + total["variance"].sum() / total["minibatch_example"].sum())
    assert f"on {100 * fraction:.0f} % of its batch" in rest[0]


def test_ratios_over_the_layers_are_those_of_the_rows(folder, page):
    rows = records.read_rows(folder / "rows.parquet")
    last, lines = rows[rows["step"] == 2], page.table(["estimator", "rate", "bytes kept"])
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
        kept = part["kept_bytes"].sum() / part["x_bytes"].sum()
        assert float(line["of X's"].removesuffix(" %")) / 100 == pytest.approx(kept, abs=0.005)
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
    about, text = records.read_json(folder / "run.json"), report(folder)
    for name in ("run", "commit", "date", "hardware", "python", "torch"):
        assert f"<dt>{name}</dt><dd>{escape(str(about[name]))}</dd>" in text
    titles = [title for title in page.titles if title != "Words"]
    assert titles[-2].startswith("Coverage") and titles[-1] == "Provenance"


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
    monkeypatch.setattr(page_module, "read_all", lambda *_: replace(contents, pictures=(more,)))
    page = Page(report(folder))
    assert len(page.images) == 1 and "a new one" in report(folder)


def test_a_run_that_is_still_written_says_so(folder, tmp_path):
    records.write_rows(tmp_path / "rows.parquet", records.read_rows(folder / "rows.parquet"))
    for finished in (True, False):
        records.write_json(tmp_path / "run.json", {"run": "x", "finished": finished})
        assert ("still being written" in report(tmp_path)) == (not finished)


def test_ratios_that_are_not_known_leave_a_page(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet")
    records.write_rows(tmp_path / "rows.parquet", rows.assign(ratio=float("nan")))
    text = report(tmp_path)
    assert "No ratio is known at step 2: all are NaN" in text
    assert "no ratio is known: all are NaN" in text and Page(text).images


@pytest.mark.slow
def test_three_hundred_layers_are_a_page_that_can_be_sent(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet")
    one = rows[rows["layer"] == "0"]
    names = [f"bert.encoder.layer.{i}.{kind}" for i in range(100) for kind in ("q", "k", "out")]
    records.write_rows(tmp_path / "rows.parquet", pd.concat([one.assign(layer=n) for n in names]))
    text = report(tmp_path)
    assert len(text) < 3e6 and len(Page(text).table(["layer", "minibatch variance"])) == 304


def test_runs_beside_each_other(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet")
    (tmp_path / "twice").mkdir()
    double = rows["ratio"] * rows["estimator"].map({"uniform-rows": 2.0}).fillna(1.0)
    records.write_rows(tmp_path / "twice" / "rows.parquet", rows.assign(ratio=double))
    contents = read_all([folder, tmp_path / "twice"])
    assert "differ most in uniform-rows" in contents.verdict[1]
    table = Page(report([folder, tmp_path / "twice"])).table(["estimator", "run"])
    assert {line["run"] for line in table} == {"run", "twice"} and len(table) == 2 * len(NAMES)
    with pytest.raises(ValueError, match="can be shown beside each other; give one folder, or"):
        read_all([folder, DATA / "frontier"])


BYTES = {"bytes kept", "bytes held", "kept bytes"}
RATIOS = {"ratio", "variance", "median", "chosen"}
WITHOUT = {"coherence", "plan_by_step"}  # of one seed for all layers; of a plan that is told above


@pytest.mark.parametrize(
    "name",
    ["train/stdlib-lm", "frontier", "forks/stdlib-lm", "cost/stdlib-lm", "stdlib-lm", "plan"],
)
def test_bytes_and_their_share_stand_beside_ratios(name):
    contents = read_folder(DATA / name)
    found = [
        (table, titles)
        for table in (*contents.tables, *contents.details)
        if RATIOS & set(titles := [column.title for column in table.columns])
        and table.name not in WITHOUT
    ]
    assert found
    for table, titles in found:
        (at,) = [i for i, title in enumerate(titles) if title in BYTES]
        assert any(table.columns[at].show(row).replace(",", "").isdigit() for row in table.rows)
        assert any(table.columns[at + 1].show(row).endswith(" %") for row in table.rows)


def test_bytes_held_are_those_that_were_measured():
    """README of data/train: at rate 0.1 two thirds of the bytes are left."""
    (table,) = [t for t in read_folder(DATA / "train/stdlib-lm").tables if t.name == "prices"]
    (file,) = (DATA / "train/stdlib-lm").glob("memory-*.parquet")
    memory = pd.read_parquet(file).set_index(["estimator", "rate"])
    for row in table.rows:
        if row["checkpointing"]:
            assert row["held"] == memory.loc[("checkpointing", 1.0), "activations"]
        elif row["estimator"] != "exact":
            assert row["held"] == memory.loc[(row["estimator"], row["rate"]), "activations"]
        elif row["batch"] == 16:
            assert (row["held"], row["held_share"]) == (memory["exact"].iloc[0], 1)
        else:
            assert row["held"] != row["held"]
    (rows,) = [r for r in table.rows if (r["estimator"], r["rate"]) == ("uniform-rows", 0.1)]
    assert rows["held_share"] == pytest.approx(2 / 3, abs=0.01)


def test_sweeps_beside_each_other():
    folders = [DATA / "train" / name for name in ("stdlib-lm", "cifar10-vit")]
    contents = read_all(folders)
    (table,) = contents.tables
    alone = [line for folder in folders for line in read_folder(folder).tables[0].rows]
    assert len(table.rows) == len(alone)
    key = ("estimator", "rate", "batch", "validation_exact")
    assert {tuple(map(str, map(row.get, key))) for row in table.rows} == {
        tuple(map(str, map(row.get, key))) for row in alone
    }
    methods = [(row["estimator"], row["rate"], row["batch"]) for row in table.rows]
    first = methods.index(("gaussian", 0.5, 16))
    assert methods[first + 1] == ("gaussian", 0.5, 32)  # those of a method stand together
    assert "none is" in contents.verdict[0] and "countsketch 0.1: 0.137" in contents.verdict[1]
    page = Page(report(folders))
    assert len(page.images) == 1 and page.titles[0] == "Verdict"


def test_frontiers_beside_each_other():
    folders = [DATA / "frontier", DATA / "paper" / "quantised"]
    contents = read_all(folders)
    best = {
        (folder.name, row["budget"]): row["estimator"]
        for folder in folders
        for row in read_folder(folder).tables[0].rows
        if row["place"] == "best"
    }
    (table,) = contents.tables
    both = {(row["of"], row["budget"]): row["estimator"] for row in table.rows}
    assert best.items() <= both.items() and len({of for of, _ in both}) == 2
    assert len(Page(report(folders)).images) == 1
    with pytest.raises(ValueError, match="can be shown beside each other"):
        read_all([*folders, DATA / "train" / "stdlib-lm"])


def test_the_verdict_of_cola_is_that_of_the_recorded_results():
    """What data/README.md says of it, with the same numbers."""
    readme = (DATA / "README.md").read_text()
    contents = read_folder(DATA / "train" / "glue-cola-minilm")
    metric, loss, others = contents.verdict
    assert "MCC 0 with 3 of 3 seeds for Gaussian and CountSketch at 0.1 and exact batch 8" in readme
    zero = r"−0\.217 ± 0\.\d+ for {} \(0\.000 with 3 of 3 seeds\)"
    assert "Matthews' correlation of three seeds" in readme and "the metric (Matthews)" in metric
    for name in ("gaussian 0.1", "countsketch 0.1", "exact, batch 8"):
        assert re.search(zero.format(re.escape(name)), metric)
    assert "3 are resolved" in metric
    assert "0.070 on 21" in metric
    assert "exact batch 32 0.22" in readme and "0.217 on batch 32" in metric
    assert "0.123, 0.045, 0.018, 0.033" in readme and "these seeds show 0.018" in loss
    assert "none is resolved" in loss
    assert "the batches of CoLA and MRPC are too large" in readme and "are too large" in others
    own = (DATA / "train" / "README.md").read_text()
    assert "for six of the nine by their own intervals (−0.014 to −0.019 ± 0.013)" in own
    assert "by their own intervals 6 of 9 end better" in others and "0 worse" in others
    assert "rounding:2 by −0.019 ± 0.013" in others
    assert "−0.014 ± 0.013" in readme
    (told,) = [table.rows for table in contents.tables if table.name == "predictions"]
    (rows,) = [r for r in told if (r["estimator"], r["rate"]) == ("uniform-rows", 0.1)]
    half = rows["error_high"] - rows["error"]
    assert (f"{rows['error']:.3f}", f"{half:.3f}") == ("-0.014", "0.013")


def test_everything_is_escaped(folder, tmp_path):
    rows = records.read_rows(folder / "rows.parquet")
    evil = '<script>alert("1")</script>&'
    records.write_rows(
        tmp_path / "rows.parquet", rows.assign(layer=rows["layer"].replace("0", evil))
    )
    records.write_json(tmp_path / "run.json", {"run": evil, "study": {evil: [evil]}})
    records.write_json(tmp_path / "plan.json", {"layers": {evil: evil}})
    text = report(tmp_path)
    assert text.count("<script") == 1 and "&lt;script&gt;" in text
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
    assert Page((tmp_path / "a.html").read_text()).titles[0] == "Verdict"
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
