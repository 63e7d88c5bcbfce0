"""Parts of the GPU suite about single layers: their time and memory, and where the time goes."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity

from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.gpu.run import Run
from sketchvar.estimators import SketchedLinear, parse


def measure_layers(run: Run) -> Iterator[pd.DataFrame]:
    """Time of a layer over nn.Linear's, and memory: bytes held between forward and backward, and
    the peak of both.
    """
    s, done = run.scale, pd.DataFrame()
    for dtype in s.dtypes:
        for shape in s.shapes:
            for name in s.layer_estimators:
                tables = bench_layer.time_layers(
                    (name,), s.rates, (shape,), s.repeats, run.device, dtype
                )
                rows = done
                for table in run.fits(f"{name}, {shape}, {dtype}", add_memory(tables, run.device)):
                    rows = pd.concat([done, table], ignore_index=True)
                    yield rows
                done = rows


def add_memory(tables: Iterator[pd.DataFrame], device: str) -> Iterator[pd.DataFrame]:
    """The rows of training layers, with ``held`` more, over nn.Linear's."""
    found: list[float] = []
    for table in tables:
        rows = table[table["mode"] == "train"]
        if len(rows) > len(found):
            found.append(compare_held(rows.to_dict("records")[-1], device))
            yield rows.assign(held=found)


def compare_held(row: dict[Any, Any], device: str) -> float:
    """Bytes that autograd holds between forward and backward, over nn.Linear's, which holds X."""
    where: dict[str, Any] = {"device": device, "dtype": getattr(torch, row["dtype"])}
    x = torch.randn(row["rows"], row["p"], requires_grad=True, **where)
    layer = SketchedLinear(row["p"], row["q"], parse(row["estimator"], row["rate"]), **where)
    return sum(bench_memory.account_for(layer(x)).values()) / x.nbytes


def profile_layers(run: Run) -> Iterator[pd.DataFrame]:
    """Where the time of layers of the first shape goes, by operator, at the smallest rate: why a
    number misses.
    """
    s, (n, p, q), rows = run.scale, run.scale.shapes[0], []
    where: dict[str, Any] = {"device": run.device, "dtype": s.dtypes[0]}
    x, y = torch.randn(n, p, requires_grad=True, **where), torch.randn(n, q, **where)
    activity = ProfilerActivity.CPU if run.device == "cpu" else ProfilerActivity.CUDA
    for name in ("exact", *s.layer_estimators):
        layer = SketchedLinear(p, q, parse(name, min(s.rates)), **where)  # exact: the plain layer
        bench_layer.step(layer, x, y)
        with torch.profiler.profile(activities=[activity]) as seen:
            for _ in range(s.repeats):
                bench_layer.step(layer, x, y)
        for event in seen.key_averages():
            spent = (
                event.self_cpu_time_total if run.device == "cpu" else event.self_device_time_total
            )
            rows.append(
                (
                    run.device,
                    name,
                    min(s.rates),
                    event.key,
                    event.count / s.repeats,
                    spent / s.repeats / 1e6,
                )
            )
        yield pd.DataFrame(
            rows, columns=["device", "estimator", "rate", "operator", "calls", "seconds"]
        )
