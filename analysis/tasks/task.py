"""Task (abstract): what a study trains: a model, its examples and its loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # inputs and targets; the first dimension counts examples


@dataclass(frozen=True)
class Task(ABC):
    """A model with data. Batches are a function of (step, seed), so that a resumed run sees what it would have seen."""

    steps: int
    measure_at: tuple[int, ...]
    batch_size: int
    learning_rate: float
    precision: str = "float32"

    @abstractmethod
    def model(self) -> nn.Module:
        """A freshly initialised model, from torch's global generator."""

    @abstractmethod
    def batch(self, step: int, seed: int) -> Batch:
        """The minibatch of a step: ``batch_size`` examples drawn at random."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean training loss of a batch (a scalar)."""

    @abstractmethod
    def validate(self, model: nn.Module, device: torch.device) -> float:
        """Mean loss on a fixed set of held-out examples."""

    @abstractmethod
    def provenance(self) -> dict[str, object]:
        """What the data is, so that a reader can tell whether two runs saw the same."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW at a constant rate: a study of noise wants no schedule in its way."""
        return torch.optim.AdamW(model.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
