"""The GPU suite: what every claim about a GPU rests on, in parts that run one after the other
within a time limit.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.claim import open_folder
from sketchvar.analysis.gpu.parts import PARTS, Run, Scale
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.tasks.glue_data import first_line
from sketchvar.estimators import CATALOG, choices

KNOWN = choices(CATALOG, 1.0)
WITH_CLOSED_FORM = tuple(choice.name for choice in KNOWN if not choice.no_closed_form)
# Haar orthonormalises an n × k matrix for every step, which no layer can afford
FIRST = (
    "countsketch",
    "uniform-rows",
    "gaussian",
    "rademacher",
    "rounding:4",
    "rounding:2",
    "norm-rows",
)
OTHERS = (choice.name for choice in KNOWN if not choice.oracle)
OF_LAYERS = (*FIRST, *(name for name in OTHERS if name not in {"exact", "haar", *FIRST}))
TRAINED = ("gaussian", "countsketch", "centered(countsketch)", "uniform-rows", "rounding:2")
FULL = Scale(
    task="stdlib-lm-gpt2",
    options=(),
    steps=300,
    measure_at=(0, 10, 30, 100, 300),
    draws=64,
    estimators=WITH_CLOSED_FORM,
    rates=(0.5, 0.2, 0.1, 0.05),
    layer_estimators=OF_LAYERS,
    shapes=(
        (16384, 4096, 4096), (16384, 4096, 11008), (16384, 11008, 4096),  # Llama-7B
        (16384, 768, 2304), (16384, 768, 3072), (16384, 3072, 768),  # GPT-2
        (8192, 768, 768), (8192, 768, 3072), (8192, 3072, 768),  # RoBERTa-base
    ),
    dtypes=(torch.bfloat16, torch.float32),
    repeats=15,
    encoder_layers=12,
    # the paper's batch sizes; tokens are those of the longest of the first thousand training
    # examples (word pieces of MiniLM's vocabulary), but for QQP and QNLI, where they are inferred
    # from the paper's own peaks
    batches=(
        ("CoLA", 256, 33), ("MRPC", 128, 89), ("QQP", 32, 277), ("SST-2", 256, 56),
        ("STS-B", 64, 49), ("WNLI", 128, 108), ("RTE", 32, 250), ("QNLI", 16, 446),
    ),
    memory_estimators=("gaussian", "countsketch", "uniform-rows", "rounding:2"),
    memory_rates=(0.5, 0.2, 0.1),
    matrix=(16384, 4096),
    side=8192,
    grids=tuple(
        Grid(f"glue/{task}", (("pretrained", "minilm"),), TRAINED, (0.5, 0.1), (seed,), 1000)
        for seed in range(5)
        for task in ("cola", "mrpc", "rte", "sst-2")
    ),
)  # fmt: skip
TINY = Scale(
    task="stdlib-lm",
    options=(
        ("width", 16),
        ("depth", 1),
        ("heads", 2),
        ("length", 8),
        ("batch_size", 4),
        ("precision", "bfloat16"),
    ),
    steps=2,
    measure_at=(0, 2),
    draws=3,
    estimators=WITH_CLOSED_FORM,
    rates=(0.5,),
    layer_estimators=OF_LAYERS,
    shapes=((64, 16, 24),),
    dtypes=(torch.float32,),
    repeats=2,
    encoder_layers=1,
    batches=(("CoLA", 2, 8),),
    memory_estimators=("countsketch", "rounding:2"),
    memory_rates=(0.5,),
    matrix=(128, 64),
    side=64,
    grids=(Grid("digits-mlp", (("batch_size", 8),), ("countsketch",), (0.5,), (0,), 2, 1),),
)


class Result(NamedTuple):
    """What came of a part: rows, seconds, "done" or what stopped it, and what it left out."""

    part: str
    rows: int
    seconds: float
    state: str
    skipped: list[str]


def suite(
    scale: Scale,
    out: Path,
    device: str,
    minutes: float,
    parts: Sequence[str] = tuple(PARTS),
    say: Callable[[str], object] = print,
) -> list[Result]:
    """Run the parts within ``minutes``; each writes <part>.parquet (or a folder of its own) as it
    goes.

    A part gets its share of what is left of the time, and what the parts before did not use. What
    runs out of time or memory, or lacks a package, is noted, with what was measured kept, and the
    next part runs. The same call again goes on: parts that were done are not run again. Raises
    ValueError where ``out`` holds a suite of another device.
    """
    origin = records.provenance(torch.device(device))
    begun = open_folder(out, "GPU suite", "suite.json")
    before = records.read_json(out / "suite.json") if begun else {"parts": {}, **origin}
    if before["hardware"] != origin["hardware"]:
        raise ValueError(
            f"{out} was measured on {before['hardware']}, this is {origin['hardware']}; choose"
            " another --out"
        )
    words = f"sketchvar gpu-suite{' --tiny' if scale is TINY else ''} --minutes {minutes:g}"
    origin["command"] = words + (
        "" if tuple(parts) == tuple(PARTS) else f" --parts {' '.join(parts)}"
    )
    results: dict[str, Any] = before["parts"]
    end = monotonic() + 60 * minutes
    left = [part for part in parts if results.get(part, {}).get("state") != "done"]
    while left:
        part, shares = left[0], [PARTS[name][0] for name in left]
        now = monotonic()
        say(f"{part}: {max(end - now, 0) * shares[0] / sum(shares) / 60:.1f} minutes")
        run = Run(scale, out, device, now + (end - now) * shares[0] / sum(shares))
        rows, state = carry_out(part, run)
        results[part] = Result(part, len(rows), monotonic() - now, state, run.skipped)._asdict()
        records.write_json(out / "suite.json", origin | {"parts": results})
        records.atomically(
            out / "README.md", lambda path: path.write_text(readme(out, origin, results))
        )
        say(f"{part}: {state}, {len(rows)} rows in {monotonic() - now:.0f} s")
        left = left[1:]
    return [Result(**results[part]) for part in PARTS if part in results]


def name_device(device: str) -> str:
    """The name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device != "cpu" else "cpu"


def carry_out(part: str, run: Run) -> tuple[pd.DataFrame, str]:
    """Run one part until it ends or its time does; the rows that it wrote, and "done" or why
    not.
    """
    rows = pd.DataFrame()
    try:
        run.check()
        for rows in PARTS[part][1](run):
            if not (run.out / part).is_dir():  # a study has its own files
                records.write_rows(run.out / f"{part}.parquet", rows)
            run.check()
    except TimeoutError as error:
        return rows, str(error)
    except Exception as error:  # whatever it is, the parts to come are worth running
        return rows, f"{type(error).__name__}: {first_line(error)}"
    return rows, "done"


def numbers(out: Path) -> pd.DataFrame:
    """The numbers that were set for a GPU in bfloat16: what, the bound, and the measured value
    where there is one.
    """
    lines: list[tuple[str, str, float]] = []
    if (rows := read(out / "layers.parquet")) is not None:
        large = rows[(rows["dtype"] == "bfloat16") & (rows["p"] == 4096) & (rows["q"] == 4096)]
        for name in ("countsketch", "uniform-rows"):
            part = large[large["estimator"] == name]
            lines.append(
                (
                    f"{name} layer 4096 → 4096, worst time / theory",
                    "≤ 1.10",
                    (part["ratio"] / part["theory"]).max(),
                )
            )
    if (rows := read(out / "kernels.parquet")) is not None:
        narrow = rows[rows["dtype"] == "bfloat16"].groupby("kernel")["of_limit"].min()
        lines.append(
            (
                "countsketch kernel, worst fraction of copy bandwidth",
                "≥ 0.70",
                narrow.get("countsketch", float("nan")),
            )
        )
        lines.append(
            (
                "gaussian kernel, worst time / that of its FLOPs",
                "≤ 1.15",
                1 / narrow.get("gaussian", float("nan")),
            )
        )
    if (rows := read(out / "probe.parquet")) is not None:
        for level, bound in (("row", "≤ 1.03"), ("example", "≤ 1.10")):
            time = rows.loc[rows["level"] == level, "time"]
            lines.append((f"probe by {level}, time / plain step", bound, time.max()))
    return pd.DataFrame(lines, columns=["number", "bound", "measured"])


def read(path: Path) -> pd.DataFrame | None:
    return records.read_rows(path) if path.exists() else None


def readme(out: Path, origin: dict[str, Any], results: dict[str, Any]) -> str:
    """What the folder holds, where and with what it was measured."""
    versions = ", ".join(f"{name} {origin[name]}" for name in ("python", *records.PACKAGES))
    lines = [f"# {origin['hardware']}, {origin['date'][:10]}", ""]
    lines += [f"Made by `{origin['command']}` (the last call, if the parts came from several).", ""]
    if origin["device"] == "cpu":
        lines += [
            "At toy size on a CPU: a test of the suite, which says nothing about any GPU.",
            "",
        ]
    lines += [f"Device: {origin['hardware']}. Versions: {versions}. Commit {origin['commit']}.", ""]
    lines += ["| part | rows | seconds | state | left out |", "|---|---|---|---|---|"]
    for r in results.values():
        lines.append(
            f"| {r['part']} | {r['rows']} | {r['seconds']:.0f} | {r['state']} |"
            f" {'; '.join(r['skipped'])} |"
        )
    if origin["device"] != "cpu":
        lines += ["", "| number | bound | measured |", "|---|---|---|"]
        lines += [
            f"| {n.number} | {n.bound} | {n.measured:.3f} |" for n in numbers(out).itertuples()
        ]
    parts = {name: (part.__doc__ or "").split("\n")[0] for name, (_, part) in PARTS.items()}
    lines += ["", *(f"- `{name}`: {about}" for name, about in parts.items() if name in results), ""]
    return "\n".join(lines)
