"""Every column is documented, once, and said wherever a user would look."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from sketchvar import Probe
from sketchvar.analysis import noise, records
from sketchvar.analysis.columns import LAYERS, describe, find_column, find_table, write_page
from sketchvar.analysis.folder import LOSSES
from sketchvar.analysis.frontier import rows as frontier_rows
from sketchvar.analysis.sweep import cell
from sketchvar.analysis.truth import rows as truth_rows

ROOT = Path(__file__).parents[2]
REMEDY = "say in analysis/columns.py what it is"
TABLES = {
    "layers": noise.COLUMNS,
    "frontier": frontier_rows.COLUMNS,
    "losses": LOSSES,
    "training": cell.COLUMNS,
    "truth": truth_rows.COLUMNS,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_documented(name):
    assert find_table(TABLES[name]).startswith(name)
    assert set(TABLES[name]) - set(describe(TABLES[name])) == set(), REMEDY


def test_recorded_tables_are_documented():
    schemas = {}
    for file in sorted((ROOT / "data").rglob("*.parquet")):
        schemas.setdefault(tuple(pq.read_schema(file).names), file.relative_to(ROOT))
    assert len(schemas) > 15
    for names, file in schemas.items():
        assert set(names) - set(describe(names)) == set(), f"{file}: {REMEDY}"


def test_endings_and_names_that_are_none():
    assert find_column("ratio_stderr") == ("1", "standard error of ratio")
    assert find_column("variance_stderr").unit == find_column("variance").unit == "gradient²"
    assert find_column("unheard_of") is find_column("unheard_of_stderr") is None


def test_one_name_means_what_its_table_says():
    ours = describe(["layer", "redrawn", "row", "row_z"])
    assert ours["row"].meaning == "what the form by row says" and ours["row_z"].unit == "1"
    assert find_table(["variance", "ratio"]) == LAYERS  # the first that knows as much


def test_the_page_is_up_to_date():
    remedy = "run python -m sketchvar.analysis.columns > docs/columns.md"
    assert (ROOT / "docs" / "columns.md").read_text() == write_page(), remedy


def test_help_says_them():
    for name in noise.COLUMNS:
        column = find_column(name)
        assert name in Probe.rows.__doc__ and column.meaning[:30] in Probe.rows.__doc__, name


def test_a_file_carries_them(tmp_path):
    rows = pd.DataFrame({"layer": ["a"], "variance": [1.5], "other": [2]})
    rows.attrs = {"sketchvar": {"run": "x"}}
    records.write_rows(tmp_path / "rows.parquet", rows)
    schema = pq.read_schema(tmp_path / "rows.parquet")
    assert schema.field("variance").metadata[b"unit"] == "gradient²".encode()
    assert schema.field("variance").metadata[b"meaning"].startswith("E‖Ĝ − G‖²".encode())
    assert b"meaning" not in (schema.field("other").metadata or {})
    back = pd.read_parquet(tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(back, rows)
    assert back.attrs == rows.attrs
