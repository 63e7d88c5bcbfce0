"""Sampling designs: which k of n rows are kept, and their weights, for probabilities π that sum to
one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.seeds import Generator


class Sample(NamedTuple):
    """Which rows are kept, and what each is multiplied by."""

    rows: Int[Tensor, " k"]
    weights: Float[Tensor, " k"]


def draw_independently(pi: Float[Tensor, " n"], k: int, g: Generator) -> Sample:
    """Draw k rows with replacement, row i with probability πᵢ and weight 1/(kπᵢ).

    The variance of Σ w xᵢyᵢᵀ is (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C) / k.
    """
    rows = g.choices(pi, k)
    return Sample(rows, 1 / (k * pi[rows]))


def draw_from_groups(pi: Float[Tensor, " n"], k: int, g: Generator) -> Sample:
    """Draw k distinct rows: one from each of k groups of a random partition, sizes equal up to one,
    row i of group g with probability πᵢ/P_g and weight P_g/πᵢ, P_g the sum of π in the group.

    A group whose π are all zero keeps any of its rows, with weight 1. The variance of Σ w xᵢyᵢᵀ is
    f (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C), f = ``chance_to_meet(n, k)``: given the partition it is Σ_g (P_g
    Σ_{i∈g} ‖xᵢ‖²‖yᵢ‖²/πᵢ − ‖G_g‖²), and two rows share a group with probability f.
    Source: Rao, Hartley, Cochran 1962, https://doi.org/10.1111/j.2517-6161.1962.tb00471.x.
    """
    n = pi.shape[0]
    size = -(-n // max(k, 1))
    # a column is a group; n is padded by numbers of no row, which have no probability
    rows = torch.nn.functional.pad(g.permutation(n).long(), (0, k * size - n), value=n)
    groups = rows.reshape(size, k).T
    each = torch.cat([pi, pi.new_zeros(1)])[groups]
    slot = g.choose_columns(each)[:, None]
    total = each.sum(1)
    weights = torch.where(total == 0, 1.0, total / each.gather(1, slot)[:, 0])
    return Sample(groups.gather(1, slot)[:, 0], weights)


def chance_to_meet(n: int, k: int) -> float:
    """The probability f that two of n rows are in one of k random groups, sizes equal up to one:
    (n − k)/(k(n − 1)) where k divides n.
    """
    if n < 2 or k < 1:
        return 0.0
    small, larger = divmod(n, k)
    squares = (k - larger) * small**2 + larger * (small + 1) ** 2
    return (squares - n) / (n * (n - 1))
