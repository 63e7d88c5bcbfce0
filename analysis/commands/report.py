"""sketchvar report: one self-contained HTML page for a run."""

import argparse
from pathlib import Path

import matplotlib as mpl

from sketchvar.analysis import records
from sketchvar.analysis.commands import Help
from sketchvar.analysis.report.page import report


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "report",
        help="one HTML page for a run: tables, figures, plan, provenance",
        description=(
            "Write one HTML page for a run, finished or not: ratios, figures, noise scale,"
            " coverage, the plan if there is one, and provenance. It loads nothing from elsewhere,"
            " so that it can be sent and printed."
        ),
        formatter_class=Help,
    )
    this.add_argument(
        "run", type=Path, metavar="RUN", help="the folder of a run, or of files that a Probe wrote"
    )
    this.add_argument(
        "--rate", type=float, metavar="R", help="the rate to show (default: 0.1, or the smallest)"
    )
    this.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write (default: RUN/report.html)"
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    a = arguments
    out = a.out or a.run / "report.html"
    mpl.use("agg")
    page = report(a.run, a.rate)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    records.atomically(out, lambda part: part.write_text(page, encoding="utf-8"))
    print(out)
