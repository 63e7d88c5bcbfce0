"""sketchvar ...: the only command line, also ``python -m sketchvar``."""

import argparse
import sys
from difflib import get_close_matches

import sketchvar
from sketchvar.analysis.commands import (
    audit,
    bench,
    cost,
    estimators,
    figures,
    forks,
    frontier,
    gpu_suite,
    paper,
    plan,
    report,
    reproduce,
    run,
    scores,
    train,
    truth,
    verify,
)
from sketchvar.analysis.commands.asked import WordError
from sketchvar.analysis.commands.command import Command, Group, Parser, add
from sketchvar.analysis.commands.config import read_config
from sketchvar.analysis.commands.option import read
from sketchvar.analysis.commands.screen import Screen

ABOUT = """\
How much noise does a random sketch of a layer's activations add to its weight
gradient, next to the noise of the minibatch? Train a task, measure both at
chosen steps in every linear layer, and draw the answer.

  sketchvar run                                 the default study: three minutes on two CPU cores
  sketchvar run --task digits-mlp --rates 0.5   another task, one rate
  sketchvar estimators                          what can be compared
  sketchvar plan runs/NAME --memory 0.25        which estimator at which rate for which layer
  sketchvar cost                                what an estimator's noise takes from training
  sketchvar train --task digits-mlp             train with every estimator, beside the baselines
  sketchvar figures runs/NAME                   tables and figures of a folder again
"""
COMMANDS: tuple[Command | Group, ...] = (
    run.COMMAND,
    train.COMMAND,
    paper.COMMAND,
    frontier.COMMAND,
    plan.COMMAND,
    cost.COMMAND,
    forks.COMMAND,
    figures.COMMAND,
    report.COMMAND,
    reproduce.COMMAND,
    truth.COMMAND,
    verify.COMMAND,
    audit.COMMAND,
    scores.COMMAND,
    bench.COMMAND,
    gpu_suite.COMMAND,
    estimators.COMMAND,
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog="sketchvar", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"sketchvar {sketchvar.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        add(commands, command)
    return top


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code: what the command says, 0, or 2 after a one-line
    error.
    """
    words = sys.argv[1:] if words is None else words
    found, unknown = parser().parse_known_args(words)
    if not unknown and (config := getattr(found, "config", None)):
        try:
            typed = read_config(config, found.this.asked)
        except ValueError as error:
            found.parser.error(str(error))
        found, unknown = parser().parse_known_args([*words[:1], *typed, *words[1:]])
    if unknown:
        near = get_close_matches(unknown[0], found.parser._option_string_actions, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        found.parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    asked = read(found.this.asked, found)
    screen = Screen(asked.quiet, asked.json)
    try:
        status = found.this.main(asked, screen) or 0
        screen.close()
        return status
    except WordError as error:
        end = "" if str(error).endswith("?") else ";"
        message = f"{error}{end} see {found.parser.prog} --help"
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "interrupted"
        if screen.folder is not None:
            message += f"; what was measured is kept, go on with --out {screen.folder} --resume"
    print(f"{found.parser.prog}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
