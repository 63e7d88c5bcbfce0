"""README holds what it promises: its lines print its table, its links and its map exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sketchvar.analysis.__main__ import main, parser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
LINES, TABLE = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", TEXT, re.DOTALL).groups()
MAP = re.search(r"## Layout\n\n```\n(.*?)```", TEXT, re.DOTALL)[1]
COMMANDS = re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)))


def test_its_lines_print_its_table():
    printed = subprocess.run(
        [sys.executable, "-c", LINES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(printed) == len(TABLE.split())
    for ours, theirs in zip(TABLE.split(), printed, strict=True):
        if re.fullmatch(r"\d+\.\d+", ours):  # the last digit may round the other way elsewhere
            unit = 10.0 ** -len(ours.partition(".")[2])
            assert float(theirs) == pytest.approx(float(ours), abs=1.01 * unit)
        else:
            assert theirs == ours


def test_its_length():
    before, _, _ = TEXT.partition("## Layout")
    assert len(before.split()) <= 500
    assert len(TEXT.split()) <= 1000


def test_its_links_exist():
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / link).exists(), link


def test_its_map_is_the_tree():
    names = set(re.findall(r"[\w.]+(?:/|\.py)", MAP))
    tops = [ROOT, ROOT / "estimators", ROOT / "analysis"]
    assert {name for name in names if not any((top / name).exists() for top in tops)} == set()
    files = {file.name for file in (ROOT / "analysis").glob("[a-z]*.py")}
    rooms = {f"{file.parent.name}/" for file in (ROOT / "analysis").glob("*/__init__.py")}
    assert files | rooms <= names | {"style.py"}


def test_its_commands_are_those_that_there_are():
    (subparsers,) = parser()._subparsers._group_actions
    assert set(COMMANDS) == set(subparsers.choices)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out
