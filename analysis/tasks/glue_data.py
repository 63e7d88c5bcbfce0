"""GLUE's examples, from its own TSV files or from the hub; every line is read, or refused by file
and line number.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

DATASETS = "SKETCHVAR_DATASETS"  # environment variable: a directory that holds glue/ and vision/


class Examples(NamedTuple):
    """Sentences, one or two to an example, with their labels: numbers of classes, or scores.
    ``sha256`` is of both.
    """

    texts: list[tuple[str, ...]]
    labels: list[float]
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where a task's examples are: its folder and columns in GLUE's files, its name and columns on
    the hub.

    ``labels`` are the label words in the order of their class numbers; none where labels are scores
    from 0 to 5.
    """

    folder: str
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    hub: str
    hub_columns: tuple[str, ...]
    header: tuple[str, ...] = ()  # of files that have no header line
    dev: str = "dev"
    hub_dev: str = "validation"
    # the published QQP has a few, which GLUE's own loaders drop too
    leaves_out_short_lines: bool = False


PAIR, BINARY = ("sentence1", "sentence2"), ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
SOURCES = {
    "cola": Source(
        "CoLA",
        ("sentence",),
        "label",
        BINARY,
        "cola",
        ("sentence",),
        ("source", "label", "mark", "sentence"),
    ),
    "mrpc": Source("MRPC", ("#1 String", "#2 String"), "Quality", BINARY, "mrpc", PAIR),
    "rte": Source("RTE", PAIR, "label", ENTAILMENT, "rte", PAIR),
    "sst-2": Source("SST-2", ("sentence",), "label", BINARY, "sst2", ("sentence",)),
    "sts-b": Source("STS-B", PAIR, "score", (), "stsb", PAIR),
    "qnli": Source(
        "QNLI", ("question", "sentence"), "label", ENTAILMENT, "qnli", ("question", "sentence")
    ),
    "qqp": Source(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        BINARY,
        "qqp",
        ("question1", "question2"),
        leaves_out_short_lines=True,
    ),
    "mnli": Source(
        "MNLI",
        PAIR,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        "mnli",
        ("premise", "hypothesis"),
        dev="dev_matched",
        hub_dev="validation_matched",
    ),
    "wnli": Source("WNLI", PAIR, "label", BINARY, "wnli", PAIR),
}


@cache
def examples(task: str, split: str, data_dir: str) -> Examples:
    """The examples of "train" or "dev", from ``data_dir`` ("": the directory in SKETCHVAR_DATASETS,
    else the hub).

    ``data_dir`` holds GLUE's folders (CoLA, MRPC, ...), or is the task's own folder. Raises
    ValueError, naming the file and the line, for what is not a GLUE file; for no network it names
    the option that reads a directory.
    """
    source = SOURCES[task]
    root = Path(data_dir or Path(os.environ.get(DATASETS, ""), "glue"))
    if data_dir or (os.environ.get(DATASETS) and root.is_dir()):
        folder = root / source.folder if (root / source.folder).is_dir() else root
        pairs = read_file(source, folder / f"{source.dev if split == 'dev' else 'train'}.tsv")
    else:
        pairs = read_hub(source, source.hub_dev if split == "dev" else "train")
    texts, labels = [texts for texts, _ in pairs], [label for _, label in pairs]
    return Examples(texts, labels, hashlib.sha256(repr(pairs).encode()).hexdigest())


def read_file(source: Source, path: Path) -> list[tuple[tuple[str, ...], float]]:
    """Read texts and label of every line of one of GLUE's TSV files."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(
            f"no file {path}; --data-dir needs GLUE's TSV files, as in"
            f" glue/{source.folder}/train.tsv"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); get the file again"
        ) from None
    lines = text.split("\n")  # not splitlines: sentences may hold other line separators
    if lines[-1] == "":
        lines.pop()
    header = list(source.header) or (lines[0].rstrip("\r").split("\t") if lines else [])
    missing = [name for name in (*source.columns, source.label) if name not in header]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {missing[0]!r} in its header; get GLUE's own"
            f" {source.folder} file"
        )
    pairs = []
    for number, line in enumerate(lines, 1):
        if number == 1 and not source.header:
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) < len(header) and source.leaves_out_short_lines and line.strip():
            continue
        pairs.append(
            parse_line(
                source,
                dict(zip(header, cells, strict=False)),
                f"{path}, line {number}",
                len(header),
            )
        )
    if not pairs:
        raise ValueError(f"{path} holds no examples; get the file again")
    return pairs


def parse_line(
    source: Source, cells: dict[str, str], place: str, columns: int
) -> tuple[tuple[str, ...], float]:
    """Read texts and label of one line.

    Raises ValueError, naming the place, where it has too little or a wrong label.
    """
    if len(cells) < columns:
        raise ValueError(
            f"{place}: {len(cells)} of {columns} columns; the line is malformed, correct or get it"
            " again"
        )
    label, texts = cells[source.label], tuple(cells[name] for name in source.columns)
    if not any(text.strip() for text in texts):
        raise ValueError(f"{place}: no sentence; the line is malformed, correct or get it again")
    if source.labels:
        if label not in source.labels:
            raise ValueError(f"{place}: label {label!r} is none of {', '.join(source.labels)}")
        return texts, source.labels.index(label)
    try:
        score = float(label)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= 5:
        raise ValueError(f"{place}: label {label!r} is no score from 0 to 5")
    return texts, score


def read_hub(source: Source, split: str) -> list[tuple[tuple[str, ...], float]]:
    """Read texts and label of every example of the hub's copy, by the package ``datasets``."""
    instead = "or give --data-dir, a directory of GLUE's TSV files"
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f'GLUE from the hub needs: pip install "sketchvar[datasets]"; {instead}'
        ) from None
    try:
        table: Any = load_dataset("nyu-mll/glue", source.hub, split=split)
    except Exception as error:  # each layer below has exceptions of its own
        raise ValueError(
            f"cannot get {source.folder} from the hub ({first_line(error)}); connect, {instead}"
        ) from None
    texts = zip(*(table[name] for name in source.hub_columns), strict=True)
    return list(zip(texts, table["label"], strict=True))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
