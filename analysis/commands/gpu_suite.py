"""sketchvar gpu-suite: measure on a GPU everything that is claimed of one, within a time limit."""

import os
from dataclasses import dataclass

from sketchvar.analysis.commands.asked import OnDevice, ToFolder, WordError, blame_words
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder

PARTS = ("variance", "kernels", "layers", "probe", "profile", "memory", "redraw", "finetune")


@dataclass(frozen=True)
class Asked(ToFolder, OnDevice):
    """The options of ``gpu-suite``."""

    minutes: float = option(
        "--minutes", default=25.0, type=float, metavar="M", help="time for all parts together"
    )
    parts: tuple[str, ...] = option(
        "--parts", default=PARTS, nargs="+", metavar="P", help="which parts to run, in this order"
    )
    tiny: bool = option(
        "--tiny",
        default=False,
        action="store_true",
        help="every part at toy size, on any device: a test of the suite itself",
    )


def main(asked: Asked, screen: Screen) -> None:
    """Run the suite, then show it."""
    from sketchvar.analysis.gpu.scale import FULL, TINY
    from sketchvar.analysis.gpu.suite import name_device, run_suite
    from sketchvar.estimators.catalog import check_known

    device = asked.pick_device()
    if device == "cpu" and not asked.tiny:
        raise WordError(
            "gpu-suite needs a CUDA device and found none; --tiny runs every part at toy size on a"
            " CPU"
        )
    if asked.minutes <= 0:
        raise WordError(f"--minutes must be above 0, got {asked.minutes:g}")
    with blame_words():
        for part in asked.parts:
            check_known("part", part, PARTS)
    out = asked.choose_folder("gpu-suite", name_device(device))
    # the suite is what tells whether the kernels are right and worth it
    os.environ.setdefault("SKETCHVAR_KERNELS", "on")
    screen.folder = out
    screen.note(f"At most {asked.minutes:g} minutes on {device}; rows go to {out}")
    run_suite(TINY if asked.tiny else FULL, out, device, asked.minutes, asked.parts, screen.note)
    show_folder(out, screen)


COMMAND = Command(
    "gpu-suite",
    "measure on a GPU everything that is claimed of one",
    (
        "Run all measurements that need a GPU, most valuable first, within a time limit: variance"
        " through the training of a model of GPT-2's size, time and memory of layers, kernels"
        " against the hardware's limits, the probe's cost, memory and throughput of training,"
        " redrawn minibatches. Every part writes its rows as it goes, and the same command again"
        " goes on with what was not done. No network is needed."
    ),
    Asked,
    main,
)
