"""sketchvar verify: does every estimator do what its closed form says?"""

from dataclasses import dataclass

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import WordError, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown, option
from sketchvar.analysis.commands.screen import Screen


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``verify``."""

    budget: float = option(
        "--budget",
        default=60.0,
        type=float,
        metavar="SECONDS",
        help="time for drawing; at least 1000 draws are made",
    )
    estimators: tuple[str, ...] = options.estimators((), " (default: the catalog)")
    seed: int = options.seed("of the pairs and of the draws")
    level: float = options.level(1e-3, "chance that a run rejects anything where all is right")


def main(asked: Asked, screen: Screen) -> int:
    """Check, print, and return 1 if something disagrees."""
    import torch

    from sketchvar.analysis.report import verify as report
    from sketchvar.analysis.verify import make_pairs, read, verify
    from sketchvar.estimators import CATALOG

    if not 0 < asked.level < 1:
        raise WordError(f"--level is a probability, got {asked.level:g}; write 0.001")
    if not asked.budget >= 0:
        raise WordError(f"--budget is in seconds, got {asked.budget:g}")
    with blame_words():
        estimators = read(asked.estimators or list(CATALOG))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these matrices are too small for more
    verdicts = []
    try:
        with screen.track("Drawing", {"estimator": len(estimators)}) as update:
            for verdict in verify(estimators, make_pairs(asked.seed), asked.seed, asked.budget):
                verdicts.append(verdict)
                update("estimator", len(verdicts))
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted after {len(verdicts)} of {len(estimators)} estimators; nothing to say"
        ) from None
    finally:
        torch.set_num_threads(threads)
    screen.show_table(report.tabulate_scores(verdicts, asked.level))
    wrong = report.complain(verdicts, asked.level)
    for line in (*report.describe(verdicts, asked.level), *(wrong or ("All agree.",))):
        screen.say(line)
    return 1 if wrong else 0


COMMAND = Command(
    "verify",
    "check every estimator against repeated draws on several kinds of pairs",
    (
        "Draw every estimator many times on pairs (X, Y) of several kinds, real activations among"
        " them, and compare the mean with XᵀY and the variance with its closed form. Prints"
        " z-scores; the exit code is 1 if any is beyond what chance allows."
    ),
    Asked,
    main,
)
