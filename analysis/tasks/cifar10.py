"""cifar10/vit and cifar10/conv: a small vision transformer and a small convolutional network, from
scratch.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sketchvar.analysis.tasks.cifar10_data import images
from sketchvar.analysis.tasks.task import Batch, Task, Validation, accuracy, epoch_places
from sketchvar.analysis.tasks.transformer import Block
from sketchvar.estimators.seeds import fold, generator


@dataclass(frozen=True)
class Cifar10(Task):
    """Ten classes of 32 × 32 colour images, mirrored at random. ``data_dir`` is a directory (or
    file) of them.
    """

    steps: int = 1000
    measure_at: tuple[int, ...] = (0, 10, 100, 300, 1000)
    batch_size: int = 64
    learning_rate: float = 1e-3
    data_dir: Annotated[str, "a directory of images; empty: SKETCHVAR_DATASETS or the hub"] = ""
    width: Annotated[int, "numbers that stand for a patch, or channels"] = 96
    depth: Annotated[int, "blocks"] = 4

    @property
    def population(self) -> int:
        return len(images("train", self.data_dir)[0])

    def batch(self, step: int, seed: int) -> Batch:
        pixels, labels = images("train", self.data_dir)
        places = epoch_places(self.population, self.batch_size, step, seed)
        flips = torch.rand(len(places), generator=generator(fold(seed, "flips", step))) < 0.5
        chosen = normalise(pixels[places])
        return torch.where(flips[:, None, None, None], chosen.flip(-1), chosen), labels[places]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).float(), targets)

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        pixels, labels = images("test", self.data_dir)
        model.eval()
        logits = torch.cat(
            [model(normalise(part).to(device)).float().cpu() for part in pixels.split(250)]
        )
        model.train()
        return Validation(float(F.cross_entropy(logits, labels)), accuracy(logits, labels))

    def provenance(self) -> dict[str, object]:
        pixels, labels = images("train", self.data_dir)
        digest = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        return {"data": "CIFAR-10", "train_images": len(labels), "train_sha256": digest}


@dataclass(frozen=True)
class CifarViT(Cifar10):
    """A pre-norm transformer over 64 patches of 4 × 4 pixels, averaged over patches."""

    heads: Annotated[int, "of attention; they divide the width"] = 4

    def model(self) -> nn.Module:
        return ViT(self.width, self.depth, self.heads)


@dataclass(frozen=True)
class CifarConv(Cifar10):
    """3 × 3 convolutions with group norm, halving the image and doubling the channels at every
    second one.
    """

    width: int = 32

    def model(self) -> nn.Module:
        widths = [3, *(self.width * 2 ** (i // 2) for i in range(self.depth))]
        return ConvNet(widths)


class ViT(nn.Module):
    """Takes images (S × 3 × 32 × 32), gives logits (S × 10). Every matrix is a plain nn.Linear."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Linear(48, width)
        self.places = nn.Parameter(0.02 * torch.randn(64, width))
        blocks = (Block(width, heads, causal=False, bias=True) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        h = self.patches(F.unfold(inputs, kernel_size=4, stride=4).mT) + self.places
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h).mean(1))


class ConvNet(nn.Module):
    """Takes images (S × 3 × 32 × 32), gives logits (S × 10), through convolutions of these numbers
    of channels.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(a, b, 3, stride=1 + i % 2, padding=1, bias=False),
                    nn.GroupNorm(8, b),
                    nn.GELU(),
                )
                for i, (a, b) in enumerate(pairwise(widths))
            ]
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean((2, 3)))


def normalise(pixels: Tensor) -> Tensor:
    """Turn bytes (S × 3 × 32 × 32) into floats of mean 0 and variance 1, by CIFAR-10's own mean and
    deviation.
    """
    return (pixels.float() / 255 - 0.473) / 0.251
