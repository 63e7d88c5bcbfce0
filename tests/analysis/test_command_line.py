"""The command line: what it loads, what can be asked, what it writes and says, and one line with
the remedy for every mistake.
"""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import sketchvar
from sketchvar.analysis import records
from sketchvar.analysis.__main__ import COMMANDS, main, parser
from sketchvar.analysis.commands.command import flatten
from sketchvar.analysis.commands.option import read
from sketchvar.analysis.commands.options import EXAMPLES
from sketchvar.estimators import choices

QUICK = ["run", "--task", "digits-mlp", "--steps", "2", "--measure-at", "0", "2"]
QUICK += ["--estimators", "uniform-rows", "optimal-rows", "rounding:2", "--rates", "0.5", "0.1"]
FIGURES = ["ratio_by_layer", "ratio_through_training", "alpha_through_training", "noise_scale"]
ALL = dict(flatten(COMMANDS))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run."""
    out = tmp_path_factory.mktemp("command") / "run"
    assert main([*QUICK, "--out", str(out)]) == 0
    return out


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the figures, where a test is about something else: they take seconds."""

    def name(contents, folder):
        return [folder / f"{picture.name}.png" for picture in contents.pictures]

    monkeypatch.setattr("sketchvar.analysis.report.contents.draw", name)


# what is loaded


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["run", "--help"]])
def test_help_loads_neither_torch_nor_pictures(words):
    code = (
        "import sys; from sketchvar.analysis.__main__ import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'seaborn', 'scipy', 'sklearn', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_every_help_is_made_without_torch():
    code = (
        "import sys; from sketchvar.analysis.__main__ import COMMANDS, main\n"
        "from sketchvar.analysis.commands.command import flatten\n"
        "for words, _ in flatten(COMMANDS):\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--json") >= 2 * len(ALL)


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"sketchvar {sketchvar.__version__}\n"


# what can be asked


def test_an_option_means_the_same_everywhere():
    """The same flag has the same type, shape and habit in all commands."""
    seen = {}
    for words, command in ALL.items():
        for field in fields(command.asked):
            option = field.metadata["option"]
            name = option.flags[0] if option.flags else field.name
            about = {k: v for k, v in option.words.items() if k not in ("help", "metavar")}
            if name == "--precision":  # X can be kept in what nothing here trains in
                about.pop("choices")
            if name == "--out" and option.words["metavar"] == "FILE":
                assert field.default is None  # beside the run, which is what all others default to
                continue
            before = seen.setdefault(name, (words, about, option.section))
            assert before[1:] == (about, option.section), (name, words, before[0])
            if name in ("--device", "--seed", "--out", "--resume", "--json", "--quiet", "--task"):
                default = command.defaults.get(field.name, field.default)
                assert default in (seen.setdefault(f"{name} default", default), None), words


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_json_quiet_and_a_folder_that_goes_on(words):
    command = ALL[words]
    names = {field.name for field in fields(command.asked)}
    assert {"json", "quiet"} <= names
    if words not in {
        ("figures",),
        ("report",),
        ("plan",),
        ("verify",),
        ("estimators",),
        ("reproduce",),
    }:
        assert {"out", "resume"} <= names
    assert command.help and command.about.rstrip().endswith((".", "?"))


def test_options_are_read_once_into_a_frozen_dataclass():
    found = parser().parse_args(["train", "--rates", "0.5", "--set", "width=8", "--set", "depth=1"])
    asked = read(found.this.asked, found)
    assert asked.rates == (0.5,) and asked.seeds == (0, 1, 2)
    assert asked.settings == ("width=8", "depth=1")
    assert hash(asked)
    choices(EXAMPLES.split(", "))  # what the help shows can be read


@pytest.mark.parametrize(
    "words",
    [("run",), ("train",), ("truth",), ("frontier",), ("scores",), ("cost",), ("forks",)],
)
def test_any_field_of_a_task_can_be_set(words):
    typed = ["--task", "digits-mlp", "--batch-size", "9", "--set", "width=8", "betas=0.8,0.9"]
    found = parser().parse_args([*words, *typed, "--set", "warmup=none"])
    asked = read(found.this.asked, found)
    settings = (("batch_size", 9), ("betas", (0.8, 0.9)), ("warmup", None), ("width", 8))
    assert asked.list_changes() == settings
    task = asked.make_task()
    assert (task.width, task.betas, task.batch_size, task.warmup) == (8, (0.8, 0.9), 9, None)


# what it writes and says


def test_a_run_writes_rows_provenance_and_figures_and_prints_a_table(run, capsys):
    names = {f.name for f in run.iterdir()}
    wanted = [f"{f}.{kind}" for f in (*FIGURES, "closed_form_and_draws") for kind in ("png", "pdf")]
    assert names >= {"rows.parquet", "run.json", *wanted}
    assert all((run / f"{f}.png").stat().st_size > 10_000 for f in FIGURES)
    assert main(["figures", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "rate 0.1, step 2" in printed
    assert str(run / "ratio_by_layer.png") in printed
    assert re.search(r"bytes kept +– +– +10 % +10 % +[678]\.\d %", printed), printed
    assert "(oracle)" in printed


def test_the_rate_that_is_shown(run, undrawn, capsys):
    assert main(["figures", str(run), "--rate", "0.5"]) == 0
    assert "rate 0.5, step 2" in capsys.readouterr().out
    assert main(["figures", str(run), "--rate", "0.3"]) == 2
    assert "no rows at rate 0.3; measured were 0.1, 0.5" in capsys.readouterr().err


def test_bytes_kept_are_those_of_the_rows(run, undrawn, capsys):
    assert main(["figures", str(run), "--json"]) == 0
    lines = {line["layer"]: line for line in json.loads(capsys.readouterr().out)["ratio_by_layer"]}
    rows = records.read_rows(run / "rows.parquet")
    last = rows[(rows["step"] == 2) & rows["rate"].isin([0.1, 1.0])]
    for name, part in last.groupby("estimator"):
        share = part["kept_bytes"].sum() / (4 * part["rows"] * part["p"]).sum()
        assert lines["bytes kept"][name] == pytest.approx(share)
        total = part["variance"].sum() / part["minibatch_example"].sum()
        assert lines["all layers"][name] == pytest.approx(total)
        assert lines["2"][name] == part.set_index("layer")["ratio"]["2"]


def test_json_is_the_table_and_nothing_else(run, capsys):
    assert main(["figures", str(run), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {"ratio_by_layer", "files"} <= set(content)
    assert [line["layer"] for line in content["ratio_by_layer"]] == [
        "bytes kept", "0", "2", "4", "median", "all layers", "effective batch",
    ]  # fmt: skip
    assert all(Path(file).exists() for file in content["files"])


def test_quiet_says_nothing_but_the_table(run, undrawn, tmp_path, capsys):
    assert main([*QUICK, "--quiet", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "median" in out and "png" not in out


def test_tables_fit_eighty_columns(run, undrawn, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["figures", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("Figures (PNG, and PDF beside each):")]
    assert max(map(len, table)) <= 80 and not any("…" in line for line in lines)


def test_the_same_work_goes_on_and_any_other_is_refused(run, undrawn, tmp_path, capsys):
    before = records.read_rows(run / "rows.parquet")
    assert main([*QUICK, "--out", str(run)]) == 0
    assert "2 of 2 measured steps are there" in capsys.readouterr().err
    assert main([*QUICK, "--out", str(run), "--resume"]) == 0
    assert records.read_rows(run / "rows.parquet").equals(before)
    capsys.readouterr()
    assert main([*QUICK, "--seed", "1", "--out", str(run)]) == 2
    assert "holds a run with seed 0, not 1" in capsys.readouterr().err
    truth = ["truth", "--task", "digits-mlp", "--steps", "1", "--draws", "3"]
    assert main([*truth, "--out", str(run)]) == 2
    assert f"{run} holds a run, not a truth" in capsys.readouterr().err
    assert main([*QUICK, "--out", str(tmp_path / "new"), "--resume"]) == 2
    assert "there is nothing to resume in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").touch()
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sketchvar.analysis.study.study.run", stop)
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 2
    assert f"go on with --out {tmp_path / 'run'} --resume" in capsys.readouterr().err


# mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "stdlb-lm"], r"unknown task 'stdlb-lm'; did you mean 'stdlib-lm'\?"),
        (
            ["--estimators", "gausian"],
            r"unknown estimator 'gausian' in 'gausian'; did you mean 'gaussian'\?",
        ),
        (["--estimators", "rounding:3"], r"needs bits of 1, 2, 4 or 8, .*got bits=3"),
        (["--estimators", "gaussian:2"], r"0 < rate <= 1, got rate=2.0"),
        (["--estimators", "gaussian:0.1+rounding:4"], r"has no closed form to compare"),
        (["--estimators"], r"needs at least one estimator and one rate"),
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
        (["--width", "8"], r"unrecognized arguments: --width 8"),
        (["--stpes", "8"], r"unrecognized arguments: --stpes 8; did you mean --steps"),
        (["--set", "widht=8"], r"digits-mlp takes no widht; did you mean 'width'\? it has .*width"),
        (["--set", "width=x"], r"width of digits-mlp is a whole number, got 'x' in --set width=x"),
        (["--set", "betas=1"], r"betas of digits-mlp is 2 numbers with commas between them"),
        (["--set", "width"], r"--set takes a name and a value as in width=64, got 'width'"),
        (["--batch-size", "8", "--set", "batch_size=9"], r"batch_size is given twice, as 8 and as"),
        (["--depth", "3"], r"digits-mlp takes no depth; .*it has .*width"),
    ],
)
def test_wrong_words_are_one_line_that_ends_with_where_to_read(
    tmp_path, monkeypatch, capsys, words, says
):
    monkeypatch.chdir(tmp_path)
    try:
        status = main([*QUICK, *words])
    except SystemExit as done:  # argparse's own errors
        status = done.code
    assert status == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("sketchvar run: ") and error.endswith("see sketchvar run --help")
    assert re.search(says, error), error
    assert not (tmp_path / "runs").exists()


def test_other_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*QUICK, "--out", str(tmp_path / "file" / "x")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"^sketchvar run: cannot write to .*; choose another --out$", error)


def test_data_that_are_missing_are_found_out_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKETCHVAR_DATASETS", str(tmp_path))
    words = ["--task", "cifar10/vit", "--out", str(tmp_path / "out")]
    for command in ("run", "train", "truth", "scores", "frontier", "cost", "forks"):
        assert main([command, *words]) == 2
        error = capsys.readouterr().err
        assert "Training" not in error and "Measuring" not in error
        assert len(error.splitlines()) == 1, error
    assert not (tmp_path / "out").exists()


def test_bad_input_ends_the_process_without_a_traceback(tmp_path):
    words = [sys.executable, "-m", "sketchvar", *QUICK, "--rates", "1.5"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "got rate=1.5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["bench"], "SUBJECT"),
        (["bench", "probe", "--repeats", "2"], "see sketchvar bench probe --help"),
        (["paper", "score", "--reps", "2"], "see sketchvar paper score --help"),
    ],
)
def test_errors_name_the_command_they_are_of(words, says, capsys):
    try:
        status = main(words)
    except SystemExit as done:
        status = done.code
    assert status == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1


def test_estimators_are_listed(capsys):
    assert main(["estimators", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["estimators"]
    by_name = {line["estimator"]: line for line in lines}
    assert set(by_name) == set(sketchvar.estimators.CATALOG)
    assert by_name["uniform-rows"]["kept"] == pytest.approx(0.1, rel=1e-2)
    assert by_name["optimal-rows"]["oracle"] and by_name["top-rows"]["biased"]
    assert by_name["rounding:4"]["class"] == "StochasticRounding"
