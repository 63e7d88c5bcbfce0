"""Claims about memory and time."""

import pandas as pd
from support.claims import TASKS, claim, read, span
from support.claims.training import SKETCHED, memory, same_bytes, smaller, summary


@claim("Memory falls by a fifth or more")
def peaks() -> str:
    rows = pd.concat(read(f"memory/{run}/memory.parquet") for run in ("batch-128", "roberta"))
    rows = rows.query("estimator == 'countsketch' and rate == 0.1 and not checkpointing")
    saved = 100 * (1 - rows.set_index("batch")["ratio"])
    small = pd.concat(summary(task).query("rate == 0.1")["peak"] for task in TASKS[2:])
    return (
        f"{saved[128]:.1f} % at batch 128 of RoBERTa-base's shape, {saved[32]:.1f} % at 32,"
        f" {saved[16]:.1f} % at 16; MiniLM {span(100 * (1 - small), '.0f')} %"
    )


@claim("Fewer bytes held mean a lower peak")
def rounding_peak() -> str:
    rows = read("memory/roberta/memory.parquet").query("batch == 32 and not checkpointing")
    now = rows[rows["rate"] != 0.5].set_index("estimator")["ratio"]
    assert now["rounding:1"] < now["rounding:2"] < now[["countsketch", "feature-rademacher"]].min()
    held = (memory("cifar10-vit")["activations"] / memory("cifar10-vit")["exact"])["rounding:2", 1]
    before = summary("cifar10-vit")["peak"]["rounding:2", 1.0, 32]
    return (
        f"RoBERTa-base's shape, batch 32: 1 bit {now['rounding:1']:.3f}, 2 bits"
        f" {now['rounding:2']:.3f}, CountSketch and features at 0.1 {now['countsketch']:.3f},"
        f" {now['feature-rademacher']:.3f} of the peak; when backward still restored X whole, 2"
        f" bits on the ViT: held {held:.2f}, peak {before:.2f}"
    )


def peaks_of(shape: str) -> tuple[pd.Series, float]:
    """Peaks over the plain step's at the larger batch, by estimator, checkpointing and selective;
    and the part of that batch on which the plain step has the peak of 2 bits: peaks are linear in
    the batch.
    """
    rows = read(f"memory/{shape}/memory.parquet")
    rows = rows[rows["rate"] != 0.5].assign(selective=lambda table: table["selective"].astype(bool))
    by = rows.set_index(["batch", "estimator", "checkpointing", "selective"]).sort_index()
    small, large = sorted(set(rows["batch"]))
    least, most = (by.loc[(batch, "plain", False, False), "peak"] for batch in (small, large))
    mine = by.loc[(large, "rounding:2", False, False), "peak"]
    batch = small + (large - small) * (mine - least) / (most - least)
    return by.loc[large]["ratio"], batch / large


@claim("A sketch takes more off a peak than checkpointing does")
def beside_checkpointing() -> str:
    parts = []
    for shape, name in {"roberta": "RoBERTa-base's shape", "gpt2": "GPT-2 small's"}.items():
        at, batch = peaks_of(shape)
        bits, plain = at["rounding:2"], at["plain"]
        assert plain[True, False] < plain[True, True] and plain[True, False] < bits[False, False]
        parts.append(
            f"{name}: 2 bits {bits[False, False]:.3f} (as a batch of {batch:.2f}), selective"
            f" {plain[True, True]:.3f}, with 2 bits {bits[True, True]:.3f}, whole"
            f" {plain[True, False]:.3f}, with 2 bits {bits[True, False]:.3f}"
        )
    return "; ".join(parts)


@claim("Checkpointing costs time, and few bits next to none")
def time_beside_checkpointing() -> str:
    rows = read("memory/roberta-time/memory.parquet")
    seconds = rows.set_index(["estimator", "checkpointing", "selective"])["seconds"]
    over = seconds / seconds["plain", False, False]
    plain, bits = over["plain"], over["rounding:2"]
    return (
        f"2 bits {bits[False, False]:.2f}; selective {plain[True, True]:.2f}, with 2 bits"
        f" {bits[True, True]:.2f}; whole {plain[True, False]:.2f}, with 2 bits"
        f" {bits[True, False]:.2f}"
    )


@claim("Sketched layers are fast")
def layer_times() -> str:
    rows = read("layers/layer.parquet").query("mode == 'train' and rows == 8192")
    at = rows.set_index(["estimator", "rate"])["ratio"].sort_index()
    names = {"uniform rows": "uniform-rows", "CountSketch": "countsketch", "Gaussian": "gaussian"}
    times = [f"{word} {at[n, 0.5]:.2f} and {at[n, 0.1]:.2f}" for word, n in names.items()]
    return f"time over `nn.Linear` at 0.5 and 0.1: {', '.join(times)}"


@claim("Few bits cost a layer time")
def rounding_times() -> str:
    rows = read("layers/winners/layer.parquet").query("mode == 'train' and rows == 8192")
    at = rows.set_index(["estimator", "q"])["ratio"]
    names = {"1 bit": "rounding:1", "2 bits": "rounding:2", "NVFP4": "nvfp4", "FP8": "fp8"}
    times = [f"{word} {at[n, 3072]:.2f} and {at[n, 768]:.2f}" for word, n in names.items()]
    steps = [
        read(f"layers/step-{task}/step.parquet").iloc[0] for task in ("stdlib-lm", "glue-cola")
    ]
    whole = [f"{step['ratio']:.2f} [{step['low']:.2f}, {step['high']:.2f}]" for step in steps]
    return (
        f"time over `nn.Linear` with 3072 and 768 outputs: {', '.join(times)}; whole steps with 2"
        f" bits: stdlib-lm {whole[0]}, MiniLM on CoLA {whole[1]}"
    )


@claim("A smaller batch is faster than a sketch of the same held bytes")
def step_times() -> str:
    small, sketched = [], []
    for task in TASKS:
        seconds, batch = summary(task)["seconds"], same_bytes(task, SKETCHED)
        beside = seconds if ("exact", 1.0, batch) in seconds else smaller(task)["seconds"]
        small.append(beside["exact", 1.0, batch])
        sketched.append(seconds.drop("gaussian").xs(0.1, level="rate"))
    return (
        f"time over exact: {span(small)}; sketches at 0.1 but Gaussian {span(pd.concat(sketched))}"
    )


@claim("Checkpointing holds less than any estimator, with the exact gradient")
def checkpointing() -> str:
    held, lines = [], []
    for task in TASKS:
        share = memory(task)["activations"] / memory(task)["exact"]
        assert share["checkpointing", 1] == share.min()
        held.append(100 * share.min())
        lines.append(read(f"train/{task}/summary.parquet").query("checkpointing"))
    table = pd.concat(lines)
    return f"held {span(held, '.0f')} %, peak {span(table['peak'])}, time {span(table['seconds'])}"
