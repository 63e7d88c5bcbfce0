"""Claims about how large noise is."""

from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import t as student
from support.claims import claim, middle, read, span
from support.recorded import DATA

TRUTHS = ("stdlib-lm", "glue-cola-minilm", "glue-cola-minilm-seed1")


def redrawn(run: str, form: str) -> pd.DataFrame:
    """A row per layer: ``factor`` closed form / truth, ``seen`` the relative error that would have
    been beyond the joint bound (level 0.01, Bonferroni), ``beyond`` whether it is.
    """
    rows = read(f"truth/{run}/truth.parquet")
    bound = student.ppf(1 - 0.01 / 2 / len(rows), rows["draws"] - 1)
    error = np.hypot(rows["redrawn_stderr"], rows[f"{form}_stderr"])
    return pd.DataFrame(
        {
            "factor": rows[form] / rows["redrawn"],
            "seen": 100 * bound * error / rows["redrawn"],
            "beyond": rows[f"{form}_z"].abs() > bound,
        }
    )


def count(tables: list[pd.DataFrame]) -> str:
    """How many layers are beyond the bound, for each run."""
    return ", ".join(f"{rows['beyond'].sum()} of {len(rows)}" for rows in tables)


@claim("The closed form of the minibatch variance by example is right")
def by_example() -> str:
    tables = [redrawn(run, "example") for run in TRUTHS]
    seen = span(pd.concat(tables)["seen"], ".0f")
    return f"rejected in {count(tables)} layers; {seen} % off would have been seen"


@claim("Rows may be taken as independent, as the paper does")
def by_row() -> str:
    tables = [redrawn(run, "row") for run in TRUTHS]
    factors = pd.concat(tables).query("beyond")["factor"]
    return f"rejected in {count(tables)} layers, with factors of {span(factors)}"


@claim("CountSketch's closed form holds in layers that train with it")
def in_training() -> str:
    z = [read(f"truth/{run}/estimator.parquet")["z"].abs() for run in TRUTHS[:2]]
    return f"largest z-score {z[0].max():.1f} of {len(z[0])}, {z[1].max():.1f} of {len(z[1])}"


def held(run: str) -> pd.DataFrame:
    """Per cent of intervals that hold the truth, a column per number of batches: means over
    layers.
    """
    rows = read(f"truth/intervals-{run}/intervals.parquet")
    rows = rows.assign(estimator=rows["estimator"].fillna(""), covered=100 * rows["covered"])
    keys = ["quantity", "estimator"]
    return rows.pivot_table("covered", keys, "batches", dropna=False).dropna(how="all").round()


@claim("An interval of two standard errors holds the truth as often as it says")
def intervals() -> str:
    vit, lm = (held(run).loc["ratio", "gaussian"] for run in ("cifar10-vit", "stdlib-lm"))
    least = held("stdlib-lm").loc["minibatch_example", ""]
    return (
        f"ratio of Gaussian, of one batch and of four: ViT {vit[1]:.0f} and {vit[4]:.0f} %,"
        f" stdlib-lm {lm[1]:.0f} and {lm[4]:.0f} %; least, the minibatch by example of stdlib-lm:"
        f" {least[1]:.0f} and {least[4]:.0f} %"
    )


@claim("Summing rows at random adds less variance than dropping rows")
def row_sketches() -> str:
    rows = read("stdlib-lm/rows.parquet")
    table = rows.pivot_table(index=["layer", "step", "rate"], columns="estimator", values="ratio")
    over = table.div(table["uniform-rows"], axis=0)
    less = (over < 1).sum()
    return (
        f"less in {less['gaussian']} (Gaussian), {less['rademacher']} (Rademacher),"
        f" {less['countsketch']} (CountSketch), {less['srht']} (SRHT) of {len(over)};"
        f" at best by a factor of {over['countsketch'].min():.2f}"
    )


@cache
def eighth() -> pd.DataFrame:
    """The frontier at one eighth of the bytes."""
    return read("frontier/frontier.parquet").query("budget == 0.125")


@claim("Dropping rows is the same as a smaller batch")
def smaller_batch() -> str:
    ratio = eighth().query("estimator == 'uniform-rows'")["ratio"]
    return f"at 12.5 %: rows {middle(ratio)}, a batch of that fraction {1 / 0.125 - 1:g}"


@claim("At equal bytes, few bits after centring add least variance")
def few_bits() -> str:
    at = dict(list(eighth().query("not oracle and not biased").groupby("estimator")))
    best = min(at, key=lambda name: at[name]["ratio"].median())
    assert best == "centered(uniform-rows+rounding:4)"
    both = [at[name] for name in (best, "uniform-rows")]
    all_steps = [middle(rows["ratio"]) for rows in both]
    last = [rows.query("step == 300")["ratio"].median() for rows in both]
    return (
        f"at 12.5 %: {all_steps[0]}, rows alone {all_steps[1]}; at step 300 {last[0]:.2g}, rows"
        f" alone {last[1]:.2g}"
    )


@claim("Rows chosen by the norms of X are worse than uniform rows")
def norms() -> str:
    rows = read("frontier/frontier.parquet")

    def at(budget: float) -> pd.Series:
        return rows[rows["budget"] == budget].groupby("estimator")["ratio"].median()

    names = ("norm-rows-iid", "norm-rows", "uniform-rows", "optimal-rows-iid", "optimal-rows")
    half, eighth = (at(budget)[list(names)].to_list() for budget in (0.5, 0.125))
    parts = [100 * (a - b) / (a - c) for a, b, c, *_ in (half, eighth)]
    return (
        f"with replacement, without, uniform: at 50 % {half[0]:.2f}, {half[1]:.2f}, {half[2]:.2f},"
        f" at 12.5 % {eighth[0]:.2f}, {eighth[1]:.2f}, {eighth[2]:.2f}: replacement was"
        f" {parts[0]:.0f} and {parts[1]:.0f} % of the loss; the oracle with and without"
        f" {half[3]:.2f} and {half[4]:.2f} at 50 %"
    )


@claim("Compressing features instead of rows costs variance")
def features() -> str:
    over: dict[str, list[str]] = {"feature-columns": [], "feature-rademacher": []}
    for run in ("axis", "axis-seed1", "axis-seed2", "axis-seed3"):
        rows = read(f"paper/{run}/rows.parquet").query("budget == 0.125")
        by = rows.pivot_table(
            index="layer", columns="estimator", values="variance", aggfunc="first"
        )
        for name, found in over.items():
            found.append(f"{(by[name] / by['uniform-rows']).median():.1f}")
    columns, projections = (", ".join(found) for found in over.values())
    return f"at 12.5 %, over the variance of rows: columns {columns}; projections {projections}"


@claim("A layer can predict which rows matter")
def scores() -> str:
    rows = read("scores/glue-cola-minilm/scores.parquet")
    closed = 100 * rows.query("estimator == 'scored-rows'")["gap_closed"]
    at = rows.groupby("estimator")["ratio"].median()
    return (
        f"{middle(closed)} % of the way to the oracle; ratios {at['norm-rows']:.1f} (norms of X),"
        f" {at['scored-rows']:.1f} (predicted), {at['optimal-rows']:.1f} (oracle)"
    )


@claim("A plan for each layer beats one choice for all")
def plan() -> str:
    at = planned()
    single = one_choice()
    chosen, out = ([0, 30, 200], [10, 100, 300])
    both = [f"{mean(rows, chosen)} and {mean(rows, out)}" for rows in (at, single)]
    less = layer_means(at) < layer_means(single)
    last = at.query("step == 300")["ratio"]
    return (
        f"mean of layers, chosen on and held out: {both[0]}, one choice {both[1]}; less at"
        f" {less[out].sum()} of 3 steps held out; at step 300 the plan's median layer"
        f" {last.median():.2f}, its worst {last.max():.1f}"
    )


def planned() -> pd.DataFrame:
    """The recorded rows of what the recorded plan gives each layer."""
    rows = read("plan/rows.parquet")
    layers = pd.read_json(DATA / "plan" / "plan.json", typ="series")["layers"]
    found = rows[[spell(*row) == layers[row[2]] for row in rows[CHOICE].to_numpy()]]
    assert len(found) == len(layers) * rows["step"].nunique()
    return found


def one_choice() -> pd.DataFrame:
    """Those of the best choice for all layers within its bytes."""
    return read("plan/rows.parquet").query(
        "estimator == 'centered(uniform-rows+rounding:2)' and rate == 0.5"
    )


def layer_means(rows: pd.DataFrame) -> pd.Series:
    """The mean of the layers' ratios, by step."""
    return rows.groupby("step")["ratio"].mean()


def mean(rows: pd.DataFrame, steps: list[int]) -> str:
    """Of these over some steps, with the standard error of their spread."""
    at = layer_means(rows)[steps]
    return f"{at.mean():.2f} ± {at.sem():.2f}"


CHOICE = ["estimator", "rate", "layer"]


def spell(estimator: str, rate: float, layer: str) -> str:
    """As plan.json spells it: the rate follows the sampler."""
    return estimator.replace("uniform-rows", f"uniform-rows:{rate:g}") if rate < 1 else estimator


@claim("A total ratio speaks for the model")
def head() -> str:
    rows = read("stdlib-lm/rows.parquet").query("estimator == 'gaussian' and rate == 0.1")
    table = rows.pivot_table(index="layer", columns="step", values="minibatch_example")
    share = 100 * table.loc["head"] / table.sum()
    return f"the head is {span(share[share.index >= 10], '.0f')} % of what it divides by"


@claim("Noise does not grow with depth")
def depth() -> str:
    rows = read("paper/depth/rows.parquet").query("step == step.max()")
    block = rows["layer"].str.extract(r"^blocks\.(\d)", expand=False)
    rows = rows.assign(block=block, relative=rows["ratio_stderr"] / rows["ratio"])
    by = rows.groupby(["estimator", "block"])
    at, error = by["ratio"].median(), by["relative"].mean()  # as if layers erred together
    ends = []
    for name, label in {
        "gaussian": "Gaussian",
        "countsketch": "CountSketch",
        "uniform-rows": "rows",
        "rounding:2": "2 bits",
    }.items():
        over = at[name, "3"] / at[name, "0"]
        half = 2 * over * np.hypot(error[name, "0"], error[name, "3"])
        assert abs(over - 1) < half  # not resolved
        ends.append(f"{label} {over:.2f} ± {half:.2f}")
    return f"last block over the first: {', '.join(ends)}"
