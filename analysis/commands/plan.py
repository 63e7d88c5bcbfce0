"""sketchvar plan: which estimator at which rate for which layer, for a memory budget or a noise
budget.
"""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import WordError
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
        group="budget",
        metavar="F",
        help="keep at most this fraction of the layers' inputs",
    )
    noise: float | None = option(
        "--noise",
        type=float,
        group="budget",
        metavar="R",
        help="a total of the objective of at most this",
    )
    formats: bool = option(
        "--formats",
        default=False,
        action="store_true",
        help=(
            "choose among NVFP4, MXFP4, FP8 and BF16 alone: which layers may be FP4 (default"
            " budget: the bytes of the published recipe, the last 15 %% of blocks in BF16)"
        ),
    )
    objective: str = option(
        "--objective",
        default="sum",
        choices=["sum", "largest", "metric", "cost"],
        help=(
            "what is made small: the ratio to the minibatch variance, summed over layers or of the"
            " largest one; the same in the optimizer's metric; or the cost (RUN is of cost"
            " --by-layer)"
        ),
    )
    horizon: float | None = options.horizon()
    from_step: int = option(
        "--from-step",
        default=0,
        type=int,
        metavar="S",
        help="use measured steps from here on (default: all)",
    )
    hold_out: tuple[int, ...] | None = option(
        "--hold-out",
        nargs="*",
        type=int,
        metavar="S",
        help="steps that the plan is scored on and not chosen on (default: every second one)",
    )
    layers: str | None = option(
        "--layers",
        metavar="P",
        help=(
            "pattern of the layers that are planned (default: all but those that see one row of an"
            " example where others see several)"
        ),
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
    given = asked.memory, asked.noise
    if given == (None, None) and not asked.formats:
        raise WordError("one of the arguments --memory --noise is required, but for --formats")
    budget = None if given == (None, None) else Budget(*given)
    make_plan(
        asked.run, budget, out, asked.from_step, asked.exact, asked.precision,
        objective=asked.objective, horizon=asked.horizon, layers=asked.layers,
        hold_out=asked.hold_out, formats=asked.formats,
    )  # fmt: skip
    show(read_plan(out), out.parent, screen, out)


COMMAND = Command(
    "plan",
    "which estimator at which rate for which layer, for a memory budget or a noise budget",
    (
        "From the rows of a run, choose an estimator and a rate for every layer: the least noise"
        " for a budget of bytes, or the fewest bytes for a budget of noise; on some of its steps,"
        " scored on the others. Prints the plan beside the best single choice and uniform rows;"
        " writes plan.json (for sketch_linears(model, load_plan(...)) of sketchvar) and a figure."
    ),
    Asked,
    main,
)
