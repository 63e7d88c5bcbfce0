"""sketchvar bench: what things cost, as ratios inside one process."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import OfTask, OnDevice, ToFolder, WordError
from sketchvar.analysis.commands.command import Command, Group
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder

if TYPE_CHECKING:
    import pandas as pd

SHAPES = ((8192, 768, 3072), (8192, 768, 768), (2048, 192, 768), (64, 64, 16, 128, 3))


def read_shape(text: str) -> tuple[int, ...]:
    """Rows, p and q of "8192,768,3072", or the five numbers of a convolution."""
    try:
        shape = tuple(map(int, text.split(",")))
    except ValueError:
        shape = ()
    if len(shape) not in (3, 5) or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            "a shape is three numbers, rows,inputs,outputs as in 8192,768,3072, or of a convolution"
            f" images,channels,side,outputs,kernel as in 64,64,16,128,3; got {text}"
        )
    return shape


@dataclass(frozen=True)
class AskedProbe(ToFolder):
    """The options of ``bench probe``, which is about a CPU."""

    repeats: int = options.repeats(5, "so many times ten steps of each loop")


@dataclass(frozen=True)
class AskedLayer(ToFolder, OnDevice):
    """The options of ``bench layer``."""

    estimators: tuple[str, ...] = options.estimators((), " (default: all that a layer can take)")
    rates: tuple[float, ...] = options.rates(0.5, 0.1)
    shapes: tuple[tuple[int, ...], ...] = option(
        "--shapes",
        default=SHAPES,
        nargs="+",
        type=read_shape,
        metavar="N,P,Q",
        help=(
            "rows, inputs, outputs of a layer; or images, channels, side, outputs, kernel of a"
            " convolution"
        ),
    )
    repeats: int = options.repeats(15, "interleaved pairs for each median")


@dataclass(frozen=True)
class AskedStep(ToFolder, OnDevice, OfTask):
    """The options of ``bench step``."""

    estimators: tuple[str, ...] = options.estimators(("rounding:2",))
    rates: tuple[float, ...] = options.rates(0.5, 0.1)
    repeats: int = options.repeats(15, "interleaved pairs for each median")


@dataclass(frozen=True)
class AskedMemory(ToFolder, OnDevice):
    """The options of ``bench memory``."""

    estimators: tuple[str, ...] = options.estimators(("uniform-rows", "countsketch"))
    rates: tuple[float, ...] = options.rates(0.5, 0.1)
    depth: int = options.depth(12, "--layers")
    batch: tuple[int, ...] = option(
        "--batch",
        default=(128,),
        nargs="+",
        type=int,
        metavar="N",
        help="examples; 128 × 128 tokens need 20 GB",
    )
    length: int = option(
        "--length", default=128, type=int, metavar="N", help="tokens of an example"
    )
    shape: str = option(
        "--shape",
        default="roberta-base",
        choices=["roberta-base", "gpt2-small"],
        help="of the model; a language model has a loss of every token",
    )
    repeats: int = options.repeats(0, "steps of each that are timed too, beside its peak")


def measure_probe(asked: AskedProbe, out: Path, screen: Screen) -> None:
    """Measure what the probe costs. Raises WordError for too few repeats."""
    from sketchvar.analysis.bench.probe import time_probes

    if asked.repeats < 3:
        raise WordError(f"--repeats must be 3 or more for a median, got {asked.repeats}")
    record(
        "probe", {"repeats": asked.repeats}, "cpu", out, screen,
        lambda progress: time_probes(asked.repeats, progress),
    )  # fmt: skip


def measure_layer(asked: AskedLayer, out: Path, screen: Screen) -> None:
    """Measure the time of layers."""
    from sketchvar.analysis.bench.layer import time_layers

    a, device = asked, asked.pick_device()
    what = {name: asdict(a)[name] for name in ("estimators", "rates", "shapes", "repeats")}
    record(
        "layer", what, device, out, screen,
        lambda progress: time_layers(
            a.estimators, a.rates, a.shapes, a.repeats, device, progress=progress
        ),
    )  # fmt: skip


def measure_step(asked: AskedStep, out: Path, screen: Screen) -> None:
    """Measure the time and memory of whole training steps."""
    from sketchvar.analysis.bench.step import time_steps

    a, device, task = asked, asked.pick_device(), asked.make_task()
    what = {name: asdict(a)[name] for name in ("task", "estimators", "rates", "repeats")}
    record(
        "step", what | {"options": a.list_changes()}, device, out, screen,
        lambda progress: time_steps(
            a.task, task, a.estimators, a.rates, a.repeats, device, progress=progress
        ),
    )  # fmt: skip


def measure_memory(asked: AskedMemory, out: Path, screen: Screen) -> None:
    """Measure the peak memory of training steps. Raises WordError for repeats below none."""
    from sketchvar.analysis.bench import memory

    if asked.repeats < 0:
        raise WordError(f"--repeats must be 0 or more, got {asked.repeats}")
    a, device = asked, asked.pick_device()
    what = {name: asdict(a)[name] for name in ("estimators", "rates", "depth", "batch", "length")}
    if a.shape != "roberta-base":  # folders from before there were others go on
        what["shape"] = a.shape
    if a.repeats:
        what["repeats"] = a.repeats
    record(
        "memory", what, device, out, screen,
        lambda progress: memory.measure_memory(
            a.estimators, a.rates, a.depth, a.batch, a.length, device, a.repeats, a.shape, progress
        ),
    )  # fmt: skip


def record(
    subject: str,
    what: dict[str, Any],
    device: str,
    out: Path,
    screen: Screen,
    tables: "Callable[[Callable[[int, int], None]], Iterator[pd.DataFrame]]",
) -> None:
    """Write the tables of a bench as they grow, with a progress bar."""
    import torch

    from sketchvar.analysis import claim, records

    begin = f"Measuring on {device}; rows go to {out}/{subject}.parquet"
    with screen.track(begin, {"measured": None}, out) as update:
        growing = tables(lambda done, total: update("measured", done, total=total))
        origin = records.provenance(torch.device(device))
        asked = what | {"device": device}
        claim.record(out, f"bench {subject}", asked, origin, f"{subject}.parquet", growing)


def make_main(measure: Callable[[Any, Path, Screen], None], name: str) -> Callable[..., None]:
    """What a bench does: measure, then show its folder."""

    def main(asked: Any, screen: Screen) -> None:
        out = asked.choose_folder("bench", name)
        measure(asked, out, screen)
        show_folder(out, screen)

    return main


COMMAND = Group(
    "bench",
    "time and peak memory, as ratios inside one process",
    "Measure time and peak memory side by side in one process and print their ratios.",
    "subject",
    (
        Command(
            "probe",
            "the cost of measuring a training step",
            "A training step with the probe attached, by row and by example, over the plain step.",
            AskedProbe,
            make_main(measure_probe, "probe"),
        ),
        Command(
            "layer",
            "time of layers that train with an estimator, over nn.Linear",
            "Measure the time of layers that train with an estimator, over nn.Linear or nn.Conv2d,"
            " and what a step asks for: memory, passes over it, random numbers.",
            AskedLayer,
            make_main(measure_layer, "layer"),
        ),
        Command(
            "step",
            "time and memory of a task's training step, over the exact step",
            "Measure a task's whole training step with an estimator in its linear layers: time over"
            " the exact step, peak memory, and what autograd holds for backward.",
            AskedStep,
            make_main(measure_step, "step"),
        ),
        Command(
            "memory",
            "peak memory of training steps of RoBERTa-base's or GPT-2's shape, over the plain step",
            "Measure the peak memory of training steps of RoBERTa-base's or GPT-2 small's shape,"
            " over the plain step, with activation checkpointing and without; with --repeats the"
            " time too.",
            AskedMemory,
            make_main(measure_memory, "memory"),
        ),
    ),
)
