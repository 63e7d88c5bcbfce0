"""digits-mlp: a small multilayer perceptron on scikit-learn's digits; here a row is an example."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from sketchvar.analysis.tasks.task import Batch, Task, Validation, accuracy, epoch_places

HELD_OUT = 297  # of 1797 images


@dataclass(frozen=True)
class DigitsMLP(Task):
    """Ten classes of 8 × 8 images. Batches go through a fresh permutation of the training images
    every epoch.
    """

    steps: int = 200
    measure_at: tuple[int, ...] = (0, 10, 50, 100, 200)
    batch_size: int = 100
    learning_rate: float = 1e-3
    width: Annotated[int, "numbers in a hidden layer"] = 128

    @property
    def population(self) -> int:
        return len(digits()[0]) - HELD_OUT

    def model(self) -> nn.Module:
        w = self.width
        return nn.Sequential(
            nn.Linear(64, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 10)
        )

    def batch(self, step: int, seed: int) -> Batch:
        images, labels = digits()
        rows = HELD_OUT + epoch_places(self.population, self.batch_size, step, seed)
        return images[rows], labels[rows]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).float(), targets)

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        images, labels = (t[:HELD_OUT].to(device) for t in digits())
        logits = model(images).float()
        return Validation(float(F.cross_entropy(logits, labels)), accuracy(logits, labels))

    def provenance(self) -> dict[str, object]:
        return {"data": "scikit-learn digits", "train_images": self.population}


@cache
def digits() -> tuple[Tensor, Tensor]:
    """All 1797 images (n × 64, mean 0 and variance 1 over all pixels) and their labels."""
    data = load_digits()
    images = torch.tensor(data.data, dtype=torch.float32)
    return (images - images.mean()) / images.std(), torch.tensor(data.target)
