"""Peak memory of real training steps: plain, sketched, checkpointed, and both, with what holds
it.
"""

import gc
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis import meter
from sketchvar.analysis.bench.roberta import Roberta
from sketchvar.analysis.loop import checkpoint_blocks, forward, start
from sketchvar.analysis.tasks import Batch, Task, find_task
from sketchvar.estimators import Choice, Exact, choices, sketch_linears
from sketchvar.estimators.catalog import check_known
from sketchvar.estimators.choice import Flags
from sketchvar.estimators.layers.linear import Sketched

COLUMNS = ["device", "shape", "layers", "batch", "length", "estimator", "rate"]
COLUMNS += ["checkpointing", "selective"]
COLUMNS += ["peak", "ratio", "theory", "resident", "saved", "account", "seconds"]
COLUMNS += Flags._fields
# of checkpointing: whether there is any, and whether products are kept
WAYS = ((False, False), (True, True), (True, False))


def roberta(batch: int, layers: int, length: int) -> Task:
    """The paper's model, as a classifier."""
    return Roberta(batch_size=batch, layers=layers, length=length)


def gpt2(batch: int, layers: int, length: int) -> Task:
    """GPT-2 small as a language model."""
    options = {"batch_size": batch, "depth": layers, "length": length}
    return find_task("stdlib-lm-gpt2", tuple(options.items()))


SHAPES = {"roberta-base": roberta, "gpt2-small": gpt2}


def measure_memory(
    estimators: Sequence[str] = ("uniform-rows", "countsketch"),
    rates: Sequence[float] = (0.5, 0.1),
    layers: int = 12,
    batches: Sequence[int] = (128,),
    length: int = 128,
    device: str = "cpu",
    timed: int = 0,
    shape: str = "roberta-base",
    progress: meter.Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per training step of a model of one of ``SHAPES`` with random
    weights: AdamW, float32, batch × ``length`` tokens, ``layers`` of its 12 blocks; plain, every
    estimator and rate, without activation checkpointing, with ``selective`` one (products are kept)
    and with whole, at every batch size.

    ``peak`` is the most bytes that torch's allocator held at once, ``ratio`` over the plain step's;
    ``resident`` is parameters and optimizer state; ``saved`` what autograd holds between forward
    and backward, ``account`` (JSON) that by operation. ``theory`` is the ratio if the sketched
    layers' inputs were held by nobody else: plain peak − Σ (input − kept bytes), without
    checkpointing. ``seconds`` is the median of ``timed`` more steps, all ways of a batch size in
    turn, so that a machine that slows down slows all; NaN for none, and until it is known.
    ``progress`` is called after every row. Raises ValueError for another shape, ImportError where
    transformers is needed and not installed.
    """
    check_known("shape", shape, SHAPES)
    compared = [Choice("plain", 1.0, Exact()), *choices(estimators, rates)]
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        task, plain = SHAPES[shape](batch, layers, length), 0
        steps: list[tuple[nn.Module, Choice, Callable[[], object]]] = []
        for checkpointing, selective in WAYS:
            training = start(task, 1, torch.device(device), seed=0)
            model, examples = training.model, training.batch(0)
            if checkpointing:
                checkpoint_blocks(model, selective)
            step = partial(training.advance, 0, examples)
            step()  # makes the optimizer's state
            resident = meter.resident(model, training.optimizer)
            for choice in compared:
                sketch_linears(model, choice.told())
                peak = resident + meter.peak(step, device)
                plain = plain or peak
                theory, account = float("nan"), {}
                # looking at what a checkpointed graph holds would compute it again
                if not checkpointing:
                    theory = 1 - count_sparable(model, examples) / plain
                    account = account_for(forward(task, model, examples, training.device))
                held = sum(account.values()) or float("nan")
                about = (device, shape, layers, batch, length, choice.name, choice.rate)
                took = float("nan")  # until all ways of this batch size are timed
                numbers = (peak, peak / plain, theory, resident, held, json.dumps(account), took)
                rows.append((*about, checkpointing, selective, *numbers, *choice.flags))
                steps += [(model, choice, step)] * bool(timed)
                if progress is not None:
                    progress(len(rows), len(WAYS) * len(batches) * len(compared))
                yield pd.DataFrame(rows, columns=COLUMNS)
            del training, model, step
            gc.collect()  # models refer to themselves, and the next one needs their memory
        if timed:
            table = pd.DataFrame(rows, columns=COLUMNS)
            table.loc[table.index[-len(steps) :], "seconds"] = time_in_turn(steps, timed, device)
            rows = list(table.itertuples(index=False, name=None))
            steps.clear()
            gc.collect()
            yield table


def time_in_turn(
    steps: Sequence[tuple[nn.Module, Choice, Callable[[], object]]], count: int, device: str
) -> list[float]:
    """Median seconds of each step, of ``count`` rounds over all of them."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(count):
        for (model, choice, step), mine in zip(steps, times, strict=True):
            sketch_linears(model, choice.told())
            mine.append(meter.seconds(step, device))
    return [statistics.median(each) for each in times]


def count_sparable(model: nn.Module, batch: Batch) -> int:
    """Σ over the distinct inputs of sketched layers: bytes of the input less what its estimator
    keeps, if less.
    """
    spared: dict[int, int] = {}
    inputs = []  # held, so that no two inputs have one address

    def note(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0]
        n, p = x.numel() // x.shape[-1], x.shape[-1]
        inputs.append(x)
        spared[x.data_ptr()] = max(x.nbytes - layer.estimator.kept_bytes(n, p, x.dtype), 0)  # type: ignore[operator, union-attr]

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, Sketched)]
    with torch.no_grad():
        model(batch[0])
    for hook in hooks:
        hook.remove()
    return sum(spared.values())


def account_for(output: Tensor) -> dict[str, int]:
    """Bytes that the graph of ``output`` holds for backward, by the operation that holds them;
    parameters excepted.

    A memory that several hold counts for the first met. It is the account of what sketching leaves:
    activation functions, normalisation, attention and dropout keep tensors of their own.
    """
    held: dict[str, int] = {}
    seen: set[int] = set()
    stack, visited = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        stack += [parent for parent, _ in node.next_functions]
        if hasattr(node, "variable"):
            seen.add(node.variable.untyped_storage().data_ptr())
    for node in visited:
        names = [
            n for n in dir(node) if n.startswith("_saved_") and not n.startswith("_saved_tensors")
        ]
        values = [getattr(node, n) for n in names] + list(getattr(node, "saved_tensors", ()))
        for value in values:
            for t in value if isinstance(value, tuple | list) else (value,):
                if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in seen:
                    seen.add(t.untyped_storage().data_ptr())
                    name = node.name().removesuffix("Backward0").removesuffix("Backward")
                    held[name] = held.get(name, 0) + t.untyped_storage().nbytes()
    return dict(sorted(held.items(), key=lambda item: -item[1]))
