"""sketchvar cost: what an estimator's noise takes from training, beside the minibatch's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import OfTask, OnDevice, ToFolder, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder

if TYPE_CHECKING:
    from sketchvar.estimators.planned import Layers

COSTED = (
    "gaussian",
    "countsketch",
    "centered(countsketch)",
    "uniform-rows",
    "feature-rademacher",
    "rounding:1",
    "rounding:2",
)


@dataclass(frozen=True)
class OfPoints(ToFolder, OnDevice, OfTask):
    """What trains a task and stands still on the way."""

    steps: int | None = options.steps(whose="length of the training, as its schedule knows it")
    measure_at: tuple[int, ...] | None = options.measure_at(
        "stand still after so many updates, 1 to N (default: a third of them)"
    )
    estimators: tuple[str, ...] = options.estimators(
        COSTED, "; catalog: all that a layer can use, the frontier of cost against bytes"
    )
    rates: tuple[float, ...] = options.rates(0.1)
    plans: tuple[Path, ...] = options.plans("measure")
    curved: int = option(
        "--curvature-batches",
        default=1,
        type=int,
        metavar="N",
        help="batches that have the curvature of each draw: 4 for long horizons",
    )
    jobs: int | None = options.processes("draws, and forks, at a time")
    seed: int = options.seed()

    def length(self) -> int:
        """Updates of the whole training."""
        return self.make_task().steps if self.steps is None else self.steps

    def read_plans(self) -> "tuple[tuple[str, Layers], ...]":
        """Names, layers and spellings of its plans. Raises ValueError for what is none."""
        from sketchvar.analysis.plan.plan import name_plan

        return tuple(name_plan(file) for file in self.plans)

    def points(self) -> tuple[int, ...]:
        """Where to stand still."""
        return self.measure_at or (max(1, self.length() // 3),)

    def count_jobs(self, device: str) -> int:
        """How many processes measure. Raises ValueError for less than one."""
        import joblib

        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs must be 1 or more, got {self.jobs}")
        return self.jobs or (joblib.cpu_count() if device == "cpu" else 1)


@dataclass(frozen=True)
class Asked(OfPoints):
    """The options of ``cost``."""

    horizons: tuple[int, ...] = option(
        "--horizons",
        default=(1, 10),
        type=int,
        nargs="+",
        metavar="T",
        help=(
            "steps after which noise is priced, 0 for those that are left; for ever too, unless it"
            " is one step alone. Long ones take long: 30 steps twice as many products as 10"
        ),
    )
    draws: int = options.draws(24, "of each estimator's noise, and three times of the minibatch's")
    curvature: str = option(
        "--curvature",
        default="gauss-newton",
        choices=["gauss-newton", "kicks", "hessian"],
        help="how the curvature of one step is measured",
    )
    agree: tuple[str, ...] = option(
        "--agree",
        nargs="+",
        default=(),
        choices=["gauss-newton", "kicks", "hessian"],
        help="measure one step by these curvatures too, of the same draws: do they agree?",
    )
    nodes: int | None = option(
        "--nodes",
        type=int,
        metavar="N",
        help="products with the curvature for each draw (default: what the longest horizon needs)",
    )
    coherent: tuple[str, ...] = option(
        "--one-seed",
        default=("uniform-rows",),
        nargs="*",
        metavar="E",
        help="estimators that are also drawn with one seed for all layers",
    )
    coherence: bool = option(
        "--coherence",
        default=False,
        action="store_true",
        help="measure that of every estimator too, and not of the minibatch and --one-seed alone",
    )
    layers: bool = option(
        "--by-layer",
        default=False,
        action="store_true",
        help="measure every linear layer by itself too",
    )


def main(asked: Asked, screen: Screen) -> None:
    """Train, measure at every point, then show it."""
    from sketchvar.analysis.cost.study import CostStudy, measure
    from sketchvar.analysis.noise.cost import OFTEN

    changes, device = asked.list_changes(), asked.pick_device()
    with blame_words():
        jobs = asked.count_jobs(device)
        study = CostStudy(
            task=asked.task,
            steps=asked.length(),
            measure_at=asked.points(),
            device=device,
            seed=asked.seed,
            options=changes,
            estimators=spell_out(asked.estimators),
            rates=asked.rates,
            plans=asked.read_plans(),
            horizons=asked.horizons,
            draws=asked.draws,
            curvature=asked.curvature,
            nodes=asked.nodes,
            coherent=asked.coherent,
            layers=asked.layers,
            curved=asked.curved,
            coherence=asked.coherence,
            agree=asked.agree,
        )
    out, last = asked.choose_folder("cost", asked.task), study.measure_at[-1]
    what = f"Training {asked.task} for {last} updates on {device}; costs go to {out}/cost.parquet"
    draws = OFTEN * asked.draws * len(study.measure_at)
    with screen.track(what, {"train": last, "draw": draws}, out) as update:
        measure(study, out, True, update, jobs, screen.note)
    show_folder(out, screen)


def spell_out(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, with all that a layer can use in place of "catalog"."""
    from sketchvar.analysis.frontier.rows import ESTIMATORS
    from sketchvar.estimators.choice import choose

    if "catalog" not in names:
        return names
    usable = [name for name in ESTIMATORS if not choose(name, 1.0).oracle]
    return (*usable, *(name for name in names if name != "catalog" and name not in usable))


COMMAND = Command(
    "cost",
    "measure what an estimator's noise takes from training, beside the minibatch's own",
    (
        "Train a task, and at chosen steps draw the noise of minibatches and of every estimator,"
        " and measure what each takes from the decrease of the loss: over one step and over longer"
        " horizons, by the curvature and the optimizer's own steps. Writes cost.parquet,"
        " cost-layers.parquet (with --by-layer), agreement.parquet (with --agree),"
        " coherence.parquet, run.json and figures. The whole catalog, in half an hour: cost"
        " --estimators catalog --rates 0.5 0.25 0.1 0.05 --horizons 10 --draws 4."
    ),
    Asked,
    main,
)
