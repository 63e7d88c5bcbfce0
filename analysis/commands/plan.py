"""sketchvar plan: which estimator at which rate for which layer, for a memory budget or a noise
budget.
"""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown, option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``plan``."""

    run: Path = options.run()
    memory: float | None = option(
        "--memory",
        type=float,
        group="budget!",
        metavar="F",
        help="keep at most this fraction of the layers' inputs",
    )
    noise: float | None = option(
        "--noise",
        type=float,
        group="budget!",
        metavar="R",
        help="add at most this ratio to the minibatch variance",
    )
    from_step: int = option(
        "--from-step",
        default=0,
        type=int,
        metavar="S",
        help="average over measured steps from here on (default: all)",
    )
    exact: tuple[str, ...] = option(
        "--exact",
        default=(),
        nargs="+",
        metavar="NAME",
        help="layers that stay exact: names, or patterns as head*",
    )
    precision: str | None = options.precision(
        "in which X is kept (default: that of the run)", "float16"
    )
    out: Path | None = options.out("RUN/plan.json", "FILE")


def main(asked: Asked, screen: Screen) -> None:
    """Plan, show the plan and its figure, and say where they are."""
    from sketchvar.analysis.plan.make import Budget, make_plan
    from sketchvar.analysis.report.plan import read_plan

    out = asked.out or asked.run / "plan.json"
    budget = Budget(asked.memory, asked.noise)
    make_plan(asked.run, budget, out, asked.from_step, asked.exact, asked.precision)
    show(read_plan(out), out.parent, screen, out)


COMMAND = Command(
    "plan",
    "which estimator at which rate for which layer, for a memory budget or a noise budget",
    (
        "From the rows of a run, choose an estimator and a rate for every layer: the least variance"
        " for a budget of bytes, or the fewest bytes for a budget of variance. Prints the plan"
        " beside the best single choice and uniform rows; writes plan.json (for"
        " sketch_linears(model, load_plan(...)) of sketchvar) and a figure."
    ),
    Asked,
    main,
)
