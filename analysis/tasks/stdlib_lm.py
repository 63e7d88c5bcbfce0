"""stdlib-lm: a decoder-only transformer on the source files of the Python standard library, by
bytes or by words.
"""

import hashlib
import platform
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sketchvar.analysis.tasks.task import Batch, Task, Validation, accuracy
from sketchvar.analysis.tasks.transformer import Block
from sketchvar.estimators.seeds import fold, generator

HELD_OUT = 10  # one file in so many is for validation
BYTES = 256
IGNORED = -100  # a target that cross entropy leaves out
# of a source file, none left out
PIECES = re.compile(rb" ?[A-Za-z_]+|[0-9]|\n *| +|[^A-Za-z_0-9 \n]+")


@dataclass(frozen=True)
class StdlibLM(Task):
    """Next-token prediction; an example is a window of ``length`` tokens at a random place of the
    training files.

    Where ``shortest`` is given, windows are cut at lengths from there to ``length``, all as likely:
    the loss is a mean over the tokens of all examples. Tokens are bytes and, beside them, the
    ``vocabulary`` − 256 most frequent words.
    """

    steps: int = 300
    measure_at: tuple[int, ...] = (0, 10, 30, 100, 200, 300)
    batch_size: int = 32
    learning_rate: float = 2e-3
    width: Annotated[int, "numbers that stand for a token"] = 192
    depth: Annotated[int, "blocks"] = 4
    heads: Annotated[int, "of attention; they divide the width"] = 6
    length: Annotated[int, "tokens of an example"] = 64
    vocabulary: Annotated[int, "kinds of tokens: 256 bytes, and words beyond"] = BYTES
    shortest: Annotated[
        int, "fewest tokens of an example that count, of `length` at most; 0: all do"
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shortest <= self.length:
            raise ValueError(
                f"shortest must be 0 to length={self.length} tokens, got {self.shortest}"
            )

    @property
    def population(self) -> None:
        return None  # windows overlap

    def model(self) -> nn.Module:
        return Transformer(self.width, self.depth, self.heads, self.length, self.vocabulary)

    def batch(self, step: int, seed: int) -> Batch:
        at = fold(seed, "batch", step)
        inputs, targets = windows(tokens(self.vocabulary)[0], self.batch_size, self.length, at)
        if self.shortest:
            g = generator(fold(at, "length"))
            sizes = torch.randint(self.shortest, self.length + 1, (len(targets), 1), generator=g)
            targets = targets.masked_fill(torch.arange(self.length) >= sizes, IGNORED)
        return inputs, targets

    def count_tokens(self, batch: Batch) -> Tensor | None:
        return (batch[1] != IGNORED).sum(1) if self.shortest else None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1).float(), targets.flatten())

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        inputs, targets = (
            t.to(device) for t in windows(tokens(self.vocabulary)[1], 64, self.length, seed=0)
        )
        logits = model(inputs).float()
        return Validation(
            float(F.cross_entropy(logits.flatten(0, 1), targets.flatten())),
            accuracy(logits, targets),
        )

    def provenance(self) -> dict[str, object]:
        train, held_out = corpus()
        digest = hashlib.sha256(train.numpy().tobytes()).hexdigest()
        return {
            "data": f"standard library of Python {platform.python_version()}",
            "train_bytes": len(train),
            "held_out_bytes": len(held_out),
            "train_sha256": digest,
        }


class Transformer(nn.Module):
    """Pre-norm decoder, every matrix a plain nn.Linear. Takes (B, T) tokens, gives (B, T,
    vocabulary) logits.

    Over words its head is the matrix of the embedding, as in GPT-2 (Radford et al. 2019).
    """

    def __init__(
        self, width: int, depth: int, heads: int, length: int, vocabulary: int = BYTES
    ) -> None:
        super().__init__()
        self.bytes = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        blocks = (Block(width, heads, causal=True, bias=False) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        if vocabulary > BYTES:
            self.head.weight = self.bytes.weight

    def forward(self, inputs: Tensor) -> Tensor:
        h = self.bytes(inputs) + self.places.weight[: inputs.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


@cache
def corpus() -> tuple[Tensor, Tensor]:
    """Training and held-out bytes (uint8) of the library's own modules: top level, json, asyncio,
    ... but no tests.

    Raises FileNotFoundError where Python was installed without its source files.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "__pycache__",
        "lib2to3",
        "config",
    }
    files = sorted(f for f in root.rglob("*.py") if skip.isdisjoint(f.relative_to(root).parts))
    if len(files) < HELD_OUT:
        raise FileNotFoundError(
            f"no Python source files below {root}; use --task digits-mlp or another Python"
        )
    split: tuple[list[bytes], list[bytes]] = ([], [])
    for file in files:
        name = hashlib.sha256(str(file.relative_to(root)).encode()).digest()
        split[name[0] % HELD_OUT == 0].append(file.read_bytes())
    train, held_out = (
        torch.from_numpy(np.frombuffer(b"".join(part), np.uint8).copy()) for part in split
    )
    return train, held_out


@cache
def tokens(vocabulary: int) -> tuple[Tensor, Tensor]:
    """Training and held-out text in numbers below ``vocabulary``: bytes, and 256 on for the
    training files' words.
    """
    if vocabulary <= BYTES:
        return corpus()
    train, held_out = (PIECES.findall(text.numpy().tobytes()) for text in corpus())
    frequent = Counter(piece for piece in train if len(piece) > 1).most_common(vocabulary - BYTES)
    numbers = {word: [BYTES + i] for i, (word, _) in enumerate(frequent)}
    first, second = (
        [i for piece in text for i in numbers.get(piece, piece)] for text in (train, held_out)
    )
    return torch.tensor(first, dtype=torch.int32), torch.tensor(second, dtype=torch.int32)


def windows(text: Tensor, count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` windows of tokens at random places, (count, length), and the same one token
    later.
    """
    starts = torch.randint(len(text) - length, (count, 1), generator=generator(seed))
    picked = text[starts + torch.arange(length + 1)].long()
    return picked[:, :-1], picked[:, 1:]
