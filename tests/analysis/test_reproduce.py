"""sketchvar reproduce: the commands are found, paths are moved, and what differs is seen."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.recorded import DATA

from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report.reproduce import describe
from sketchvar.analysis.reproduce import (
    compare,
    compare_places,
    find_commands,
    find_root,
    inside,
    reject,
)

WORDS = "truth --task digits-mlp --steps 5 --draws 12"


def test_paths_of_commands_are_those_of_the_folder():
    folder = Path("/a/data/cost/small")
    assert inside(folder, "data/cost/small") == Path()
    assert inside(folder, "data/cost/small/plan.json") == Path("plan.json")
    assert inside(folder, "data/cost/other") is None and inside(folder, "0.1") is None
    assert inside(folder.parent, "data/cost/small") == Path("small")
    assert find_root(folder, [["cost", "--out", "data/cost/small"]]) == Path("/a")
    assert find_root(folder.parent, [["cost", "--out", "data/cost/small"]]) == Path("/a")


def test_the_command_of_every_recorded_folder_is_found():
    for about in DATA.rglob("run.json"):
        made = find_commands(about.parent)
        assert all(words[0] not in ("figures", "report") for words in made), about


def test_a_folder_that_no_command_made(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / ".git").mkdir()
    with pytest.raises(ValueError, match="nothing says how it was made"):
        find_commands(tmp_path / "data")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with its README."""
    root = tmp_path_factory.mktemp("checkout")
    folder = root / "data" / "truth" / "digits"
    main([*WORDS.split(), "--out", str(folder), "--quiet"])
    text = f"# truth\n\n    sketchvar {WORDS} \\\n        --out data/truth/digits\n"
    (folder.parent / "README.md").write_text(text)
    return folder


def test_the_same_numbers_come_again(recorded, tmp_path, capfd):
    assert main(["reproduce", str(recorded), "--out", str(tmp_path / "again"), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["sentences"][-1] == "Reproduced."
    rows = pd.DataFrame(said["reproduced"])
    assert {"redrawn", "example"} <= set(rows["column"]) and (rows["equal"] == 1).all()


def test_what_is_beyond_its_errors_is_seen(recorded, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(recorded, again)
    rows = pd.read_parquet(again / "truth.parquet")
    first = rows["redrawn"].notna().idxmax()

    def moved(by):
        other = rows.copy()
        other.loc[first, "redrawn"] += by * np.sqrt(2) * rows.loc[first, "redrawn_stderr"]
        other.to_parquet(again / "truth.parquet")
        return compare(recorded, again)

    assert not reject(moved(1.0))[0]
    ((wrong,), bound) = reject(moved(6.0))
    assert wrong.column == "redrawn" and wrong.largest == pytest.approx(6.0) and bound < 6
    assert wrong.equal == wrong.numbers - 1


def test_sums_in_another_order_are_equal_next_to_their_error(recorded, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(recorded, again)
    rows = pd.read_parquet(again / "truth.parquet")

    def equal(by):
        rows.assign(row_z=rows["row_z"] + by).to_parquet(again / "truth.parquet")
        return {each.column: each.equal == each.numbers for each in compare(recorded, again)}

    assert rows["row_z"].abs().min() < 0.5  # so that a millionth of it is less than that
    assert equal(9e-7)["row_z"] and not equal(1e-5)["row_z"]
    rows = rows.assign(redrawn=1.1 * rows["redrawn"], redrawn_stderr=np.inf)
    assert not equal(0.0)["redrawn"]


def test_another_machine_is_named(recorded, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(recorded, again)
    assert compare_places(recorded, again) == []
    about = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(about | {"hardware": "an abacus"}))
    elsewhere = compare_places(recorded, again)
    assert elsewhere == [f"hardware {about['hardware']}, now an abacus"]
    found = compare(recorded, again)
    assert not any("abacus" in line for line in describe(found, 0.01, elsewhere))  # all is equal
    rows = pd.read_parquet(again / "truth.parquet")
    rows.assign(redrawn=1.01 * rows["redrawn"]).to_parquet(again / "truth.parquet")
    assert any("abacus" in line for line in describe(compare(recorded, again), 0.01, elsewhere))


def test_rows_of_something_else(recorded, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(recorded, again)
    pd.read_parquet(again / "truth.parquet")[1:].to_parquet(again / "truth.parquet")
    with pytest.raises(ValueError, match="1 of them of something that the other has not"):
        compare(recorded, again)


def test_slips(recorded, tmp_path, capfd):
    assert main(["reproduce", str(tmp_path / "none")]) == 2
    assert main(["reproduce", str(recorded), "--out", str(recorded / "again")]) == 2
    assert main(["reproduce", str(recorded), "--level", "2"]) == 2
    said = capfd.readouterr().err
    assert "there is no folder" in said and "choose another" in said and "a probability" in said
