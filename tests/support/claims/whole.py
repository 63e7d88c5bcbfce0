"""Claims about whole runs to a settled loss, every method at its own best learning rate."""

from functools import cache

import numpy as np
import pandas as pd
from support.claims import claim, read
from support.recorded import DATA, METHOD, final

from sketchvar.analysis.cost.effective import read_off
from sketchvar.analysis.sweep.pooled import Difference, Finals, holm

TRIED = {  # learning rate -> folders of runs at it; the first has a seed that is not reported
    "0.002": ("tune-0.002", "lr-0.002", "bits-0.002"),
    "0.004": ("tune-0.004", "lr-0.004"),
}
LONG = {"0.002": "equal-time-0.002", "0.004": "equal-time-0.004"}
NAMES = {
    "rounding:2": "2 bits",
    "rounding:1": "1 bit",
    "feature-rademacher": "features",
    "gaussian": "Gaussian",
    "countsketch": "CountSketch",
}
LONGER = ("equal-examples", 1.0, 11)
TUNING = 100  # a seed


def read_rate(rate: str) -> pd.DataFrame:
    """Final validation losses at one learning rate, a row per method and a column per seed."""
    runs = [final(DATA / "whole" / run) for run in TRIED[rate]]
    runs.append(final(DATA / "whole" / LONG[rate]).assign(estimator=LONGER[0]))
    return pd.concat(runs).pivot_table(index=METHOD, columns="seed", values="validation")


@cache
def finals() -> Finals:
    """Final validation losses, of each seed at the learning rate that is best over all other seeds:
    no loss that is reported had a say in its rate. A method that was reported at one rate has that.
    """
    at = {rate: read_rate(rate) for rate in TRIED}
    found: dict[tuple, dict[int, float]] = {}
    for method in sorted(set().union(*(table.index for table in at.values()))):
        mine = pd.DataFrame(
            {rate: table.loc[method] for rate, table in at.items() if method in table.index}
        )
        reported = mine.drop(TUNING, errors="ignore").dropna(how="all")
        mine = mine[list(reported.dropna(axis=1, how="all"))]
        for seed in reported.index:
            best = mine.drop(seed).mean().idxmin()
            found.setdefault(method, {})[seed] = mine.loc[seed, best]
    table = pd.DataFrame(found).T
    table.index = pd.MultiIndex.from_tuples(table.index, names=METHOD)
    return Finals(table.sort_index())


def methods() -> dict[str, tuple]:
    """Those that sketch, by the name that they have here."""
    return {
        label: (name, 0.1 if name in ("feature-rademacher", "gaussian", "countsketch") else 1.0, 16)
        for name, label in NAMES.items()
    }


@cache
def memory() -> pd.DataFrame:
    """The batches of as many bytes held and of the same peak, by estimator."""
    files = [
        next((DATA / "whole" / f"lr-{rate}").glob("memory-*.parquet"))
        for rate in ("0.002", "0.004")
    ]
    return (
        pd.concat(map(pd.read_parquet, files)).drop_duplicates("estimator").set_index("estimator")
    )


@cache
def differences() -> dict[tuple[str, str], Difference]:
    """(method, baseline) -> loss less that of the baseline."""
    found = {}
    for label, method in methods().items():
        partners = memory().loc[method[0]]
        found[label, "exact"] = finals().differ(method, ("exact", 1.0, 16))
        for kind in ("memory", "peak"):
            batch = int(partners[f"same_{kind}_batch"])
            found[label, kind] = finals().differ(method, ("exact", 1.0, batch))
        found[label, "examples"] = finals().differ(method, LONGER)
    return found


@cache
def resolved() -> dict[tuple[str, str], int]:
    """Those at a joint level of 0.05 (Holm) -> their sign."""
    adjusted = holm([each.p for each in differences().values()])
    both = zip(differences().items(), adjusted, strict=True)
    return {key: int(np.sign(each.mean)) for (key, each), p in both if p < 0.05}


def beside(baseline: str) -> str:
    """Every method less a baseline."""
    parts = []
    for label in methods():
        key = (label, baseline)
        mark = {1: "", -1: "", 0: " (not resolved)"}[resolved().get(key, 0)]
        parts.append(f"{label} {differences()[key]}{mark}")
    return ", ".join(parts)


def effective() -> dict[str, tuple[float, float, float]]:
    """The part of the batch on which exact training ends where a method does, with a 95 % interval
    by the bootstrap over seeds.
    """
    table = finals().table
    exact = table.loc[[key for key in table.index if key[0] == "exact"]]
    fractions = np.array([key[2] / 16 for key in exact.index])
    rng, seeds, found = np.random.default_rng(0), table.shape[1], {}
    draws = [np.arange(seeds), *rng.integers(seeds, size=(2000, seeds))]
    for label, method in methods().items():
        values = [
            float(
                read_off(
                    exact.to_numpy()[:, each].mean(1),
                    fractions,
                    np.array([table.loc[method].to_numpy()[each].mean()]),
                )[0]
            )
            for each in draws
        ]
        found[label] = (values[0], *np.quantile(values[1:], [0.025, 0.975]))
    return found


@claim("Trained until the loss settles, a method costs loss against exact training")
def against_exact() -> str:
    return f"{beside('exact')}; with power 0.8 these seeds show {finals().detectable():.3f}"


@claim("There an estimator beats the smaller batch of as many bytes held")
def against_bytes() -> str:
    return beside("memory")


@claim("There an estimator beats the smaller batch of the same peak")
def against_peak() -> str:
    return beside("peak")


@claim("There an estimator beats the smaller batch for as many examples")
def against_examples() -> str:
    return beside("examples")


def predicted() -> pd.DataFrame:
    """1 / (1 + ratio) of each estimator by variance and by cost over a hundred steps, means of the
    ratios over three states of training.
    """
    rows = read("whole/cost/cost.parquet").query("horizon == 100")
    ratios = rows.groupby("estimator")[["variance_ratio", "cost_ratio"]].mean()
    return 1 / (1 + ratios)


@claim("There runs end where the noise of their gradients says")
def foretold() -> str:
    guesses, found, parts = predicted(), effective(), []
    off = {}
    for label, method in methods().items():
        value, low, high = found[label]
        cost, variance = guesses.loc[method[0], ["cost_ratio", "variance_ratio"]]
        parts.append(f"{label} {value:.2f} [{low:.2f}, {high:.2f}], {cost:.2f}, {variance:.2f}")
        off[label] = np.log2([cost / value, variance / value])
    cost, variance = 2 ** np.sqrt((np.array(list(off.values())) ** 2).mean(0))
    return (
        f"read off, by cost, by variance: {'; '.join(parts)}; times off {cost:.1f}, {variance:.1f}"
    )
