"""Objective (a frozen dataclass): what a plan makes small, as a total over layers."""

from dataclasses import dataclass

from sketchvar.estimators.catalog import check_known


@dataclass(frozen=True)
class Objective:
    """``column``: the number of a layer at a step that counts, its error beside it in
    ``column``_stderr. Their total over layers is their mean; with ``largest`` the largest of all
    layers and steps; with ``parts`` the sum, as each is a part of the whole model's number.

    Means over layers have the order of sums; each layer counts by itself, whatever the size of its
    gradient. Totals of steps are averaged, never variances.
    """

    name: str
    column: str
    words: str
    largest: bool = False
    parts: bool = False

    def weight(self, layers: int) -> float:
        """What the number of one of so many layers adds to the total of a step, in these units."""
        return 1.0 if self.largest or self.parts else 1 / layers


RATIO = "variance / minibatch variance (by example)"
OBJECTIVES = {
    each.name: each
    for each in (
        Objective("sum", "ratio", f"{RATIO}, mean over layers"),
        Objective("largest", "ratio", f"{RATIO}, largest over layers and steps", largest=True),
        Objective("metric", "metric_ratio", f"{RATIO} in the metric, whole model", parts=True),
        Objective("cost", "cost_ratio", "cost / the minibatch's, whole model", parts=True),
    )
}
SUM = OBJECTIVES["sum"]


def find_objective(name: str) -> Objective:
    """Find an objective. Raises ValueError for one that is not known."""
    check_known("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
