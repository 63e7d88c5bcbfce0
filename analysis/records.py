"""Rows in and out of Parquet, and a run's provenance in JSON; every write is whole or not at
all.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sketchvar.analysis.columns import describe
from sketchvar.analysis.noise.table import LATER
from sketchvar.estimators.choice import Flags, choose

ABOUT = "sketchvar"  # what a table's attrs say of the run that it is of
PACKAGES = ("sketchvar", "torch", "numpy", "pandas")


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, then move the result into place."""
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write a table to Parquet; its fields carry the unit and meaning of their columns."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    schema = table.schema
    for name, column in describe(map(str, rows)).items():
        i = schema.get_field_index(name)
        schema = schema.set(i, schema.field(i).with_metadata(column._asdict()))
    if rows.attrs:  # as pandas writes and reads them
        attrs = {"PANDAS_ATTRS": json.dumps(rows.attrs)}
        schema = schema.with_metadata((schema.metadata or {}) | attrs)
    atomically(path, lambda part: pq.write_table(table.cast(schema), part))


def read_rows(path: Path) -> pd.DataFrame:
    """A table written by ``write_rows``. Raises ValueError, naming the file, where it is missing or
    cut short.
    """
    try:
        return add_later(add_flags(pd.read_parquet(path)))
    except FileNotFoundError:
        raise ValueError(f"no file {path}; give the folder of a run, as in runs/<name>") from None
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable Parquet file ({error}); remove it or restore a copy"
        ) from None


def read_about(path: Path) -> dict[str, Any]:
    """What a file that a Probe wrote carries of its run: its name, the dtype of its products, what
    was asked for, coverage and provenance. Empty for any other.
    """
    return read_rows(path).attrs.get(ABOUT, {})


def add_flags(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns oracle, biased and takes_rate where rows of estimators were recorded before
    tables had them; a name that is no estimator's, as "plain", has none.
    """
    if "estimator" not in rows or set(Flags._fields) <= set(rows):
        return rows
    flags = {name: find_flags(name) for name in rows["estimator"].unique()}
    if "gap_closed" in rows:  # a table of scores, whose layers had learned them: no oracle
        flags["scored-rows"] = flags["scored-rows"]._replace(oracle=False)
    columns = {
        field: rows["estimator"].map({name: found[i] for name, found in flags.items()}).astype(bool)
        for i, field in enumerate(Flags._fields)
    }
    return rows.assign(**columns)


def add_later(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that tables of layers did not have before: one batch was measured, and
    nothing is known of errors.
    """
    missing = [name for name in LATER if name not in rows]
    if not missing or not {"minibatch_row", "alpha", "grad_sq"} <= set(rows):
        return rows
    known: dict[str, Any] = {"batches": 1}
    if "x_bytes" in rows:
        known["share"] = rows["kept_bytes"] / rows["x_bytes"]
    return rows.assign(**{name: known.get(name, math.nan) for name in missing})


def find_flags(name: str) -> Flags:
    """Find the flags of a name in a recorded table."""
    try:
        return choose(name, 1.0).flags
    except ValueError:
        return Flags(oracle=False, biased=False, takes_rate=False)


def append_rows(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Put one table below the other; an empty one adds nothing, not even its dtypes."""
    return pd.concat([before, new], ignore_index=True) if len(before) else new


def fingerprint(fields: dict[str, Any]) -> str:
    """Ten hexadecimal digits that say which values a frozen dataclass has: equal for equal fields.

    ``fields`` as by ``dataclasses.asdict``; everything in them has to fit into JSON.
    """
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON."""
    atomically(path, lambda part: part.write_text(json.dumps(content, indent=2) + "\n"))


def read_json(path: Path) -> dict[str, Any]:
    """A dictionary written by ``write_json``. Raises ValueError, naming the file, where it is
    missing or cut short.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"no file {path}; give the folder of a run, as in runs/<name>") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable JSON ({error}); remove it or restore a copy"
        ) from None


def provenance(device: torch.device) -> dict[str, Any]:
    """Who, where, with what: commit, date, device and versions, for run.json."""
    on_gpu = device.type == "cuda"
    simd = torch.backends.cpu.get_cpu_capability()  # in which order sums run
    return {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device)
        if on_gpu
        else f"{platform.machine()} CPU ({simd}), {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str:
    """The installed version, or "not installed" for a package that is only on the path."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The git commit of this code, "+" added where the code differs from it, not what it recorded;
    "unknown" outside a checkout.
    """
    root = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/*.py"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
