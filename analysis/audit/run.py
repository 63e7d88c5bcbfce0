"""run(): audit a layer that is named by its place, as in package.module:factory."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis import records
from sketchvar.analysis.audit.draws import audit
from sketchvar.analysis.claim import record
from sketchvar.estimators.seeds import fold, generator


@dataclass(frozen=True)
class Auditing:
    """Which layer to audit, in how many draws, and with how many rows where it brings no x and
    y.
    """

    layer: str
    rows: int = 256
    draws: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"audit needs one row or more, got rows={self.rows}")


def run(asked: Auditing, out: Path) -> pd.DataFrame:
    """The rows of an audit, written to audit.parquet of a folder, with run.json. What was finished
    there before is left as it is. Raises ValueError for a layer that cannot be loaded or audited,
    and a folder that cannot be used.
    """

    made = load(asked.layer)  # before there is a folder

    def tables() -> Iterator[pd.DataFrame]:
        yield measure(asked, *made)

    origin = records.provenance(torch.device("cpu"))
    record(out, "audit", asdict(asked), origin, "audit.parquet", tables())
    return records.read_rows(out / "audit.parquet")


def measure(asked: Auditing, layer: nn.Module, *pair: Any) -> pd.DataFrame:
    """The rows of an audit; what was left out has one too, with its reason."""
    x, y, *reference = pair or make_pair(layer, asked)
    found = audit(layer, x, y, asked.draws, asked.seed, *reference)
    rest = [{"part": name, "left_out": why} for name, why in found.left_out.items()]
    rows = found.rows().assign(left_out="")
    rows = pd.concat([rows, pd.DataFrame(rest)]) if rest else rows
    return rows.assign(layer=asked.layer, own_pair=bool(pair), rows=x.shape[:-1].numel())


def load(place: str) -> tuple[Any, ...]:
    """Load what ``audit`` takes from "package.module:factory": a layer, or what calling it gives,
    alone or in a tuple with x and y and, fourth, a reference. Modules of the working directory are
    found too.

    Raises ValueError for what is not there, and for a factory that gives no module.
    """
    module, _, name = place.partition(":")
    if not module or not name:
        raise ValueError(f"a layer is named by package.module:factory, got {place!r}")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{place} cannot be found ({error}); write package.module:factory, of a package that is"
            " installed or a file in this directory"
        ) from None
    made = found if isinstance(found, nn.Module) or not callable(found) else found()
    parts = made if isinstance(made, tuple) else (made,)
    if len(parts) not in (1, 3, 4) or not isinstance(parts[0], nn.Module):
        raise ValueError(
            f"{place} is to give a torch module, or (module, x, y) or (module, x, y, reference);"
            f" it gives {type(made).__name__}"
        )
    return parts


def make_pair(layer: nn.Module, asked: Auditing) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal x and y for a layer that brings none. Raises ValueError where it does not say its
    sizes.
    """
    p, q = (getattr(layer, f"{way}_features", None) for way in ("in", "out"))
    if not isinstance(p, int) or not isinstance(q, int):
        raise ValueError(
            f"{asked.layer} gives a {type(layer).__name__} without in_features and out_features;"
            " let the factory give (module, x, y)"
        )
    like = next((each for each in layer.parameters() if each.is_floating_point()), torch.empty(0))
    g = generator(fold(asked.seed, "pair"))
    x, y = (g.normals(asked.rows, size).to(like.device, like.dtype) for size in (p, q))
    return x, y
