"""The only door to randomness: seeds are folded from integers and names, generators are made from
seeds.
"""

import hashlib
from operator import index

import torch


def fold(seed: int, *data: int | str) -> int:
    """A new seed in [0, 2⁶³) from a seed and any integers or names; the same arguments give the
    same seed.

    Folding, unlike adding, keeps (seed 1, step 2) and (seed 2, step 1) apart.
    """
    words = (f"str:{d}" if isinstance(d, str) else f"int:{index(d)}" for d in data)
    text = "\x1f".join([str(int(seed)), *words])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device``, started from ``seed``. Numbers differ between device types,
    not between runs.
    """
    return torch.Generator(device).manual_seed(index(seed))  # NumPy's integers are seeds too
