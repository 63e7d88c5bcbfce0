"""sketchvar truth: redraw minibatches and say, layer by layer, whether the closed forms of their
variance are true.
"""

from dataclasses import dataclass

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import OfTask, OnDevice, ToFolder, WordError, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.options import EXAMPLES
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show


@dataclass(frozen=True)
class Asked(ToFolder, OnDevice, OfTask):
    """The options of ``truth``."""

    steps: int | None = options.steps(whose="updates before freezing")
    draws: int | None = options.draws(
        None, "minibatches to redraw; as many again go to the closed forms (default: 400, or 200)"
    )
    intervals: bool = option(
        "--intervals",
        default=False,
        action="store_true",
        help=(
            "instead, say how often ± 1.96 standard errors hold the truth, of 1, 2, 4 and 8"
            " batches, as --batches of run averages them"
        ),
    )
    level: float = options.level(0.01, "joint level: how often true forms may be called wrong")
    estimator: str | None = option(
        "--estimator",
        metavar="E",
        help=(
            "also set this estimator's closed form beside its own draws on one batch, with its rate"
            f" or bits: {EXAMPLES}"
        ),
    )
    seed: int = options.seed()


def main(asked: Asked, screen: Screen) -> None:
    """Train, freeze, redraw; then show both."""
    from sketchvar.analysis.report.truth import read
    from sketchvar.analysis.truth.redraws import Redraws, run

    if not 0 < asked.level < 1:
        raise WordError(f"--level must lie between 0 and 1, got {asked.level:g}")
    changes, device = asked.list_changes(), asked.pick_device()
    steps = asked.make_task().steps if asked.steps is None else asked.steps
    if asked.intervals:
        check_intervals(asked, steps, screen)
        return
    draws = 400 if asked.draws is None else asked.draws
    with blame_words():
        redraws = Redraws(asked.task, steps, draws, asked.estimator, device, asked.seed, changes)
    out = asked.choose_folder("truth", asked.task)
    what = f"Training {asked.task} for {steps} steps on {device}; rows go to {out}/truth.parquet"
    with screen.track(what, {"train": steps, "draw": 2 * draws}, out) as update:
        run(redraws, out, True, update)
    show(read(out, level=asked.level), out, screen, out / "truth.parquet")


def check_intervals(asked: Asked, steps: int, screen: Screen) -> None:
    """Train, freeze, draw; then show how often intervals hold the truth."""
    from sketchvar.analysis.report.intervals import read
    from sketchvar.analysis.truth.intervals import Intervals, run

    device, draws = asked.pick_device(), 200 if asked.draws is None else asked.draws
    with blame_words():
        if asked.estimator is not None:
            raise ValueError("--intervals has estimators of its own; leave out --estimator")
        intervals = Intervals(
            asked.task,
            steps,
            draws,
            device=device,
            seed=asked.seed,
            options=asked.list_changes(),
        )
    out = asked.choose_folder("intervals", asked.task)
    what = (
        f"Training {asked.task} for {steps} steps on {device}; rows go to {out}/intervals.parquet"
    )
    with screen.track(what, {"train": steps, "draw": draws}, out) as update:
        run(intervals, out, True, update)
    show(read(out), out, screen, out / "intervals.parquet")


COMMAND = Command(
    "truth",
    "check the closed forms of the minibatch variance against minibatches actually redrawn",
    (
        "Train a task for some steps, freeze the weights and draw many minibatches. Prints, layer"
        " by layer, the sample variance of the gradient, and how far the closed forms by row and by"
        " example are from it. Writes truth.parquet (as it goes), run.json and a figure."
    ),
    Asked,
    main,
)
