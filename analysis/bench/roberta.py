"""Roberta: the paper's model with random weights on random tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sketchvar.analysis.tasks import Batch, Task, Validation
from sketchvar.estimators.seeds import fold, generator

WORDS = 50265  # of RoBERTa's vocabulary, the first three of them special


@dataclass(frozen=True)
class Roberta(Task):
    """RoBERTa-base, cut to ``layers`` of its 12, as a classifier of sequences of ``length`` tokens
    without padding.

    Source: Liu et al. 2019, https://arxiv.org/abs/1907.11692.
    """

    steps: int = 1
    measure_at: tuple[int, ...] = (0,)
    batch_size: int = 128
    learning_rate: float = 1e-5
    layers: int = 12
    length: int = 128

    @property
    def population(self) -> None:
        return None  # every batch is drawn anew

    def model(self) -> nn.Module:
        try:
            from transformers import RobertaConfig, RobertaForSequenceClassification
        except ImportError:
            raise ImportError(
                'bench memory needs transformers; install it by pip install "sketchvar[hf]"'
            ) from None
        config = RobertaConfig(
            vocab_size=WORDS,
            max_position_embeddings=514,
            type_vocab_size=1,
            num_hidden_layers=self.layers,
            use_cache=False,
        )
        model: Any = RobertaForSequenceClassification(config)
        return model.train()

    def batch(self, step: int, seed: int) -> Batch:
        draw = generator(fold(seed, "batch", step))
        tokens = torch.randint(3, WORDS, (self.batch_size, self.length), generator=draw)
        return tokens, torch.randint(2, (self.batch_size,), generator=draw)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        tokens, labels = batch
        return model(tokens, labels=labels).loss

    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        raise NotImplementedError("random tokens have nothing to learn, so nothing to validate")

    def provenance(self) -> dict[str, object]:
        return {"data": "random tokens"}
