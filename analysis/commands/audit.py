"""sketchvar audit: is a layer that stands in for nn.Linear biased, and how noisy is it?"""

from dataclasses import dataclass

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import ToFolder, WordError, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show


@dataclass(frozen=True)
class Asked(ToFolder):
    """The options of ``audit``."""

    layer: str = option(
        metavar="LAYER",
        help=(
            "package.module:factory, which gives a module, or (module, x, y), or (module, x, y,"
            " reference)"
        ),
    )
    rows: int = option(
        "--rows", default=256, type=int, metavar="N", help="of normal numbers, without x and y"
    )
    draws: int = options.draws(64, "calls of the layer, all held until the end")
    seed: int = options.seed("of the draws, and of x and y")
    level: float = options.level(1e-3, "chance that anything is called biased where nothing is")


def main(asked: Asked, screen: Screen) -> None:
    """Call the layer, compare, print."""
    from sketchvar.analysis.audit.run import Auditing, run
    from sketchvar.analysis.report.audit import describe

    if not 0 < asked.level < 1:
        raise WordError(f"--level is a probability, got {asked.level:g}; write 0.001")
    with blame_words():
        auditing = Auditing(asked.layer, asked.rows, asked.draws, asked.seed)
    out = asked.choose_folder("audit", asked.layer)
    show(describe(run(auditing, out), asked.level), out, screen, out / "audit.parquet")


COMMAND = Command(
    "audit",
    "is any layer that stands in for nn.Linear biased, and how noisy is it?",
    (
        "Call a layer (of FP8 or FP4, quantized, adapted, your own) many times at one input and"
        " compare its output and its gradients with nn.Linear of the same weight: bias² and"
        " variance with their errors, how the error falls as draws are averaged, and both beside"
        " the variance of the minibatch."
    ),
    Asked,
    main,
)
