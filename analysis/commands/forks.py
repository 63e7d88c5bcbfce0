"""sketchvar forks: which batch of exact training each estimator is worth, by copies of a training
that go on from one state.
"""

from dataclasses import dataclass

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.cost import OfPoints
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder

# one of each kind: sums of rows, features, bits
FORKED = ("countsketch", "feature-rademacher", "rounding:1")


@dataclass(frozen=True)
class Asked(OfPoints):
    """The options of ``forks``."""

    estimators: tuple[str, ...] = options.estimators(FORKED)
    ahead: int = option(
        "--ahead", default=16, type=int, metavar="T", help="steps that every fork takes"
    )
    count: int = option(
        "--forks", default=4, type=int, metavar="K", help="forks of every method that are reported"
    )
    tuning: int = option(
        "--tuning",
        default=1,
        type=int,
        metavar="K",
        help="forks of every method and learning rate by which the best is found; one is quick, and"
        " can choose badly where losses are noisy",
    )
    fractions: tuple[float, ...] = option(
        "--fractions",
        default=(1.0, 0.5, 0.25, 0.125),
        type=float,
        nargs="*",
        metavar="F",
        help="train exactly on these fractions of the batch too: the scale that is read off",
    )
    factors: tuple[float, ...] = option(
        "--factors",
        default=(0.5, 1.0, 2.0),
        type=float,
        nargs="+",
        metavar="F",
        help="times the learning rate: those among which each method's best is sought",
    )
    draws: int = options.draws(4, "of the costs by which the end of the forks is predicted")
    backend: str = options.backend("forks are run")


def main(asked: Asked, screen: Screen) -> None:
    """Train, let forks go on, then show where they ended."""
    from sketchvar.analysis.cost.branches import ForkStudy, branch
    from sketchvar.analysis.noise.cost import OFTEN
    from sketchvar.analysis.sweep.workers import use_backend

    changes, device = asked.list_changes(), asked.pick_device()
    with blame_words():
        jobs = asked.count_jobs(device)
        study = ForkStudy(
            task=asked.task,
            steps=asked.length(),
            measure_at=asked.points(),
            device=device,
            seed=asked.seed,
            options=changes,
            estimators=asked.estimators,
            rates=asked.rates,
            plans=asked.read_plans(),
            ahead=asked.ahead,
            count=asked.count,
            tuning=asked.tuning,
            fractions=asked.fractions,
            factors=asked.factors,
            draws=asked.draws,
            curved=asked.curved,
        )
    out, last = asked.choose_folder("forks", asked.task), study.measure_at[-1]
    what = f"Training {asked.task} for {last} updates on {device}; forks go to {out}/forks.parquet"
    stages = {"train": last, "draw": OFTEN * asked.draws, "fork": study.least_forks()}
    with screen.track(what, stages, out) as update, use_backend(asked.backend):
        branch(study, out, True, jobs, update, screen.note)
    show_folder(out, screen)


COMMAND = Command(
    "forks",
    "read off which batch of exact training each estimator is worth, and test what predicts it",
    (
        "Train a task; from one state let copies go on with different batches and draws, paired by"
        " batch: exactly on fractions of the batch, and with every estimator, each at its own best"
        " learning rate. Reads off the effective batch with its interval, beside its predictions by"
        " variance, by cost, and by noise and progress joined. Every fork is kept: the same command"
        " goes on where it was stopped."
    ),
    Asked,
    main,
)
