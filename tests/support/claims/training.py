"""Claims about training with estimators."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from support.claims import TASKS, claim, read, span
from support.recorded import DATA, METHOD, final, list_methods, read_finals

from sketchvar.analysis.sweep.outcome import LONGER
from sketchvar.analysis.sweep.pooled import Difference, Finals, holm

COLA = "glue-cola-minilm"
ROUNDED, SKETCHED = ("rounding:2", 1.0), ("countsketch", 0.1)
Found = dict[tuple, Difference]  # task, estimator, rate -> difference to its baseline


@cache
def finals(task: str, smaller: bool = False) -> Finals:
    """Final validation losses; with ``smaller`` those of data/equal-bytes too."""
    return read_finals(task, smaller=smaller)


def compare(baseline: Callable[[str, tuple], float], smaller: bool = False) -> Found:
    """Every method of every task less exact training on its baseline's batch."""
    return {
        (task, *method[:2]): losses.differ_from_exact(method, baseline(task, method))
        for task in TASKS
        for losses in [finals(task, smaller)]
        for method in list_methods(losses)
    }


def resolved(found: Found, sign: int) -> set[tuple]:
    """Those below (−1) or above (1) zero at a joint level of 0.05 (Holm)."""
    adjusted = holm([each.p for each in found.values()])
    both = zip(found.items(), adjusted, strict=True)
    return {key for (key, each), p in both if p < 0.05 and sign * each.mean > 0}


@cache
def memory(task: str) -> pd.DataFrame:
    """Bytes left for backward by estimator and rate."""
    later = DATA / "equal-bytes" / task
    (file,) = (later if later.exists() else DATA / "train" / task).glob("memory-*.parquet")
    return pd.read_parquet(file).set_index(["estimator", "rate"]).sort_index()


@cache
def smaller(task: str) -> pd.DataFrame:
    """A row per batch of data/equal-bytes, checkpointing apart."""
    rows = read(f"equal-bytes/{task}/summary.parquet").query("not checkpointing")
    return rows.set_index(METHOD).sort_index()


@cache
def summary(task: str) -> pd.DataFrame:
    """A row per method, checkpointing apart."""
    rows = read(f"train/{task}/summary.parquet").query("not checkpointing")
    return rows.set_index(METHOD).sort_index()


def same_bytes(task: str, method: tuple) -> float:
    """The recorded batch on which exact training leaves no more bytes for backward."""
    return float(memory(task)["same_memory_batch"][method[:2]])


def same_peak(task: str, method: tuple) -> float:
    """The batch of exact training with this peak, by straight lines between those trained."""
    peak = summary(task)["peak"]
    exact = peak["exact", 1.0]
    return float(np.interp(peak[method], exact, exact.index))


@claim("At equal updates an estimator trains better than the smaller batch of the same held bytes")
def at_held_bytes() -> str:
    found = compare(same_bytes, smaller=True)
    better = resolved(found, -1)
    assert better == {("cifar10-vit", *ROUNDED), ("cifar10-vit", *SKETCHED)}
    assert not resolved(found, 1)
    return f"{len(better)} of {len(found)} resolved: {on_the_vit(found)}"


def on_the_vit(found: Found) -> str:
    """The two differences that held bytes resolve."""
    bits, rows = (found["cifar10-vit", *method] for method in (ROUNDED, SKETCHED))
    return f"ViT, 2 bits {bits}, CountSketch at 0.1 {rows}"


@claim("… in score, on CoLA")
def score_at_held_bytes() -> str:
    """Matthews' correlation less that of the batch of as many bytes held, and of the same peak."""
    scores, partners = read_finals(COLA, "metric", smaller=True), memory(COLA)
    held, peak = (
        {
            (COLA, *method[:2]): scores.differ_from_exact(method, float(batches[method[:2]]))
            for method in list_methods(scores)
        }
        for batches in (partners["same_memory_batch"], partners["same_peak_batch"])
    )
    better, behind = resolved(held, 1), resolved(peak, -1)
    assert {rate for _, _, rate in better} == {0.5, 1.0} and len(better) == 5
    assert not resolved(held, -1) and not resolved(peak, 1)
    assert {rate for _, _, rate in behind} == {0.1}
    return (
        f"{len(better)} of {len(held)} resolved, by {span([held[key].mean for key in better])}"
        f" ± {held[COLA, *ROUNDED].half:.2f}: all at rate 0.5 and 2 bits; beside the same peak none"
        f" better, {len(behind)} at 0.1 worse, by {span([-peak[key].mean for key in behind])}"
    )


@claim("… than the smaller batch of the same peak")
def at_equal_peak() -> str:
    found = compare(same_peak)
    assert not resolved(found, 1)
    return f"{len(resolved(found, -1))} of {len(found)} resolved: {on_the_vit(found)}"


@claim("… than the smaller batch for as many examples")
def for_as_many_examples() -> str:
    found = {}
    for task in TASKS[:3]:
        (small,) = (each for each in finals(task).table.index if each[0] == LONGER)
        for method in list_methods(finals(task)):
            found[task, *method[:2]] = finals(task).differ(method, small)
    better, worse = resolved(found, -1), resolved(found, 1)
    assert {key[::2] for key in worse} == {("stdlib-lm", 0.1)}
    apart = span([found[key].mean for key in worse])
    return (
        f"{len(better)} of {len(found)} resolved; worse in {len(worse)}, all of stdlib-lm at 0.1,"
        f" by {apart} ± {found['stdlib-lm', *SKETCHED].half:.2f}"
    )


@claim("Gaussian at rate 0.1 is worse than the smaller batch on stdlib-lm")
def gaussian_on_stdlib() -> str:
    return str(compare(same_bytes, smaller=True)["stdlib-lm", "gaussian", 0.1])


@claim("At rate 0.5, and at 2 bits, nothing is lost against exact training")
def at_half_the_rows() -> str:
    found = compare(lambda task, method: method[2])
    mild = {key for key in found if key[2] != 0.1}
    assert not resolved(found, -1) and not resolved(found, 1) & mild
    seen = ", ".join(f"{finals(task).detectable():.3f}" for task in TASKS)
    return f"0 of {len(mild)} resolved; with power 0.8 these seeds show {seen}"


@claim("Noise costs score on CoLA")
def score_on_cola() -> str:
    rows = final(DATA / "train" / "glue-cola-minilm").set_index(METHOD)["metric"].sort_index()
    zero = [("gaussian", 0.1, 32), ("countsketch", 0.1, 32), ("exact", 1.0, 8)]
    assert all(list(rows[method]) == [0, 0, 0] for method in zero)
    longer = final(DATA / "equal-time" / "glue-cola-minilm")["metric"].mean()
    whole = rows["exact", 1.0, 32].mean()
    short = final(DATA / "equal-bytes" / "glue-cola-minilm").set_index("batch")["metric"]
    return (
        "after 400 updates MCC 0 with 3 of 3 seeds for Gaussian and CountSketch at 0.1 and exact"
        f" batch 8; exact batch 15 {short.loc[15].mean():.2f}, after 854 {longer:.2f}; exact batch"
        f" 32 {whole:.2f}"
    )


@claim("A ratio r trains like exact training on 1 / (1 + r) of the batch")
def prediction() -> str:
    effective = {}
    for task in TASKS:
        rows = read(f"train/{task}/predictions.parquet")
        for name, rate, batch in rows[["estimator", "rate", "effective_batch"]].to_numpy():
            effective[task, name, rate] = batch
    found = compare(lambda task, method: effective[task, *method[:2]])
    drop = ", ".join(str(found[task, "uniform-rows", 0.1]) for task in TASKS)
    return (
        f"trains better in {len(resolved(found, -1))} of {len(found)}, worse in"
        f" {len(resolved(found, 1))}; rows at 0.1: {drop}"
    )
