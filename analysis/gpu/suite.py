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
from sketchvar.analysis.gpu.parts import PARTS
from sketchvar.analysis.gpu.run import Run
from sketchvar.analysis.gpu.scale import TINY, Scale
from sketchvar.analysis.tasks.glue_data import first_line


class Result(NamedTuple):
    """What came of a part: rows, seconds, "done" or what stopped it, and what it left out."""

    part: str
    rows: int
    seconds: float
    state: str
    skipped: list[str]


def run_suite(
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
        say(f"{part}: at most {max(end - now, 0) * shares[0] / sum(shares) / 60:.1f} minutes")
        run = Run(scale, out, device, now + (end - now) * shares[0] / sum(shares))
        rows, state = carry_out(part, run)
        results[part] = Result(part, len(rows), monotonic() - now, state, run.skipped)._asdict()
        records.write_json(out / "suite.json", origin | {"parts": results})
        records.atomically(
            out / "README.md", lambda path: path.write_text(describe(out, origin, results))
        )
        say(f"{part}: {state}, {len(rows)} rows in {monotonic() - now:.0f} s")
        left = left[1:]
    return [Result(**results[part]) for part in PARTS if part in results]


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


def list_numbers(out: Path) -> pd.DataFrame:
    """List the numbers that were set for a GPU in bfloat16: what, the bound, and the measured value
    where there is one.
    """
    lines: list[tuple[str, str, float]] = []
    if (rows := read_if_there(out / "layers.parquet")) is not None:
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
    if (rows := read_if_there(out / "kernels.parquet")) is not None:
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
    if (rows := read_if_there(out / "probe.parquet")) is not None:
        for level, bound in (("row", "≤ 1.03"), ("example", "≤ 1.10")):
            time = rows.loc[rows["level"] == level, "time"]
            lines.append((f"probe by {level}, time / plain step", bound, time.max()))
    return pd.DataFrame(lines, columns=["number", "bound", "measured"])


def name_device(device: str) -> str:
    """The name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device != "cpu" else "cpu"


def read_if_there(path: Path) -> pd.DataFrame | None:
    return records.read_rows(path) if path.exists() else None


def describe(out: Path, origin: dict[str, Any], results: dict[str, Any]) -> str:
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
            f"| {n.number} | {n.bound} | {n.measured:.3f} |" for n in list_numbers(out).itertuples()
        ]
    parts = {name: (part.__doc__ or "").split("\n")[0] for name, (_, part) in PARTS.items()}
    lines += ["", *(f"- `{name}`: {about}" for name, about in parts.items() if name in results), ""]
    return "\n".join(lines)
