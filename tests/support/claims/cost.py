"""Claims about what noise costs, and what predicts it."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from support.claims import claim, read, span
from support.recorded import DATA, final

from sketchvar.analysis.cost.effective import judge, of_losses
from sketchvar.analysis.cost.table import price
from sketchvar.analysis.noise.horizon import Dynamics
from sketchvar.analysis.noise.select import in_order
from sketchvar.analysis.tasks import find_task

COSTED = ("stdlib-lm", "cifar10-vit")
FORKED = sorted(each.parent.name for each in DATA.glob("forks/*/effective.parquet"))
AGREED = ("stdlib-lm", "digits-mlp", "cifar10-vit")
DEPTHS = (2, 4, 8)
FRONTIERS = {"stdlib-lm": 10, "cifar10-vit": 1, "glue-cola": 1}  # and the steps of their costs
FORKS = {  # as the tables of data/forks name them
    "gaussian": "Gaussian",
    "rademacher": "Rademacher",
    "srht": "SRHT",
    "uniform-rows": "uniform rows",
    "norm-rows": "rows by norm",
    "countsketch": "CountSketch",
    "centered(countsketch)": "Centered(CountSketch)",
    "feature-rademacher": "feature projection",
    "rounding:1": "rounding, 1 bit",
    "rounding:2": "rounding, 2 bits",
    "rounding:4": "rounding, 4 bits",
    "nvfp4": "NVFP4",
    "plan:by-cost": "plan by cost",
}
SHOWN = {"gaussian": "Gaussian", "feature-rademacher": "features", "rounding:1": "1 bit"}


def one_step(run: str) -> pd.DataFrame:
    """The three ratios over one step, a row per estimator."""
    return read(f"cost/{run}/cost.parquet").query("horizon == 1").set_index("estimator")


def coherent(run: str, noise: str, seeds: str = "own") -> pd.Series:
    """The coherence of one noise."""
    rows = read(f"cost/{run}/coherence.parquet").set_index(["noise", "seeds"])
    return rows.loc[noise, seeds]


def error(row: pd.Series, name: str) -> str:
    """A number and two standard errors, to their first digit."""
    half = 2 * row[f"{name}_stderr"]
    digits = max(0, -math.floor(math.log10(half)))
    return f"{row[name]:.{digits}f} ± {half:.{digits}f}"


@claim("The variance says what noise costs")
def variance() -> str:
    parts = []
    for run in COSTED:
        rows = one_step(run)
        cells = [
            f"{label} {rows['variance_ratio'][name]:.1f} and {error(rows.loc[name], 'cost_ratio')}"
            for name, label in SHOWN.items()
        ]
        parts.append(f"{'stdlib-lm' if run == COSTED[0] else 'ViT'}: {', '.join(cells)}")
    return "; ".join(parts)


@claim("Layers err together in a minibatch, and apart in a sketch")
def together() -> str:
    cells = [
        f"{error(coherent(run, 'minibatch'), 'coherence')}, "
        f"{error(coherent(run, 'uniform-rows', 'one'), 'coherence')}"
        for run in COSTED
    ]
    dearer = [
        coherent(run, "uniform-rows", "one")["cost_ratio"]
        / one_step(run)["cost_ratio"]["uniform-rows"]
        for run in COSTED
    ]
    times = " and ".join(f"{each:.1f}" for each in dearer)
    return (
        f"part of the one-step cost, minibatch and uniform rows with one seed: {'; '.join(cells)};"
        f" that seed makes rows cost {times} times as much"
    )


@claim("Coherence grows with depth")
def depth() -> str:
    cells = [error(coherent(f"depth-{d}", "minibatch"), "coherence") for d in DEPTHS]
    return ", ".join(cells)


@claim("Curvature by kicks is that by Gauss–Newton, over one step")
def kicks() -> str:
    rows = pd.concat([read(f"cost/agree-{run}/agreement.parquet") for run in AGREED], keys=AGREED)
    rows = rows[~rows["noise"].isin(["minibatch", "minibatch, linear weights"])]
    by = rows.set_index(["noise", "curvature"], append=True).droplevel(1)
    by_kicks, by_hessian = (by.xs(name, level="curvature") for name in ("kicks", "hessian"))
    ratio, first = by_kicks["cost_ratio"], by_kicks["first"]
    z = (ratio - first) / np.hypot(by_kicks["cost_ratio_stderr"], by_kicks["first_stderr"])
    paired = by_kicks["over_first"]
    same = (paired - 1).abs() <= 2 * by_kicks["over_first_stderr"]
    among = by_kicks["over_first"] / by_hessian["over_first"]
    return (
        f"cost ratios within two standard errors of their difference in {(z.abs() <= 2).sum()} of"
        f" {len(z)}; draw by draw {same.sum()} of {len(same)}, kicks over Gauss–Newton"
        f" {span(paired)}, kicks over Hessian {span(among)}"
    )


def told_of(runs: Sequence[str]) -> pd.DataFrame:
    """Effective batches of several folders of forks, one below the other."""
    tables = [read(f"forks/{run}/effective.parquet") for run in runs]
    return pd.concat(tables, ignore_index=True)


@cache
def forked() -> pd.DataFrame:
    """Effective batches of every task and step."""
    return told_of(FORKED)


@cache
def judged(ordered: bool = True) -> pd.DataFrame:
    """How each prediction did, over the states in which the whole batch ended lowest of all batches
    of exact training, or over all: elsewhere the scale that is read off has no order.
    """
    return judge(in_order(forked()) if ordered else forked()).set_index("prediction")


def tell(row: pd.Series) -> list[str]:
    """Cells of the table of how predictions did."""
    counted = f"{row['within']:.0f} of {row['methods']:.0f}"
    return [counted, f"{2 ** row['spread']:.2f}", f"{row['rank']:.2f}", f"{row['p']:.0g}"]


def within(name: str) -> str:
    row, every = judged().loc[name], judged(ordered=False).loc[name]
    return (
        f"{row['within']:.0f} of {row['methods']:.0f} in the interval, {2 ** row['spread']:.1f}"
        f" times off in the root mean square, rank correlation {row['rank']:.2f}; over all states"
        f" {every['within']:.0f} of {every['methods']:.0f}, {2 ** every['spread']:.1f} and"
        f" {every['rank']:.2f}"
    )


@claim("A batch as noisy as the estimator's gradient trains like the estimator")
def by_variance() -> str:
    return f"variance: {within('variance')}; in Adam's metric: {within('metric')}"


@claim("A batch whose noise costs as much trains like the estimator")
def by_cost() -> str:
    return f"cost over the forks' steps: {within('cost')}; with progress: {within('both')}"


@claim("Features and few bits train better than random rows, at the same or fewer bytes")
def axis() -> str:
    """Effective batches through the states of the language model, and where intervals part."""
    rows = read("forks/stdlib-lm/effective.parquet")
    rows = rows[rows["tuned"].astype(bool)].set_index(["estimator", "step"])
    beside, cells = rows.loc["uniform-rows"], []
    cells.append(f"rows {', '.join(f'{each:.2f}' for each in beside['effective'])}")
    for name, label in {
        "feature-rademacher": "features",
        "rounding:1": "1 bit",
        "rounding:2": "2 bits",
    }.items():
        mine = rows.loc[name]
        apart = (mine["low"] > beside["high"]).sum()
        found = ", ".join(f"{each:.2f}" for each in mine["effective"])
        cells.append(f"{label} {found} (above in {apart} of {len(mine)})")
    return "; ".join(cells)


@claim("A plan by cost trains better than one choice of about as many bytes")
def planned() -> str:
    """Effective batches of the plan, and of bits in the same states; its cost over one step as its
    layers foretold it, on a training with another seed, and as it was measured.
    """
    plan = pd.read_json(DATA / "forks/plan/by-cost.json", typ="series")
    costs = read("forks/stdlib-lm-others/cost.parquet").query("horizon == 1 and step == 100")
    mine = costs.set_index("estimator").loc["plan:by-cost"]
    ends = told_of(("stdlib-lm", "stdlib-lm-others")).query("tuned").set_index("estimator")
    labels = {"plan:by-cost": "plan", "rounding:1": "1 bit", "rounding:2": "2 bits"}
    cells = []
    for name, label in labels.items():
        share = 100 * ends.loc[name, "share"].iloc[0]
        found = ", ".join(read_off(row) for _, row in ends.loc[name].iterrows())
        cells.append(f"{label} ({share:.1f} % of the bytes) {found}")
    told = plan["totals"]
    return (
        f"{'; '.join(cells)}; cost of the plan, foretold {told['ratio']:.1e} ±"
        f" {told['ratio_stderr']:.0e}, measured {mine['cost_ratio']:.1e} ±"
        f" {mine['cost_ratio_stderr']:.0e}"
    )


def lost() -> list[str]:
    """Lines of a table: what noise of 16 steps was predicted to cost and what forks lost, in units
    of the loss, in every state of the language model at the common learning rate.
    """
    task, folder = find_task("stdlib-lm", {}), "forks/stdlib-lm"
    ends, draws, spectra = (
        read(f"{folder}/{name}.parquet") for name in ("effective", "cost-draws", "spectra")
    )
    cells: dict[str, list[str]] = {}
    for step, told in ends[~ends["tuned"].astype(bool)].groupby("step"):
        now = task.rate_at(step, task.steps)
        ahead = tuple(task.rate_at(s, task.steps) / now for s in range(step, step + 16))
        mine = (rows[rows["step"] == step] for rows in (draws, spectra))
        costs = price(*mine, Dynamics(0.9, False, ahead), [16]).query("horizon == 16")
        half = told[(told["estimator"] == "exact") & (told["fraction"] == 0.5)]
        told = pd.concat([half.assign(estimator="minibatch"), told])
        for name in ("minibatch", "gaussian", "uniform-rows", "feature-rademacher", "rounding:1"):
            found = told[told["estimator"] == name].iloc[0]
            values = costs.loc[(costs["noise"] == name) & (costs["seeds"] == "own"), "cost"]
            predicted = f"{values.mean():.4f} ± {values.sem():.4f}"
            cells.setdefault(SHOWN.get(name, name), []).append(
                f"{predicted}, lost {found['behind']:.4f} ± {found['behind_stderr']:.4f}"
            )
    return [f"| {name} | {' | '.join(each)} |" for name, each in cells.items()]


def frontier(run: str) -> pd.DataFrame:
    """The cost of the whole catalog, a row per estimator and rate."""
    rows = read(f"cost/frontier-{run}/cost.parquet").query(f"horizon == {FRONTIERS[run]}")
    return rows.set_index(["estimator", "rate"]).sort_index()


def shortened(row: pd.Series) -> str:
    """A cost ratio and two standard errors, as short as it can be."""
    if row["cost_ratio"] >= 0.001:
        return error(row, "cost_ratio")
    return f"{row['cost_ratio']:.1e} ± {2 * row['cost_ratio_stderr']:.0e}"


@claim("By cost, bytes are best spent on few bits of every number, then on features, then on rows")
def axes() -> str:
    """The least cost of every family that fits into an eighth of the bytes."""
    parts = []
    for run in FRONTIERS:
        rows = frontier(run)
        fits = rows[(rows["share"] <= 0.125) & ~rows["biased"]]
        best = fits.loc[fits.groupby("family")["cost_ratio"].idxmin()].set_index("family")
        mine = [best.loc[f] for f in ("rounding", "features", "row sketches", "sampled rows")]
        bits, features, *others = (row["cost_ratio"] for row in mine)
        assert 10 * bits < features < min(others), run
        columns, dropped = rows.loc["feature-columns", 0.1], rows.loc["uniform-rows", 0.1]
        assert columns["variance_ratio"] > dropped["variance_ratio"], run
        parts.append(", ".join(map(shortened, mine)))
    return f"bits, features, summed rows, dropped rows: {'; '.join(parts)}"


@claim("Each bit more is worth more than its bytes")
def bits() -> str:
    parts = []
    for run in FRONTIERS:
        rows = frontier(run)
        cells = [shortened(rows.loc[f"rounding:{each}", 1.0]) for each in (1, 2, 4)]
        parts.append(
            f"{', '.join(cells)}, half the rows {shortened(rows.loc['uniform-rows', 0.5])}"
        )
    return f"1, 2, 4 bits: {'; '.join(parts)}"


@claim("Taking the mean out first pays in cost too")
def centring() -> str:
    ways = [("countsketch", 0.1), ("uniform-rows", 0.1), ("rounding:1", 1.0), ("rounding:2", 1.0)]
    cells = []
    for run in FRONTIERS:
        rows = frontier(run)["cost_ratio"]
        cells.append(", ".join(f"{rows[f'centered({n})', r] / rows[n, r]:.2f}" for n, r in ways))
    return f"cost with over cost without, CountSketch, rows, 1 bit, 2 bits: {'; '.join(cells)}"


def far_off(read_off: pd.Series, predicted: pd.Series) -> float:
    """How many times predictions are off, in the root mean square."""
    return float(2 ** np.sqrt(np.mean(np.log2(read_off / predicted) ** 2)))


def read_off(row: pd.Series) -> str:
    """An effective batch and its interval."""
    return f"{row['effective']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def table() -> set[tuple[str, str, str]]:
    """Rows of the tables of data/forks: estimator, what was read off, what was predicted of it."""
    rows = forked()
    told = rows[[f"by_{name}" for name in ("variance", "metric", "cost", "both")]]
    return {
        (
            FORKS[row["estimator"]],
            read_off(row) + ("" if row["inside"] else " (end of the range)"),
            " | ".join(f"{each:.2f}" for each in told.loc[i]),
        )
        for i, row in rows[rows["estimator"] != "exact"].iterrows()
    }


def whole() -> pd.DataFrame:
    """Effective batches of whole runs of the language model, at rate 0.1 and at 2 bits, beside what
    the noise after fifty updates says: its variance, and its cost over the steps that are left.
    """
    rows = final(DATA / "train" / "stdlib-lm")
    rows = rows[(rows["estimator"] != "exact") | rows["batch"].isin([2, 4, 8, 16])]
    losses = rows.assign(fraction=rows["batch"] / 16).pivot_table(
        values="validation", index="seed", columns=["estimator", "rate", "fraction"], sort=False
    )
    found = of_losses(losses, 0.95).set_index(["estimator", "rate"])
    noise = read("cost/whole-stdlib-lm/cost.parquet").query("horizon == 150")
    noise = noise.set_index(["estimator", "rate"])[["variance_ratio", "cost_ratio"]]
    return found.join(1 / (1 + noise), how="inner")


@claim("Whole runs end where the noise of their gradients says")
def whole_runs() -> str:
    rows = whole()
    cells = [
        f"{name} {read_off(row)}, {row['cost_ratio']:.2f}, {row['variance_ratio']:.2f}"
        for (name, _), row in rows.iterrows()
    ]
    off = [far_off(rows["effective"], rows[f"{each}_ratio"]) for each in ("cost", "variance")]
    return (
        f"read off, by cost, by variance: {'; '.join(cells)}; times off {off[0]:.1f}, {off[1]:.1f}"
    )


@claim("Over four hundred steps they do")
def longest() -> str:
    """A small language model, halfway through its training."""
    asked = "tuned and estimator != 'exact'"
    rows = read("forks/longer-stdlib-lm/effective.parquet").query(asked).set_index("estimator")
    cells = [
        f"{name} {read_off(row)}, {row['by_cost']:.2f}, {row['by_variance']:.2f}"
        for name, row in rows.iterrows()
    ]
    off = [far_off(rows["effective"], rows[f"by_{each}"]) for each in ("cost", "variance")]
    return (
        f"read off, by cost, by variance: {'; '.join(cells)}; times off {off[0]:.1f}, {off[1]:.1f}"
    )


LONG = {  # task -> its forks of a hundred steps
    "stdlib-lm": ("long-stdlib-lm", "long-stdlib-lm-others"),
    "CoLA": ("long-glue-cola", "long-glue-cola-others"),
}


@claim("Over a hundred steps copies end where the cost of their noise says")
def longer() -> str:
    """How predictions did, and one estimator of each kind, each method at its own best rate."""
    parts = []
    for task, runs in LONG.items():
        told = told_of(runs)
        found = judge(told).set_index("prediction")
        did = [
            f"{name} {found['within'][name]:.0f} of {found['methods'][name]:.0f} in the interval,"
            f" {2 ** found['spread'][name]:.1f} times off, rank correlation"
            f" {found['rank'][name]:.2f}"
            for name in ("cost", "variance")
        ]
        rows = told.query("tuned and estimator != 'exact'").set_index("estimator")
        cells = [
            f"{name} {read_off(rows.loc[name])}, {rows['by_cost'][name]:.2f},"
            f" {rows['by_variance'][name]:.2f}"
            for name in ("uniform-rows", "feature-rademacher", "rounding:1", "plan:by-cost")
        ]
        parts.append(f"{task} {', '.join(did)}; {', '.join(cells)}")
    return f"{'; '.join(parts)} (read off, by cost, by variance)"


EARLY = {  # task -> its forks after thirty updates
    "SST-2": ("glue-sst-2", "glue-sst-2-others"),
    "MRPC": ("glue-mrpc", "glue-mrpc-others"),
    "CoLA": ("glue-cola-30",),
}


@claim("Early in fine-tuning an estimator is worth what its noise costs")
def early() -> str:
    """Forks of MiniLM after thirty updates, each method at its own best rate; those that end in the
    range of the exact batches.
    """
    cells = []
    for task, runs in EARLY.items():
        found = judge(told_of(runs)).set_index("prediction")
        parts = [
            f"{name} {found['within'][name]:.0f} of {found['methods'][name]:.0f} and"
            f" {2 ** found['spread'][name]:.1f}"
            for name in ("cost", "variance")
        ]
        cells.append(f"{task} {', '.join(parts)}")
    return f"in the interval, and times off: {'; '.join(cells)}"


PLANNED = {
    "ViT": "cifar10-vit-others",
    "convolutional net": "cifar10-conv-others",
    "SST-2": "glue-sst-2-others",
    "MRPC": "glue-mrpc-others",
    "CoLA": "glue-cola-30",
}


@claim("A plan by cost holds on images and in fine-tuning")
def planned_elsewhere() -> str:
    """Effective batches of the plans, a state after the other."""
    cells = []
    for task, run in PLANNED.items():
        rows = read(f"forks/{run}/effective.parquet").query("tuned and family == 'plans'")
        found = ", ".join(read_off(row) for _, row in rows.sort_values("step").iterrows())
        cells.append(f"{task} ({100 * rows['share'].iloc[0]:.1f} % of the bytes) {found}")
    return "; ".join(cells)
