"""sketchvar estimators: what can be compared, and what each keeps."""

from dataclasses import dataclass

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


def main(asked: Asked, screen: Screen) -> None:
    """List the catalog, or print its page."""
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
