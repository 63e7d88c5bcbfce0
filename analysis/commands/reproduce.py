"""sketchvar reproduce: make recorded results again, and compare."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.asked import WordError
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown, option
from sketchvar.analysis.commands.screen import Screen


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``reproduce``."""

    folder: Path = option(
        metavar="FOLDER", type=Path, help="recorded results, as data/cost/stdlib-lm"
    )
    out: Path | None = options.out("runs/reproduced/<folder>")
    level: float = options.level(0.01, "chance that a folder is rejected where all is right")


def main(asked: Asked, screen: Screen) -> int:
    """Run the commands, print what came out the same; returns 1 where something did not."""
    from sketchvar.analysis.report.reproduce import describe, tabulate
    from sketchvar.analysis.reproduce import compare, compare_places, reject, reproduce

    if not 0 < asked.level < 1:
        raise WordError(f"--level is a probability, got {asked.level:g}; write 0.01")
    if not asked.folder.is_dir():
        raise ValueError(f"there is no folder {asked.folder}; give one as data/cost/stdlib-lm")
    out = asked.out or Path("runs") / "reproduced" / asked.folder.resolve().name
    if asked.folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"--out {out} lies in what is to be made again; choose another")

    def run(words: list[str], root: Path) -> int:
        screen.say(f"sketchvar {' '.join(words)}")
        quiet = subprocess.DEVNULL if screen.as_json else None
        told = [sys.executable, "-m", "sketchvar", *words]
        return subprocess.run(told, cwd=root, stdout=quiet, check=False).returncode

    for words, code in reproduce(asked.folder, out, run):
        if code:
            raise ValueError(f"sketchvar {' '.join(words)} ended with exit code {code}")
    found = compare(asked.folder, out)
    screen.show_table(tabulate(found, asked.level))
    for line in describe(found, asked.level, compare_places(asked.folder, out)):
        screen.say(line)
    return 1 if reject(found, asked.level)[0] else 0


COMMAND = Command(
    "reproduce",
    "make a folder of recorded results again, by its README, and compare",
    (
        "Run the commands that made a folder, which stand in its README or in the one above, with"
        " another folder for what they write, and compare every table: which numbers are the same,"
        " and is the rest within its errors? The exit code is 1 where a difference is beyond what"
        " chance allows. An interrupted command goes on when this is run again."
    ),
    Asked,
    main,
)
