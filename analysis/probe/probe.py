"""Probe: per-layer statistics of an unmodified model while it trains."""

import sys
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sketchvar.analysis import records
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.noise.table import COLUMNS, choose_comparable, tabulate
from sketchvar.analysis.probe.coverage import coverage
from sketchvar.analysis.probe.observer import Observer
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.scalars import write_scalars
from sketchvar.analysis.probe.units import Examples
from sketchvar.analysis.probe.watch import NOT_FINITE, layers
from sketchvar.estimators.choice import Estimators, Rates, as_list


class Probe:
    """Measures the weight gradients of ``model`` in the training loop inside a ``with`` block.

        with Probe(model, estimators=["countsketch", "uniform-rows"], rates=[0.5, 0.1], every=10) as
        probe:
            for batch in loader:
                loss(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                probe.step()
        probe.rows()  # a DataFrame; probe.coverage() says what was not measured, and why

    Or one step, without a table: ``with Probe(model) as probe: loss(model, batch).backward()``,
    then ``probe.read()``.

    The model is unmodified: its loss and gradients are its own, but for the order in which a long
    sequence's weight gradient is summed (``FusedLinear``), which rounds differently. Between
    measured steps nothing is attached.

    ``every``: measure steps 0, every, 2·every, ...; ``first`` is the number of the first step,
    where training goes on.
    ``examples``: which rows are one example. The dimension of a layer's input that counts examples;
    or, for packed sequences, an integer tensor with the example of every row, negative for padding;
    or a function of the model's arguments that gives one.
    ``by_example=False`` leaves the per-example norms out (minibatch variance by row only).
    ``scaler``: the GradScaler, where the loss is scaled; what is measured is divided by its scale.
    ``group``: the ranks over which gradients are averaged; known by itself where ``model`` is
    wrapped by DDP or FSDP2.
    Leaving the block, ``step`` after a measured step, and ``read`` are then called by all ranks
    alike.
    ``pairs`` names layers whose X and Y stay in their ``Moments``, for draws; all others keep row
    norms only, unless an estimator's closed form needs X and Y (rounding, centring): then those of
    all layers stay until ``step``.
    ``out``: a folder; every measured step adds a Parquet file with its rows, and
    ``pandas.read_parquet`` of the folder is the table. ``writer``: a TensorBoard writer, or
    anything with its ``add_scalar``. The first rank writes.

    Under torch.compile a measured step runs eagerly and all others compiled, whichever came first.
    Raises ValueError for a model without a weight that can be measured, unknown names, rates
    outside (0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        by_example: bool = True,
        pairs: Collection[str] = (),
        *,
        estimators: Estimators = (),
        rates: Rates = (),
        every: int = 1,
        first: int = 0,
        examples: Examples = 0,
        scaler: Any = None,
        group: Any = None,
        run: str = "",
        out: Path | str | None = None,
        writer: Any = None,
    ) -> None:
        self.ranks = Ranks.of(model, group)
        self.model = unwrapped(model)
        self.choices = choose_comparable(estimators, rates)
        whole = [choice for choice in self.choices if choice.needs_pair]
        self.observer = Observer(
            self.model, by_example, pairs, examples, scaler, every_pair=bool(whole)
        )
        self.watched = self.observer.watched
        if unknown := set(pairs) - set(self.watched):
            raise ValueError(
                f"no trained layer called {min(unknown)!r}; known are {', '.join(self.watched)}"
            )
        if pairs and self.ranks.size > 1:
            raise ValueError(
                "pairs= keeps X and Y of one process, and this model trains on several; leave"
                " it out"
            )
        if whole and self.ranks.size > 1:
            raise ValueError(
                f"{whole[0]} needs X and Y themselves, and this model trains on several processes;"
                " leave it out"
            )
        if every < 1:
            raise ValueError(f"every must be 1 or more, got {every}")
        if as_list(rates) and not self.choices:
            raise ValueError("rates= needs estimators=, as in estimators=['countsketch']")
        self.every, self.number = every, first
        self.run, self.writer, self.out = run, writer, None if out is None else Path(out)
        if self.out is not None:
            if self.out.is_file():
                raise ValueError(
                    f"out= is a folder of Parquet files, and {out} is a file; name another"
                )
            self.out.mkdir(parents=True, exist_ok=True)
        self.attached = False
        self.measured = 0  # steps
        self.not_finite: Counter[str] = Counter()
        self._rows, self._said = list[tuple[Any, ...]](), set[str]()

    def __enter__(self) -> "Probe":
        self._attend()
        return self

    def __del__(self) -> None:
        if getattr(self, "attached", False) and not sys.is_finalizing():
            warnings.warn(
                "a Probe was left attached, and is detached now; use it in a with block",
                stacklevel=2,
            )
            self.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the model as it was. The end of the block does it."""
        if self.attached:
            self.observer.detach()
            self.attached = False

    def step(self) -> None:
        """The end of a training step, after its last backward pass: put what was measured into the
        table.

        Warns, once each, of layers that could not be read and of a variance that one example does
        not have.
        """
        if self.attached:
            found = self.read()
            self.measured += 1
            self.not_finite.update(
                name for name, watch in self.watched.items() if watch.problem == NOT_FINITE
            )
            self.observer.over = True
            if self.choices:
                self._tabulate(found)
                self.observer.forget_pairs()
        self.number += 1
        self._attend()

    def read(self) -> dict[str, Layer]:
        """Layer name -> what the last measured step told. The ones that cannot be read are
        explained by coverage().
        """
        found = layers(list(self.watched.values()), self.ranks, self.observer.scale)
        if missing := self.observer.missing():
            name, reason = next(iter(missing.items()))
            self._say(
                f"the probe read {len(found)} of {len(found) + len(missing)} layers; {name}:"
                f" {reason}; coverage() has the rest"
            )
        counts = {
            layer.examples: layer.name for layer in found.values() if layer.example_sq is not None
        }
        if 1 in counts:
            self._say(
                "one example has no minibatch variance: it is NaN, and so is the ratio; give larger"
                " batches"
            )
        if len(counts) > 1:
            seen = ", ".join(f"{count} in {name}" for count, name in counts.items())
            self._say(
                f"layers saw different numbers of examples: {seen}; say with examples= which rows"
                " are one"
            )
        return found

    def rows(self) -> pd.DataFrame:
        """The table so far: a row per layer, measured step and choice of estimator and rate,
        columns ``COLUMNS``.
        """
        return pd.DataFrame(self._rows, columns=COLUMNS)

    def coverage(self) -> pd.DataFrame:
        """A line per weight matrix: parameter, module, share of all parameters, measured in the
        last measured step, the reason if not, and the number of measured steps that were skipped
        because a gradient was not finite.
        """
        return coverage(self.model, self.watched.values(), self.not_finite)

    def _attend(self) -> None:
        """Be attached for the next step if it is to be measured, and only then."""
        if self.number % self.every:
            self.close()
        elif not self.attached:
            self.observer.attach()
            self.attached = True

    def _tabulate(self, found: dict[str, Layer]) -> None:
        rows = [(self.run, self.number, *row) for row in tabulate(found.values(), self.choices)]
        self._rows += rows
        if not rows or not self.ranks.first or (self.out is None and self.writer is None):
            return
        table = pd.DataFrame(rows, columns=COLUMNS)
        if self.out is not None:
            records.write_rows(self.out / f"step-{self.number:08d}.parquet", table)
        if self.writer is not None:
            write_scalars(self.writer, table)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, stacklevel=4)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DDP's and the compiler's. Raises ValueError for
    nn.DataParallel.
    """
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "nn.DataParallel copies the model in every step; use DistributedDataParallel under"
            " torchrun"
        )
    inner = (
        model.module
        if isinstance(model, DistributedDataParallel)
        else getattr(model, "_orig_mod", model)
    )
    return inner if inner is model else unwrapped(inner)
