"""The command line: what it writes, what it says, and one line with the remedy for every
mistake.
"""

import re
import subprocess
import sys

import pytest

from sketchvar.analysis.__main__ import main

QUICK = [
    "run",
    "--task",
    "digits-mlp",
    "--steps",
    "2",
    "--measure-at",
    "0",
    "2",
    "--rates",
    "0.5",
    "0.1",
]


def test_a_run_writes_rows_provenance_and_figures_and_prints_a_table(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*QUICK, "--out", str(out)]) == 0
    names = {f.name for f in out.iterdir()}
    figures = [
        "ratio_by_layer",
        "ratio_through_training",
        "alpha_through_training",
        "closed_form_and_draws",
    ]
    assert names >= {
        "rows.parquet",
        "run.json",
        *(f"{f}.{kind}" for f in figures for kind in ("png", "pdf")),
    }
    assert all((out / f"{f}.png").stat().st_size > 10_000 for f in figures)
    printed = capsys.readouterr().out
    assert "rate 0.1, step 2" in printed
    assert str(out / "ratio_by_layer.png") in printed
    assert main(["figures", str(out), "--rate", "0.5"]) == 0
    assert "rate 0.5, step 2" in capsys.readouterr().out
    assert main(["figures", str(out), "--rate", "0.3"]) == 2
    assert "no rows at rate 0.3; measured were 0.1, 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "stdlb-lm"], r"unknown task 'stdlb-lm'; did you mean 'stdlib-lm'\?"),
        (
            ["--estimators", "gausian"],
            (
                r"unknown estimator 'gausian' in 'gausian'; did you mean"
                r" 'gaussian'\?.*gaussian:0\.1, rounding:2"
            ),
        ),
        (["--estimators", "rounding:3"], r"needs bits of 1, 2, 4 or 8, .*got bits=3"),
        (["--estimators", "gaussian:2"], r"0 < rate <= 1, got rate=2.0"),
        (
            ["--estimators", "gaussian:0.1+rounding:4"],
            r"gaussian:0\.1\+rounding:4 has no closed form to compare",
        ),
        (["--device", "cdua"], r"unknown device 'cdua'; did you mean 'cuda'\?"),
        (["--device", "cuda:77"], r"device cuda:77 is not here .*; use --device auto or cpu"),
        (["--rates", "1.5"], r"0 < rate <= 1, got rate=1.5"),
        (["--rates", "0"], r"0 < rate <= 1, got rate=0.0"),
        (["--rates", "nan"], r"0 < rate <= 1, got rate=nan"),
        (["--steps", "-3"], r"steps must be 0 or more, got -3"),
        (
            ["--measure-at", "9"],
            r"measure points must lie within 0\.\.2, got 9; change --measure-at or --steps",
        ),
        (["--measure-at", "1", "1"], r"measure points must be different and rising, got 1 1"),
        (["--measure-at", "-1"], r"measure points must lie within 0\.\.2, got -1"),
        (["--steps", "many"], r"argument --steps: invalid int value: 'many'"),
        (["--resume"], r"--resume needs --out"),
        (["--out", "{file}/x"], r"cannot write to .*; choose another --out"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    words = [word.format(file=tmp_path / "file") for word in words]
    try:
        status = main([*QUICK, *words])
    except SystemExit as done:  # argparse's own errors
        status = done.code
    assert status == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sketchvar")]
    assert len(error) == 1
    assert re.search(says, error[0]), error
    assert not (tmp_path / "runs").exists()


def test_bad_input_ends_the_process_without_a_traceback(tmp_path):
    words = [sys.executable, "-m", "sketchvar", *QUICK, "--rates", "1.5"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "got rate=1.5" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command_task_and_option(capsys):
    commands = (["run"], ["frontier"], ["figures"], ["verify"], ["bench", "probe"])
    for words in (["--help"], *([*command, "--help"] for command in commands)):
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code == 0
    printed = capsys.readouterr().out
    for word in (
        "stdlib-lm",
        "digits-mlp",
        "--measure-at",
        "--resume",
        "sketchvar figures",
        "(default: 0.5",
    ):
        assert word in printed


def test_figures_of_a_folder_without_a_run(tmp_path, capsys):
    assert main(["figures", str(tmp_path)]) == 2
    assert "give the folder of a run" in capsys.readouterr().err
