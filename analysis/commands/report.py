"""sketchvar report: one self-contained HTML page for a folder."""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown
from sketchvar.analysis.commands.screen import Screen


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``report``."""

    runs: tuple[Path, ...] = options.runs()
    rate: float | None = options.rate()
    out: Path | None = options.out("RUN/report.html", "FILE")


def main(asked: Asked, screen: Screen) -> None:
    """Write the page, and say where it is."""
    import matplotlib as mpl

    from sketchvar.analysis.report.page import write_report

    mpl.use("agg")
    out = asked.out or asked.runs[0] / "report.html"
    write_report(asked.runs, out, asked.rate)
    screen.list_files("", [out])


COMMAND = Command(
    "report",
    "one HTML page for a folder: the verdict, figures, tables, provenance",
    (
        "Write one HTML page for a folder that any command or a Probe wrote, finished or not: the"
        " verdict in three sentences, figures and tables that sort, filter and download, what the"
        " words mean, provenance. Several runs, or costs, stand beside each other. It loads nothing"
        " from elsewhere, so that it can be sent and printed."
    ),
    Asked,
    main,
)
