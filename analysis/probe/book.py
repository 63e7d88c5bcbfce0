"""Book: what measured steps told, as tables, files and numbers for a log."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis import noise, records
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.noise.parameters import NOISE_COLUMNS, Gradient, tabulate_noise
from sketchvar.analysis.noise.table import COLUMNS, Batch, tabulate
from sketchvar.analysis.probe.coverage import EQUAL
from sketchvar.analysis.probe.log import LOG_FAILED
from sketchvar.analysis.probe.options import Options
from sketchvar.analysis.probe.parameters.table import NoiseTable
from sketchvar.analysis.probe.table import Table, claim


class Book:
    """``writes``: this is the process that writes and logs; the others keep tables in memory.
    ``say`` warns.
    """

    def __init__(
        self,
        options: Options,
        model: nn.Module,
        device: torch.device,
        writes: bool,
        say: Callable[..., None],
    ) -> None:
        o, self.options, self.model, self.say = options, options, model, say
        folder = None if o.out is None else Path(o.out)
        if folder is not None and writes:
            claim(folder, o.resume, o.first, o.asked)
            self.origin = records.provenance(device)
        self.run = o.run or (folder.name if folder is not None else "")
        self.log = o.make_log() if writes else None
        self.store = Table(folder, o.writer, writes)
        self.noises = NoiseTable(folder, o.first, writes)
        self.scale = noise.NoiseScale()
        self.equal: set[str] = set()  # layers whose examples have one gradient

    def note(self, step: int, batches: Sequence[Sequence[Gradient]]) -> None:
        """Take what batches told of every parameter, and put it into the moving averages."""
        lines = tabulate_noise(batches, self.options.population)
        rows = [(self.run, step, *line) for line in lines]
        self.noises.add(step, rows)
        for row in rows:
            self.scale.add_row(dict(zip(NOISE_COLUMNS, row, strict=True)))

    def tabulate(
        self,
        step: int,
        batches: Sequence[Batch | None],
        dtypes: Iterable[torch.dtype],
        cover: Callable[[], pd.DataFrame],
    ) -> list[tuple[Any, ...]]:
        """Take what batches told of estimators, in products of these ``dtypes``, and, for a file,
        what the step's coverage was; returns the rows.
        """
        lines = tabulate(batches, self.options.choices, self.options.population)
        needed = ("layer", "minibatch_example", "grad_sq")
        layer, example, C = (COLUMNS[2:].index(column) for column in needed)
        self.equal = {line[layer] for line in lines if line[example] == 0 < line[C]}
        if self.equal:
            self.say(f"{min(self.equal)}: {EQUAL}")
        rows = [(self.run, step, *line) for line in lines]
        about = {} if self.store.out is None else self.about(dtypes, cover())
        self.store.add(step, rows, about)
        self.report(step, pd.DataFrame(rows, columns=COLUMNS))
        return rows

    def about(self, dtypes: Iterable[torch.dtype], coverage: pd.DataFrame) -> dict[str, Any]:
        """What a file says beside its rows."""
        counted = Counter(str(one).removeprefix("torch.") for one in dtypes)
        return {
            "run": self.run,
            "model": type(self.model).__name__,
            "dtype": counted.most_common(1)[0][0] if counted else None,
            "asked": self.options.asked,
            "coverage": coverage.to_dict("list"),
            **self.origin,
        }

    def tell(self, step: int, layers: Iterable[Layer]) -> None:
        """Send the numbers of a step to the log where no estimators are compared."""
        if self.log is not None:
            rows = noise.compare(layers, ["exact"], population=self.options.population)
            self.report(step, rows.assign(step=step))

    def report(self, step: int, rows: pd.DataFrame) -> None:
        """Send the numbers of a step to the log, whatever it makes of them."""
        if self.log is None or rows.empty:
            return
        try:
            whole = self.scale.value() if self.scale.averages else None
            self.log.tell(rows, step, whole)
        except Exception as error:
            words = " ".join(str(error).split())
            self.say(f"{LOG_FAILED}: {type(error).__name__}: {words}", LOG_FAILED)
