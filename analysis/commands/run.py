"""sketchvar run: train a task, measure, write rows, figures and a table."""

from dataclasses import dataclass

from sketchvar.analysis.commands.asked import OfStudy
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder


@dataclass(frozen=True)
class Asked(OfStudy):
    """The options of ``run``."""


def main(asked: Asked, screen: Screen) -> None:
    """Run the study, then show it."""
    from sketchvar.analysis.study.study import run

    study, out = asked.study(), asked.folder("run", asked.task)
    asked.made().provenance()  # reads the data: what is wrong with it shows before training
    screen.start(
        out,
        f"Training {study.task} for {study.steps} steps on {study.device}; rows go to"
        f" {out}/rows.parquet",
    )
    with screen.progress({"step": study.steps}) as update:
        run(study, out, True, lambda step, loss: update("step", step, f"loss {loss:.3f}"))
    show_folder(out, screen)


COMMAND = Command(
    "run",
    (
        "train a task and compare, layer by layer, each estimator's variance with the minibatch"
        " variance"
    ),
    (
        "Train a task. At chosen steps measure, in every linear layer, the variance of its weight"
        " gradient over minibatches and the variance that each estimator would add. Writes"
        " rows.parquet, run.json and figures."
    ),
    Asked,
    main,
)
