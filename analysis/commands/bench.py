"""sketchvar bench: what things cost, as ratios inside one process."""

import argparse

from rich.console import Console
from rich.table import Table

from analysis import bench


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "bench",
        help="time and peak memory, as ratios inside one process",
        description="Measure time and peak memory side by side in one process and print their ratios.",
    )
    subjects = this.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    probe = subjects.add_parser(
        "probe",
        help="the cost of measuring a training step",
        description="A training step with the probe attached, by row and by example, over the plain step.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    probe.add_argument("--repeats", type=int, default=20, metavar="N", help="interleaved repeats of each step")
    probe.set_defaults(main=main_probe)


def main_probe(arguments: argparse.Namespace) -> None:
    """Print the table of the probe's cost."""
    if arguments.repeats < 3:
        raise ValueError(f"--repeats must be 3 or more for a median, got {arguments.repeats}")
    grid = Table("model", "level", "time", "interquartile", "peak memory", title="Ratio to the plain training step")
    for cost in bench.probe(arguments.repeats):
        interval = f"{cost.low:.3f}–{cost.high:.3f}"
        grid.add_row(cost.model, cost.level, f"{cost.time:.3f}", interval, f"{cost.memory:.3f}")
    Console().print(grid)
