"""What is printed: tables within the width that there is, whole numbers, JSON alone on stdout."""

import json
import math
import re

import pytest
from rich.cells import cell_len

from sketchvar.analysis.commands.layout import lay_out
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.report.table import (
    Table,
    show_interval,
    show_number,
    show_text,
    write_digits,
    write_percent,
)

NAMES = [f"estimator-{i}" for i in range(12)]


def table(rows=3, name="blocks.{}.up") -> Table:
    """A wide table whose numbers all differ."""
    lines = tuple(
        {"layer": name.format(i), **{n: 1000 * i + j + 0.25 for j, n in enumerate(NAMES)}}
        for i in range(1, rows + 1)
    )
    columns = (show_text("layer"), *(show_number(n, None, "{:.2f}".format) for n in NAMES))
    feet = ({"layer": "median", NAMES[0]: 0.125},)
    return Table("wide", "A wide table", columns, lines, "A caption.", feet=feet)


@pytest.mark.parametrize("width", [40, 60, 80, 133, 400])
def test_a_table_fits_and_has_every_number_whole(width):
    lines = lay_out(table(), width)
    assert max(map(cell_len, lines)) <= width
    printed = re.findall(r"\d+\.\d\d(?!\d)", "\n".join(lines).replace("blocks.", ""))
    expected = [f"{1000 * i + j + 0.25:.2f}" for i in range(1, 4) for j in range(12)]
    assert sorted(printed) == sorted([*expected, "0.12"])
    assert "…" not in "".join(lines)
    blocks = sum("layer" in line for line in lines)
    assert sum("blocks.2.up" in line for line in lines) == blocks
    assert blocks == 1 if width == 400 else blocks > 1


def test_long_names_go_on_below_and_titles_are_broken_at_spaces_and_hyphens():
    long = "encoder.block." * 8 + "{}"
    lines = lay_out(table(1, long), 60)
    assert max(map(cell_len, lines)) <= 60
    first = "".join(line[: 60 - 9].strip() for line in lines[2:])
    assert long.format(1) in first.replace(" ", "")
    assert any("estimator-" in line for line in lay_out(table(), 40))
    assert not any("estimato-" in line for line in lay_out(table(), 40))


def test_long_names_are_broken_after_a_dot():
    lines = lay_out(table(1, "bert.encoder.layer.{}.attention.output.dense"), 42)
    assert [line.split()[0] for line in lines[2:4]] == [
        "bert.encoder.layer.1.", "attention.output.dense",
    ]  # fmt: skip


def test_numbers_are_written_for_people():
    assert [write_digits(v) for v in (0.0, 1.0, 0.12345, 12.345, 123.45, 12345.6, 1e-6)] == [
        "0", "1.00", "0.123", "12.3", "123", "12,346", "1.00e-06",
    ]  # fmt: skip
    assert [write_percent(v) for v in (1, 0.5, 0.0734, 0.019)] == [
        "100 %",
        "50 %",
        "7.3 %",
        "1.9 %",
    ]
    line = {"a": -0.0001, "a_low": -0.1, "a_high": 0.1}
    assert show_interval("a", "a").show(line) == "0.000 ± 0.100"
    assert show_interval("a", "a").show({"a": 0.5, "a_high": math.nan}) == "0.500"
    assert show_interval("a", "a").show({"a": math.nan}) == "–"
    assert show_number("a").show({}) == show_number("a").show({"a": math.nan}) == "–"


def test_json_is_all_there_is_on_stdout(capsys):
    screen = Screen(as_json=True)
    screen.note("a note")
    screen.show_table(table())
    screen.show_table(table())
    screen.say("A sentence.")
    screen.close()
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert list(content) == ["wide", "wide 2", "sentences"]
    assert content["wide"][1] == {"layer": "blocks.2.up"} | {
        n: 2000 + j + 0.25 for j, n in enumerate(NAMES)
    }
    assert "a note" in err


def test_json_has_no_numbers_that_json_lacks(capsys):
    screen = Screen(as_json=True)
    row = {"layer": "a", "ratio": math.nan, "most": math.inf}
    screen.show_table(Table("t", "t", (show_text("layer"), show_number("ratio")), (row,)))
    screen.close()
    assert json.loads(capsys.readouterr().out)["t"] == [{"layer": "a", "ratio": None, "most": None}]


def test_quiet_says_only_what_came(capsys):
    screen = Screen(quiet=True)
    screen.note("a note")
    with screen.track("Training", {"step": 3}) as update:
        update("step", 2)
    screen.list_files("Figures:", [])
    screen.say("A sentence.")
    assert capsys.readouterr() == ("A sentence.\n", "")
