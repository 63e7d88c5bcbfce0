"""data/README.md says what the recorded files say: each number of its claims, computed again."""

import re
import shlex

import pytest
from support.claims import NUMBERS, cost, formats, memory, noise, paper, training, whole
from support.recorded import DATA

from sketchvar.analysis.__main__ import parser
from sketchvar.analysis.records import read_json
from sketchvar.analysis.report.plan import write_total
from sketchvar.analysis.report.table import write_digits

assert noise and cost and formats and training and whole and memory and paper  # they fill NUMBERS
TEXT = (DATA / "README.md").read_text()
CONCLUSION, _, TABLES = TEXT.partition("## Claims")
COMMANDS = [  # that made what is recorded
    shlex.split(words.replace("\\\n", ""))
    for file in DATA.rglob("README.md")
    for words in re.findall(r"^(?: {4})?sketchvar ((?:.*\\\n)*.*)$", file.read_text(), re.MULTILINE)
]
NUMBER = r"\d+(?:\.\d+)?"
READ_OFF = r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]"


def read_claims() -> dict[str, list[str]]:
    """Claim -> its other cells: verdict, numbers, how measured, where."""
    lines = [line.strip("| ").split(" | ") for line in TABLES.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines if cells[0] != "claim" and "---" not in cells[0]}


def test_every_claim_is_computed():
    assert set(read_claims()) == set(NUMBERS)


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_of_a_claim(text):
    verdict, numbers, measured, where = read_claims()[text]
    assert numbers == NUMBERS[text]()
    assert not re.search(NUMBER, verdict + measured.replace("1 / (1 + r)", ""))
    links = re.findall(r"\]\(([^)#]+)", where)
    assert links and all((DATA / link).exists() for link in links)


def test_the_conclusion_has_no_number_that_no_claim_has():
    half_a_page = CONCLUSION.partition("## Conclusion")[2]
    known = set(re.findall(NUMBER, TABLES))
    assert half_a_page and set(re.findall(NUMBER, half_a_page)) <= known


def test_the_table_of_intervals_is_that_of_its_files():
    cells = {
        (name, estimator): [
            "–" if value != value else f"{value:.0f}"
            for run in ("stdlib-lm", "cifar10-vit")
            for value in noise.held(run).loc[name, estimator]
        ]
        for name, estimator in noise.held("cifar10-vit").index
    }
    table = (DATA / "truth" / "README.md").read_text().partition("## Intervals")[2]
    rows = [row.strip("| ").split(" | ")[1:] for row in table.splitlines() if row.startswith("|")]
    assert len(rows[2:]) == 8 and all(row in cells.values() for row in rows[2:])


def test_what_forks_lost_is_that_of_their_files():
    text = (DATA / "forks" / "README.md").read_text()
    assert all(line in text for line in cost.lost())


def test_effective_batches_are_those_of_their_files():
    text = (DATA / "forks" / "README.md").read_text()
    name = rf"({'|'.join(map(re.escape, cost.FORKS.values()))})(?: at [\d.]+|, [\d.]+ % of bytes)?"
    told = r"((?:\d\.\d\d \| ){3}\d\.\d\d) \|"
    cells = rf"({READ_OFF}(?: \(end of the range\))?) \| {told}"
    rows = re.findall(rf"^\|.*?{name}(?: \| \d+)? \| {cells}", text, re.MULTILINE)
    assert len(rows) == len(re.findall(cells, text)) > 100
    assert set(rows) <= cost.table()
    known = {off.split(" (")[0] for _, off, _ in cost.table()}
    known |= {cost.read_off(row) for _, row in cost.whole().iterrows()}
    assert set(re.findall(READ_OFF, text)) <= known


def test_how_predictions_of_forks_did_is_that_of_their_files():
    text, every = (DATA / "forks" / "README.md").read_text(), cost.judged(ordered=False)
    for name, row in cost.judged().iterrows():
        label = {"both": "joined"}.get(str(name), name)
        cells = [cell for each in (row, every.loc[name]) for cell in cost.tell(each)]
        assert f"| {label} | {' | '.join(cells)} |" in text


def test_the_page_of_the_paper_says_what_the_claims_say():
    text = (DATA / "paper" / "README.md").read_text()
    told = NUMBERS["A ratio r trains like exact training on 1 / (1 + r) of the batch"]()
    better, worse = re.findall(r"\d+ of \d+|(?<=worse in )\d+", told)[:2]
    assert f"trains better than that batch in {better}, worse in {worse}" in text


def test_the_tables_of_the_plan_are_those_of_its_file():
    text = (DATA / "plan" / "README.md").read_text()
    plan = read_json(DATA / "plan" / "plan.json")
    table = [" | ".join(line.strip("| ").split(" | ")[1:]) for line in text.splitlines()]
    for row in plan["beside"]:
        size = f"{row['kept_bytes'] / 1e6:.3g} MB | {100 * row['fraction']:.1f} %"
        assert f"{size} | {write_total(row, 'ratio')} | {write_total(row, 'held_out')}" in table
    for row in plan["by_step"]:
        total = write_total({"ratio": row["ratio"], "ratio_stderr": row["stderr"]}, "ratio")
        numbers = (total, write_digits(row["median"]), write_digits(row["largest"]))
        part = "held out" if row["held_out"] else "chosen on"
        assert f"| {row['step']} | {part} | {' | '.join(numbers)} | {row['layer']} |" in text
    total = plan["totals"]
    assert f"it is more by {total['more']:.2f} ± {total['more_half']:.2f} (95 %, Welch)" in text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_command_that_made_it_is_still_spelled_so(words):
    assert parser().parse_known_args(words)[1] == []
