"""What repeated draws say of every estimator: a table of z-scores, and what disagrees."""

from collections.abc import Sequence

from sketchvar.analysis.report.table import NONE, Column, Row, Table, show_number, show_text
from sketchvar.analysis.verify import Verdict, find_bound

POWER = 3.1  # standard errors beyond the bound at which an error is seen with probability 0.999


def tabulate_scores(verdicts: Sequence[Verdict], level: float) -> Table:
    """z-scores of every estimator: of its mean, of its variance on each kind of pair, and of its
    variance on all; ! where one is beyond the bound of the joint ``level``.
    """
    limit, _ = find_bound(verdicts, level)
    kinds = [check.pair for check in verdicts[0].checks]
    rows = []
    for v in verdicts:
        closed = any(check.variance is not None for check in v.checks)
        row = {
            "estimator": v.estimator,
            "draws": v.checks[0].draws,
            "mean": max((check.means.abs().max().item() for check in v.checks), default=0.0),
            **{check.pair: check.z for check in v.checks},
            "all": v.z,
            "ratio": v.ratio,
            "stderr": v.stderr,
            "note": "variance 0" if closed else "no closed form",
        }
        rows.append(row)

    def show_ratio(row: Row) -> str:
        found = row["ratio"] == row["ratio"]
        return f"{row['ratio']:.4f} ± {row['stderr']:.4f}" if found else str(row["note"])

    columns = (
        show_text("estimator"),
        show_number("draws", None, "{:.0f}".format),
        *(show_score(name, limit) for name in ("mean", *kinds, "all")),
        Column("measured / closed", show_ratio),
    )
    title = (
        "z-scores: mean (worst entry of all pairs), variance by kind of pair, and variance of all"
        " pairs"
    )
    return Table("verify", title, columns, tuple(rows))


def show_score(field: str, limit: float) -> Column:
    """A score to one digit, with a mark beyond the limit; a dash where there is none."""

    def show(row: Row) -> str:
        z = row[field]
        if z != z:
            return NONE
        return f"{z:.1f}".replace("-0.0", "0.0") + ("" if abs(z) <= limit else " !")

    return Column(field, show)


def describe(verdicts: Sequence[Verdict], level: float) -> tuple[str, ...]:
    """What error would have been seen, and by which bound scores are judged."""
    limit, count = find_bound(verdicts, level)
    seen = sorted((limit + POWER) * v.stderr for v in verdicts if v.stderr > 0)
    lines = []
    if seen:
        lines.append(
            f"A closed form that is wrong by {100 * seen[len(seen) // 2]:.1f} % on all pairs is"
            f" seen with probability 0.999 (median of the estimators; {100 * seen[-1]:.1f} % in the"
            " worst)."
        )
    lines.append(
        f"{count} z-scores, joint level {level:g} (Bonferroni): |z| has to stay below {limit:.2f}."
    )
    return tuple(lines)


def complain(verdicts: Sequence[Verdict], level: float) -> tuple[str, ...]:
    """What disagrees, one line each."""
    limit, _ = find_bound(verdicts, level)
    lines = []
    for v in verdicts:
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
    return tuple(lines)
