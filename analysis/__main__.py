"""python -m analysis ...: the only command line (installed as `sketchvar`)."""

import argparse
import sys
from typing import NoReturn

from sketchvar.analysis.commands import (
    bench,
    figures,
    frontier,
    gpu_suite,
    paper,
    plan,
    report,
    run,
    scores,
    train,
    truth,
    verify,
)

ABOUT = """\
How much noise does a random sketch of a layer's activations add to its weight gradient, next to the noise of the
minibatch? Train a task, measure both at chosen steps in every linear layer, and draw the answer.

  sketchvar run                                  the default study: three minutes on two CPU cores
  sketchvar run --task digits-mlp --rates 0.5    another task, one rate
  sketchvar train --task digits-mlp              train with every estimator, beside exact training and a smaller batch
  sketchvar paper variance                       a figure of the paper, corrected; or a question of its reviewers
  sketchvar figures runs/NAME                    draw a run's figures and table again
  sketchvar report runs/NAME                     one HTML page: tables, figures, plan, provenance
  sketchvar truth                                are the closed forms true? Against minibatches actually redrawn
  sketchvar frontier                             the least variance for the bytes that can be spent
  sketchvar plan runs/NAME --memory 0.25         which estimator at which rate for which layer
  sketchvar verify                               every estimator against repeated draws: a minute
  sketchvar scores                               how close layers that predict ‖y‖ come to the oracle
  sketchvar bench probe                          what measuring costs, as ratios to the plain step
  sketchvar bench layer                          time of layers that train with an estimator, over nn.Linear
  sketchvar bench memory                         peak memory of training with them
  sketchvar gpu-suite                            all that is claimed of a GPU, measured on one
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all other errors here do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line; every module in ``analysis.commands`` adds its own."""
    top = Parser(
        prog="sketchvar", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (
        run,
        train,
        paper,
        frontier,
        plan,
        figures,
        report,
        truth,
        verify,
        scores,
        bench,
        gpu_suite,
    ):
        command.add(commands)
    return top


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after a one-line error."""
    arguments = parser().parse_args(words)
    try:
        return arguments.main(arguments) or 0
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"sketchvar {arguments.command}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            f"sketchvar {arguments.command}: interrupted; what was measured is kept",
            file=sys.stderr,
        )
    return 2


if __name__ == "__main__":
    sys.exit(main())
