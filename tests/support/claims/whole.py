"""Claims about whole runs at tuned rates: a small language model until its loss settles, and
fine-tuning on SST-2; every method at its own best learning rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from support.claims import claim, read
from support.recorded import DATA, METHOD, final

from sketchvar.analysis.cost.effective import read_off
from sketchvar.analysis.sweep.pooled import Difference, Finals, holm

NAMES = {
    "rounding:2": "2 bits",
    "rounding:1": "1 bit",
    "feature-rademacher": "features",
    "gaussian": "Gaussian",
    "countsketch": "CountSketch",
}
TUNING = 100  # a seed that is not reported


@dataclass(frozen=True, eq=False)
class Whole:
    """Runs in data/whole: ``tried`` and ``long`` are learning rate -> folders, of the whole batch's
    updates and of those on ``small`` for as many examples.
    """

    tried: Mapping[str, tuple[str, ...]]
    long: Mapping[str, str]
    batch: int
    small: int

    def read_rate(self, rate: str, value: str) -> pd.DataFrame:
        """A final value at one learning rate, a row per method and a column per seed."""
        runs = [final(DATA / "whole" / run) for run in self.tried[rate]]
        runs.append(final(DATA / "whole" / self.long[rate]).assign(estimator=self.longer[0]))
        return pd.concat(runs).pivot_table(index=METHOD, columns="seed", values=value)

    @property
    def longer(self) -> tuple[str, float, int]:
        """Exact training on the small batch for as many examples, as a method."""
        return ("equal-examples", 1.0, self.small)

    @cached_property
    def finals(self) -> Finals:
        """Final validation losses."""
        return self.read("validation")

    def read(self, value: str) -> Finals:
        """Final values, of each seed at the learning rate whose validation loss is best over all
        other seeds: no value that is reported had a say in its rate. A method that was reported at
        one rate has that.
        """
        losses, values = (
            {rate: self.read_rate(rate, each) for rate in self.tried}
            for each in ("validation", value)
        )
        found: dict[tuple, dict[int, float]] = {}
        for method in sorted(set().union(*(table.index for table in losses.values()))):
            mine = pd.DataFrame(
                {rate: table.loc[method] for rate, table in losses.items() if method in table.index}
            )
            reported = mine.drop(TUNING, errors="ignore").dropna(how="all")
            mine = mine[list(reported.dropna(axis=1, how="all"))]
            for seed in reported.index:
                best = mine.drop(seed).mean().idxmin()
                found.setdefault(method, {})[seed] = values[best].loc[method, seed]
        table = pd.DataFrame(found).T
        table.index = pd.MultiIndex.from_tuples(table.index, names=METHOD)
        return Finals(table.sort_index())

    @cached_property
    def methods(self) -> dict[str, tuple]:
        """Those that sketch, by the name that they have here."""
        index = self.finals.table.index
        return {
            label: next(method for method in index if method[0] == name)
            for name, label in NAMES.items()
            if name in index.get_level_values("estimator")
        }

    @cached_property
    def memory(self) -> pd.DataFrame:
        """The batches of as many bytes held and of the same peak, by estimator."""
        folders = [DATA / "whole" / run for runs in self.tried.values() for run in runs]
        files = [file for folder in folders for file in folder.glob("memory-*.parquet")]
        rows = pd.concat(map(pd.read_parquet, files)).drop_duplicates("estimator")
        return rows.set_index("estimator")

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """(method, baseline) -> loss less that of the baseline."""
        found = {}
        for label, method in self.methods.items():
            partners = self.memory.loc[method[0]]
            found[label, "exact"] = self.finals.differ(method, ("exact", 1.0, self.batch))
            for kind in ("memory", "peak"):
                batch = int(partners[f"same_{kind}_batch"])
                found[label, kind] = self.finals.differ(method, ("exact", 1.0, batch))
            found[label, "examples"] = self.finals.differ(method, self.longer)
        return found

    @cached_property
    def resolved(self) -> dict[tuple[str, str], int]:
        """Those at a joint level of 0.05 (Holm) -> their sign."""
        adjusted = holm([each.p for each in self.differences.values()])
        both = zip(self.differences.items(), adjusted, strict=True)
        return {key: int(np.sign(each.mean)) for (key, each), p in both if p < 0.05}

    def beside(self, baseline: str) -> str:
        """Every method less a baseline."""
        parts = []
        for label in self.methods:
            key = (label, baseline)
            mark = "" if key in self.resolved else " (not resolved)"
            parts.append(f"{label} {self.differences[key]}{mark}")
        return ", ".join(parts)

    def effective(self) -> dict[str, tuple[float, float, float]]:
        """The part of the batch on which exact training ends where a method does, with a 95 %
        interval by the bootstrap over seeds.
        """
        table = self.finals.table
        exact = table.loc[[key for key in table.index if key[0] == "exact"]]
        fractions = np.array([key[2] / self.batch for key in exact.index])
        rng, seeds, found = np.random.default_rng(0), table.shape[1], {}
        draws = [np.arange(seeds), *rng.integers(seeds, size=(2000, seeds))]
        for label, method in self.methods.items():
            mine = table.loc[method].to_numpy()
            values = [
                float(
                    read_off(
                        exact.to_numpy()[:, each].mean(1), fractions, np.array([mine[each].mean()])
                    )[0]
                )
                for each in draws
            ]
            found[label] = (values[0], *np.quantile(values[1:], [0.025, 0.975]))
        return found


LM = Whole(
    tried={
        "0.002": ("tune-0.002", "lr-0.002", "bits-0.002"),
        "0.004": ("tune-0.004", "lr-0.004"),
    },
    long={"0.002": "equal-time-0.002", "0.004": "equal-time-0.004"},
    batch=16,
    small=11,
)


@claim("Trained until the loss settles, a method costs loss against exact training")
def against_exact() -> str:
    power = LM.finals.detectable()
    return f"{LM.beside('exact')}; with power 0.8 these seeds show {power:.3f}"


@claim("There an estimator beats the smaller batch of as many bytes held")
def against_bytes() -> str:
    return LM.beside("memory")


@claim("There an estimator beats the smaller batch of the same peak")
def against_peak() -> str:
    return LM.beside("peak")


@claim("There an estimator beats the smaller batch for as many examples")
def against_examples() -> str:
    return LM.beside("examples")


def predicted() -> pd.DataFrame:
    """1 / (1 + ratio) of each estimator by variance and by cost over a hundred steps, means of the
    ratios over three states of training.
    """
    rows = read("whole/cost/cost.parquet").query("horizon == 100")
    ratios = rows.groupby("estimator")[["variance_ratio", "cost_ratio"]].mean()
    return 1 / (1 + ratios)


@claim("There runs end where the noise of their gradients says")
def foretold() -> str:
    guesses, found, parts = predicted(), LM.effective(), []
    off = {}
    for label, method in LM.methods.items():
        value, low, high = found[label]
        cost, variance = guesses.loc[method[0], ["cost_ratio", "variance_ratio"]]
        parts.append(f"{label} {value:.2f} [{low:.2f}, {high:.2f}], {cost:.2f}, {variance:.2f}")
        off[label] = np.log2([cost / value, variance / value])
    cost, variance = 2 ** np.sqrt((np.array(list(off.values())) ** 2).mean(0))
    return (
        f"read off, by cost, by variance: {'; '.join(parts)}; times off {cost:.1f}, {variance:.1f}"
    )
