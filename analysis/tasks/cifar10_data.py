"""CIFAR-10's images, from its binary files, from an .npz of JPEG files, or from the hub."""

import io
import os
import zipfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sketchvar.analysis.tasks.glue_data import DATASETS, first_line

# bytes of an image in CIFAR-10's binary files: its label, then three planes
RECORD = 1 + 3 * 32 * 32
REMEDY = (
    "--data-dir needs CIFAR-10's binary files (data_batch_1.bin, ..., test_batch.bin) or an .npz of"
    " JPEG files"
)


@cache
def images(split: str, data_dir: str) -> tuple[Tensor, Tensor]:
    """Read pixels (S × 3 × 32 × 32, uint8) and labels (S) of "train" or "test".

    From ``data_dir`` ("": the directory in SKETCHVAR_DATASETS, else the hub). Raises ValueError,
    naming the file, for what is missing or cut short.
    """
    path = Path(data_dir or Path(os.environ.get(DATASETS, ""), "vision"))
    if not data_dir and not (os.environ.get(DATASETS) and path.is_dir()):
        pixels, labels = read_hub(split)
    elif files := sorted(path.glob("data_batch_*.bin" if split == "train" else "test_batch.bin")):
        parts = [read_binary(file) for file in files]
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    elif archives := [path] if path.is_file() else sorted(path.glob("*.npz")):
        pixels, labels = read_archive(archives[0], split)
    else:
        raise ValueError(f"no CIFAR-10 images in {path}; {REMEDY}")
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise ValueError(
            f"CIFAR-10 in {path}: label {labels[wrong[0]]} of {split} image {wrong[0]} is not 0"
            " to 9"
        )
    return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels.astype(np.int64))


def read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels and labels of one of CIFAR-10's own binary files."""
    content = np.fromfile(file, np.uint8)
    if len(content) % RECORD or not len(content):
        raise ValueError(
            f"{file} holds {len(content)} bytes, no multiple of {RECORD}: it is cut short; get it"
            " again"
        )
    records = content.reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def read_archive(file: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels and labels from an .npz with JPEG files end to end: train_jpeg, train_offsets,
    train_label, ...
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            jpeg, offsets, labels = (
                archive[f"{split}_{part}"] for part in ("jpeg", "offsets", "label")
            )
        whole = jpeg.tobytes()
        pictures = [Image.open(io.BytesIO(whole[a:b])) for a, b in pairwise(offsets)]
        pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"cannot read CIFAR-10 images from {file} ({first_line(error)}); {REMEDY}"
        ) from None
    return pixels.transpose(0, 3, 1, 2), labels


def read_hub(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels and labels of the hub's copy, by the package ``datasets``."""
    try:
        from datasets import load_dataset

        table: Any = load_dataset("uoft-cs/cifar10", split=split)
        pixels = np.stack([np.asarray(picture) for picture in table["img"]])
    except ImportError:
        raise ValueError(
            f'CIFAR-10 from the hub needs: pip install "sketchvar[datasets]"; or: {REMEDY}'
        ) from None
    except Exception as error:  # each layer below has exceptions of its own
        raise ValueError(
            f"cannot get CIFAR-10 from the hub ({first_line(error)}); connect, or: {REMEDY}"
        ) from None
    return pixels.transpose(0, 3, 1, 2), np.asarray(table["label"])
