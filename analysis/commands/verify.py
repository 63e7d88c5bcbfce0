"""sketchvar verify: does every estimator do what its closed form says?"""

import argparse

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sketchvar.analysis.commands import Help
from sketchvar.analysis.verify import LEVEL, Verdict, find_bound, make_pairs, read, verify
from sketchvar.estimators.catalog import CATALOG
from sketchvar.estimators.spelling import EXAMPLES

BUDGET = 60.0
POWER = 3.1  # standard errors beyond the bound at which an error is seen with probability 0.999


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "verify",
        help="check every estimator against repeated draws on several kinds of pairs",
        description=(
            "Draw every estimator many times on pairs (X, Y) of several kinds, real activations"
            " among them, and compare the mean with XᵀY and the variance with its closed form."
            " Prints z-scores; the exit code is 1 if any is beyond what chance allows."
        ),
        formatter_class=Help,
    )
    this.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        metavar="SECONDS",
        help="time for drawing; at least 1000 draws are made",
    )
    this.add_argument(
        "--estimators",
        nargs="+",
        default=list(CATALOG),
        metavar="E",
        help=f"which to check: {EXAMPLES}, or a name (default: the catalog)",
    )
    this.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the pairs and of the draws"
    )
    this.add_argument(
        "--level",
        type=float,
        default=LEVEL,
        metavar="P",
        help="chance that a run rejects anything where all is right",
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    """Check, print, and return 1 if something disagrees."""
    a = arguments
    if not 0 < a.level < 1:
        raise ValueError(f"--level is a probability, got {a.level:g}; write 0.001")
    if not a.budget >= 0:
        raise ValueError(f"--budget is in seconds, got {a.budget:g}")
    estimators = read(a.estimators)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these matrices are too small for more
    verdicts: list[Verdict] = []
    try:
        results = verify(estimators, make_pairs(a.seed), a.seed, a.budget)
        for verdict in track(
            results, "Drawing", len(estimators), console=Console(stderr=True), transient=True
        ):
            verdicts.append(verdict)
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted after {len(verdicts)} of {len(estimators)} estimators; nothing to say"
        ) from None
    finally:
        torch.set_num_threads(threads)
    return report(verdicts, a.level)


def report(verdicts: list[Verdict], level: float) -> int:
    """Print the table and the outcome; 1 if a score is beyond the bound, else 0."""
    limit, count = find_bound(verdicts, level)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    title = (
        "z-scores: mean (worst entry of all pairs), variance by kind of pair, and variance of all"
        " pairs"
    )
    grid = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("estimator", no_wrap=True)
    for column in ("draws", "mean", *(check.pair for check in verdicts[0].checks), "all"):
        grid.add_column(column.replace(" ", "\n"), justify="right")
    grid.add_column("measured / closed", justify="right", no_wrap=True)
    for v in verdicts:
        worst = max((check.means.abs().max().item() for check in v.checks), default=0.0)
        scores = [worst, *(check.z for check in v.checks), v.z]
        ratio = "no closed form" if all(c.variance is None for c in v.checks) else "variance 0"
        if v.ratio == v.ratio:
            ratio = f"{v.ratio:.4f} ± {v.stderr:.4f}"
        grid.add_row(v.estimator, str(v.checks[0].draws), *(cell(z, limit) for z in scores), ratio)
    console.print(grid)
    seen = sorted((limit + POWER) * v.stderr for v in verdicts if v.stderr > 0)
    if seen:
        console.print(
            f"A closed form that is wrong by {100 * seen[len(seen) // 2]:.1f} % on all pairs is"
            f" seen with probability 0.999 (median of the estimators; {100 * seen[-1]:.1f} % in the"
            " worst).",
            highlight=False,
        )
    console.print(
        f"{count} z-scores, joint level {level:g} (Bonferroni): |z| has to stay below {limit:.2f}.",
        highlight=False,
    )
    wrong = [line for v in verdicts for line in complaints(v, limit)]
    console.print("\n".join(wrong) if wrong else "All agree.", highlight=False, soft_wrap=True)
    return 1 if wrong else 0


def cell(z: float, limit: float) -> str:
    """A score to one digit, in red beyond the limit; a dash where there is none."""
    text = "–" if z != z else f"{z:.1f}".replace("-0.0", "0.0")
    return f"[bold red]{text}[/]" if not abs(z) <= limit and z == z else text


def complaints(v: Verdict, limit: float) -> list[str]:
    """What disagrees, one line each."""
    lines = []
    for c in v.checks:
        worst = float(c.means.abs().max())
        if not worst <= limit:
            lines.append(
                f"DISAGREES: {v.estimator} on {c.pair}: the mean is not XᵀY, z = {worst:.2f},"
                f" {c.draws} draws"
            )
        if c.variance is not None and not abs(c.z) <= limit:
            lines.append(
                f"DISAGREES: {v.estimator} on {c.pair}: measured variance {c.measured:.4g} ±"
                f" {c.stderr:.2g}, closed form {c.variance:.4g}, z = {c.z:.2f}, {c.draws} draws"
            )
    if abs(v.z) > limit:
        ratio = f"measured / closed form {v.ratio:.4f} ± {v.stderr:.4f}"
        lines.append(f"DISAGREES: {v.estimator} on all pairs: {ratio}, z = {v.z:.2f}")
    return lines
