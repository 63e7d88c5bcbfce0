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
    draws: int = options.draws(400, "minibatches to redraw; as many again go to the closed forms")
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
    with blame_words():
        redraws = Redraws(
            asked.task, steps, asked.draws, asked.estimator, device, asked.seed, changes
        )
    out = asked.choose_folder("truth", asked.task)
    what = f"Training {asked.task} for {steps} steps on {device}; rows go to {out}/truth.parquet"
    with screen.track(what, {"train": steps, "draw": 2 * asked.draws}, out) as update:
        run(redraws, out, True, update)
    show(read(out, level=asked.level), out, screen, out / "truth.parquet")


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
