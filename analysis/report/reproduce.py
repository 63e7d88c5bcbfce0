"""What making results again says: a table of columns, and sentences."""

from collections.abc import Sequence

from sketchvar.analysis.report.table import Column, Row, Table, show_number, show_text
from sketchvar.analysis.reproduce import Agreement, reject


def tabulate(found: Sequence[Agreement], level: float) -> Table:
    """A row per column of every file; ! where it is beyond what chance allows."""
    wrong, bound = reject(found, level)

    def show_score(row: Row) -> str:
        z = row["largest"]
        return "–" if z != z else f"{z:.1f}" + (" !" if z > bound else "")

    def show_share(field: str) -> Column:
        return Column(field, lambda row: "–" if row[field] != row[field] else f"{row[field]:.1%}")

    rows = tuple(
        {**each._asdict(), "equal": each.equal / max(1, each.numbers), "rejected": each in wrong}
        for each in found
    )
    columns = (
        show_text("file"),
        show_text("column"),
        show_number("numbers", None, "{:.0f}".format),
        show_share("equal"),
        show_share("within"),
        Column("largest z", show_score),
        show_share("apart"),
    )
    caption = (
        "equal: to a millionth, of the number or of its error. within: at most two standard errors"
        " of the difference apart. apart: the median relative difference of numbers that are not"
        " equal."
    )
    return Table("reproduced", "Recorded, and made again", columns, rows, caption)


def describe(found: Sequence[Agreement], level: float, elsewhere: Sequence[str] = ()) -> list[str]:
    """What all columns together say; ``elsewhere``: in what the machines differ."""
    wrong, bound = reject(found, level)
    numbers, equal = sum(each.numbers for each in found), sum(each.equal for each in found)
    unknown = sum(each.numbers - each.equal for each in found if each.largest != each.largest)
    lines = [f"{equal} of {numbers} numbers are equal."]
    if equal < numbers:
        lines.append(
            f"Of those with an error, {len(wrong)} columns have a z-score beyond {bound:.2f} (joint"
            f" level {level:g}, Bonferroni)."
            f" {unknown} others differ and have no error: what that means is for you to say."
        )
    if equal < numbers and elsewhere:
        lines.append(
            f"What they were made on is told differently: {'; '.join(elsewhere)}. Where sums are"
            " rounded otherwise, a training at a high learning rate can go elsewhere from that."
        )
    if wrong:
        names = ", ".join(f"{each.column} ({each.file}, {each.largest:.1f})" for each in wrong)
        lines.append(f"Not reproduced: {names}.")
    else:
        lines.append("Reproduced.")
    return lines
