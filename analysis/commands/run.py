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
    """Run the study, by all processes of torchrun where it started several, then show it."""
    from sketchvar.analysis.torchrun import join

    study = asked.make_study()
    with join() as ranks:
        if not ranks.first:
            screen.quiet, screen.as_json = True, False
        out = ranks.hear_first(lambda: asked.choose_folder("run", asked.task))
        train_study(study, out, screen)
        if ranks.first:
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
        " rows.parquet, run.json and figures. On several GPUs or machines: torchrun"
        " --nproc-per-node=2 -m sketchvar run ..., which divides every batch among the processes."
    ),
    Asked,
    main,
)
