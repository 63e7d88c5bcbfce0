"""sketchvar estimators: what can be compared, and what each keeps."""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown, option
from sketchvar.analysis.commands.screen import Screen


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``estimators``."""

    rate: float = options.rate(0.1)
    markdown: bool = option(
        "--markdown",
        default=False,
        action="store_true",
        help="print the page of all estimators instead: estimators/README.md",
    )
    pictures: Path | None = option(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="write a small picture of each instead, as that page shows them",
    )


def main(asked: Asked, screen: Screen) -> None:
    """List the catalog, or print its page, or draw it."""
    if asked.pictures:
        from sketchvar.analysis.report.glyphs import write_pictures

        screen.list_files("", write_pictures(asked.pictures))
        return
    if asked.markdown:
        from sketchvar.analysis.report.cards import write_page

        print(write_page(), end="")
        return
    from sketchvar.analysis.report.estimators import list_estimators

    screen.show_table(list_estimators(asked.rate))


COMMAND = Command(
    "estimators",
    "every estimator by name, what it keeps, and whether it is unbiased",
    (
        "List the estimators by name: what each keeps of X in bytes, whether it is unbiased, an"
        " oracle or without a closed form, and its class in sketchvar."
    ),
    Asked,
    main,
)
