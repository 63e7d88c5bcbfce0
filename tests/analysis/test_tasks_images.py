"""Tasks of images: what they read, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.datasets import DATASETS, needs_cifar

from sketchvar.analysis.tasks import find_task
from sketchvar.analysis.tasks.cifar10_data import RECORD, images


@pytest.fixture
def binary(tmp_path) -> Path:
    """CIFAR-10's own binary files, with 20 images each."""
    draw = np.random.default_rng(0)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        records = draw.integers(0, 256, (20, RECORD), np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / f"{name}.bin")
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10/vit", "cifar10/conv"])
def test_images_train_a_network(name, binary):
    options = (("data_dir", str(binary)), ("width", 16), ("depth", 2), ("batch_size", 8))
    task = find_task(name, options)
    assert task.population == 40
    first = np.fromfile(binary / "data_batch_1.bin", np.uint8)[:RECORD]
    pixels, labels = images("train", str(binary))
    assert pixels[0].flatten().tolist() == first[1:].tolist() and labels[0] == first[0]
    torch.manual_seed(0)
    model, batch = task.model(), task.batch(0, 0)
    assert torch.equal(batch[0], task.batch(0, 0)[0])
    assert batch[0].shape == (8, 3, 32, 32)
    before = float(task.loss(model, batch).detach())
    optimizer = task.optimizer(model)
    for _ in range(10):
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(task.loss(model, batch).detach()) < before
    assert 0 <= task.validate(model, torch.device("cpu")).metric <= 1
    assert model.training


def test_bad_images_are_refused(binary, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "test_batch.bin").write_bytes((binary / "test_batch.bin").read_bytes()[:-7])
    with pytest.raises(
        ValueError, match=r"test_batch\.bin holds 61453 bytes, no multiple of 3073: it is cut short"
    ):
        images("test", str(broken))
    records = np.fromfile(binary / "test_batch.bin", np.uint8)
    records[2 * RECORD] = 10
    records.tofile(broken / "test_batch.bin")
    images.cache_clear()
    with pytest.raises(ValueError, match="label 10 of test image 2 is not 0 to 9"):
        images("test", str(broken))
    with pytest.raises(ValueError, match="no CIFAR-10 images in"):
        images("train", str(broken))
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not whole")
    with pytest.raises(ValueError, match=r"cannot read CIFAR-10 images from .*x\.npz"):
        images("train", str(tmp_path / "x.npz"))


@needs_cifar
def test_the_archive_of_jpeg_files_holds_balanced_classes():
    pixels, labels = images("test", str(DATASETS / "vision"))
    assert pixels.shape == (2000, 3, 32, 32)
    assert labels.bincount().tolist() == [200] * 10
