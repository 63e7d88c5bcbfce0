"""data/README.md says what the recorded files say: each number of its claims, computed again."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel
from support.claims import NUMBERS, memory, noise, paper, training
from support.recorded import DATA, METHOD, Finals, holm, plus_one

from sketchvar.analysis.__main__ import parser

assert noise and training and memory and paper  # they fill NUMBERS
TEXT = (DATA / "README.md").read_text()
CONCLUSION, _, TABLES = TEXT.partition("## Claims")
COMMANDS = [  # that made what is recorded
    shlex.split(words.replace("\\\n", ""))
    for file in DATA.rglob("README.md")
    for words in re.findall(r"^(?: {4})?sketchvar ((?:.*\\\n)*.*)$", file.read_text(), re.MULTILINE)
]
NUMBER = r"\d+(?:\.\d+)?"


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


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_command_that_made_it_is_still_spelled_so(words):
    assert parser().parse_known_args(words)[1] == []


# the arithmetic of the intervals


def random_finals(methods: int) -> Finals:
    values = np.random.default_rng(0).normal(size=(methods, 4))
    names = [("exact", 1.0, 4), ("exact", 1.0, 16), ("gaussian", 0.5, 16), ("srht", 0.5, 16)]
    return Finals(pd.DataFrame(values, pd.MultiIndex.from_tuples(names[:methods], names=METHOD)))


def test_two_methods_pooled_are_a_paired_t_test():
    two = random_finals(2)
    first, second = two.table.index
    found = two.contrast(plus_one(first).sub(plus_one(second), fill_value=0))
    right = ttest_rel(*two.table.to_numpy())
    low, high = right.confidence_interval(0.95)
    assert found.p == pytest.approx(right.pvalue)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_a_contrast_is_that_of_least_squares():
    four = random_finals(4)
    design = np.array([[*np.eye(4)[m], *np.eye(4)[s][1:]] for m in range(4) for s in range(4)])
    solution, (rest,), *_ = np.linalg.lstsq(design, four.table.to_numpy().ravel())
    between = np.array([-0.5, -0.5, 1, 0, 0, 0, 0])  # batch 8 lies half way from 4 to 16
    error = np.sqrt(rest / 9 * between @ np.linalg.inv(design.T @ design) @ between)
    found = four.against_exact(four.table.index[2], 8)
    assert four.df == 9
    assert found.mean == pytest.approx(between @ solution)
    assert found.half == pytest.approx(student.ppf(0.975, 9) * error)
    assert found.half != pytest.approx(student.ppf(0.975, 3) * error, rel=0.05)  # one method's df


def test_holm_as_in_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
