"""sketchvar scores: how close layers that predict ‖y‖ come to the oracle that knows it."""

from dataclasses import dataclass

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import OfTask, OnDevice, ToFolder, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder


@dataclass(frozen=True)
class Asked(ToFolder, OnDevice, OfTask):
    """The options of ``scores``."""

    steps: int = options.steps(100, "updates before the comparison")
    rate: float = options.rate(0.1)
    batches: int = option(
        "--batches", default=8, type=int, metavar="N", help="new minibatches to compare on"
    )
    seed: int = options.seed()


def main(asked: Asked, screen: Screen) -> None:
    """Train and compare, then show what came."""
    from sketchvar.analysis.scores import Predicting, run

    changes, device = asked.list_changes(), asked.pick_device()
    with blame_words():
        predicting = Predicting(
            asked.task, asked.steps, asked.rate, asked.batches, device, asked.seed, changes
        )
    out = asked.choose_folder("scores", asked.task)
    what = (
        f"Training {asked.task} for {asked.steps} steps on {device}; rows go to"
        f" {out}/scores.parquet"
    )
    with screen.track(what, {"step": asked.steps}, out) as update:
        run(predicting, out, lambda step, loss: update("step", step, f"loss {loss:.3f}"))
    show_folder(out, screen)


COMMAND = Command(
    "scores",
    "how close layers that predict the size of Y's rows come to the oracle that knows it",
    (
        "Train a task with every linear layer on ScoredRows, which learns how large the rows of Y"
        " are by position. Then compare, layer by layer and on new minibatches, its variance with"
        " that of uniform rows, of norm-rows (X alone) and of optimal-rows (the oracle)."
    ),
    Asked,
    main,
)
