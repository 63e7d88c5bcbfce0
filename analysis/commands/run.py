"""sketchvar run: train a task, measure, write rows, figures and a table."""

from dataclasses import dataclass

from sketchvar.analysis.commands.asked import OfStudy
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder
from sketchvar.analysis.commands.training import train_study


@dataclass(frozen=True)
class Asked(OfStudy):
    """The options of ``run``."""


def main(asked: Asked, screen: Screen) -> None:
    """Run the study, then show it."""
    study, out = asked.make_study(), asked.choose_folder("run", asked.task)
    train_study(study, out, screen)
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
