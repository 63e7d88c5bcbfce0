"""sketchvar frontier: which estimator gives the least variance for the bytes that can be spent."""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import OfTask, OnDevice, ToFolder, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder


@dataclass(frozen=True)
class Asked(ToFolder, OnDevice, OfTask):
    """The options of ``frontier``."""

    pair: Path | None = option(
        "--pair",
        type=Path,
        group="source",
        metavar="FILE",
        help=(
            "a .pt, .npz or .safetensors file with x and y: n × p and n × q, where a row is an"
            " example, or examples × length × p and × q"
        ),
    )
    run: Path | None = option(
        "--run",
        type=Path,
        group="source",
        metavar="RUN",
        help="the rows of a run that was made before",
    )
    layer: str | None = options.layer("all of the task, and the median over them")
    step: tuple[int, ...] | None = option(
        "--step",
        type=int,
        nargs="+",
        metavar="S",
        help="after so many updates (default: the task's own points)",
    )
    steps: int | None = options.steps(whose="updates of the whole training, as its schedule knows")
    estimators: tuple[str, ...] = options.estimators(
        (), " (default: the catalog, and rounding with rotation and centering)"
    )
    budgets: tuple[float, ...] = option(
        "--budgets",
        default=(0.5, 0.25, 0.125, 0.06, 0.03),
        type=float,
        nargs="+",
        metavar="B",
        help="fractions of X's bytes",
    )
    draws: int | None = options.draws(
        None,
        "draws behind a variance without a closed form (default: 32 for one pair or layer at one"
        " step, else 0, which leaves such estimators out)",
    )
    seed: int = options.seed()


def main(asked: Asked, screen: Screen) -> None:
    """Measure, then show the best for each budget."""
    from sketchvar.analysis.frontier.run import Comparison, run

    changes, device = asked.list_changes(), asked.pick_device()
    chosen = {"estimators": asked.estimators} if asked.estimators else {}
    with blame_words():
        comparison = Comparison(
            task=asked.task,
            options=changes,
            pair=str(asked.pair) if asked.pair else None,
            run=str(asked.run) if asked.run else None,
            layer=asked.layer,
            step=asked.step or (),
            steps=asked.steps,
            budgets=asked.budgets,
            draws=asked.draws,
            device=device,
            seed=asked.seed,
            **chosen,
        )
    out = asked.choose_folder("frontier", comparison.what)
    what = f"Measuring {comparison.what} on {device}; rows go to {out}/frontier.parquet"
    with screen.track(what, {"measured step": len(comparison.points)}, out) as update:
        run(comparison, out, lambda done, total: update("measured step", done))
    show_folder(out, screen)


COMMAND = Command(
    "frontier",
    "which estimator gives the least variance for the bytes that can be spent",
    (
        "Compare all estimators at equal kept bytes, indices, scales and seeds included: on a pair"
        " (X, Y) from a file, on one layer of a task, or in the median over all its layers and"
        " steps. Prints the best for each budget of bytes; writes frontier.parquet, frontier.json"
        " and a figure."
    ),
    Asked,
    main,
)
