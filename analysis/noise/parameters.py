"""The minibatch noise of every parameter: squared norms by example in, a table out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.batch import without_each
from sketchvar.analysis.noise.closed import RESOLUTION, over_draws, weighted_parts
from sketchvar.analysis.noise.errors import estimate
from sketchvar.analysis.noise.scale import ALL, WHOLE

NOISE_COLUMNS = ["run", "step", "parameter", "kind", "size", "examples", "batches", "population"]
NOISE_COLUMNS += ["minibatch_example", "minibatch_example_stderr", "grad_sq", "grad_sq_stderr"]
NOISE_COLUMNS += ["signal_stderr"]


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of one parameter by example, in the scale of ``.grad``: ``C`` is ‖G‖²,
    ``example_sq`` ‖g_s‖², ``inner`` ⟨g_s, G⟩ where it is known; ``weights`` are the examples' parts
    in a mean over tokens.
    """

    name: str
    kind: str
    size: int
    C: Float[Tensor, ""]
    example_sq: Float[Tensor, " S"]
    inner: Float[Tensor, " S"] | None = None
    weights: Float[Tensor, " S"] | None = None
    dtype: torch.dtype = torch.float32

    @property
    def resolution(self) -> float:
        """The part of S Σ‖g_s‖² below which a minibatch variance cannot be told from 0."""
        narrow = self.dtype.itemsize < 4
        return RESOLUTION + 4 * torch.finfo(self.dtype).eps / self.size**0.5 * narrow


def read_noise(
    gradients: Sequence[Gradient],
) -> tuple[Float[Tensor, "L 1+S"], Float[Tensor, "L 1+S"]]:
    """Minibatch variance and ‖G‖² of each parameter, with all examples and without each of them;
    the latter NaN where ⟨g_s, G⟩ is not known.
    """
    device = gradients[0].C.device
    C = torch.stack([g.C.to(device).double() for g in gradients])[:, None]
    e = torch.stack([g.example_sq.to(device).double() for g in gradients])
    size = e.shape[1]
    known = [g.inner if g.inner is not None else g.example_sq for g in gradients]
    inner = torch.stack([t.to(device).double() for t in known])
    weighted = gradients[0].weights
    w = torch.full_like(e, 1 / max(size, 1))
    if weighted is not None:
        w = weighted.to(device).double().expand_as(e)
    if size < 3:
        example = over_draws(e.sum(1, keepdim=True), C, size)
        if weighted is not None:
            example = weighted_parts(e, inner, w, C).sum(1, keepdim=True)
        return example, C
    least = torch.tensor([[g.resolution] for g in gradients], dtype=torch.float64, device=device)
    example = over_draws(e.sum(1, keepdim=True), C, size, least)
    at = None if weighted is None else torch.ones_like(C, dtype=torch.bool)
    example, whole = without_each(C, example, e, inner, w, at)
    unknown = torch.tensor([[g.inner is None] for g in gradients], device=device)
    whole[:, 1:] = whole[:, 1:].masked_fill(unknown, math.nan)
    if weighted is not None:
        example = example.masked_fill(unknown, math.nan)
    return example, whole


def tabulate_noise(
    batches: Sequence[Sequence[Gradient]], population: int | None = None
) -> list[tuple[Any, ...]]:
    """A row for each parameter, then for the sum over each kind of them (``WHOLE``) and over all
    (of kind ``ALL``): all of ``NOISE_COLUMNS`` but run and step, of means over batches.

    Standard errors leave out an example at a time; those of sums know that all parameters saw the
    same examples. ``grad_sq_stderr`` and ``signal_stderr``, of ‖E g‖² as ``noise_scale`` estimates
    it, are NaN where ⟨g_s, G⟩ is not known.
    """
    if not batches or not all(batches):
        return []
    names = [g.name for g in batches[0]]
    shared = [n for n in names if all(n in {g.name for g in batch} for batch in batches)]
    first = {g.name: g for g in batches[0]}
    kinds = [first[name].kind for name in shared]
    groups = [*dict.fromkeys(kinds), ALL]
    sums = torch.tensor([[float(g in (kind, ALL)) for kind in kinds] for g in groups])
    examples: list[Tensor] = []
    grads: list[Tensor] = []
    signals: list[Tensor] = []
    counts = []
    for batch in batches:
        each = {g.name: g for g in batch}
        of = [each[name] for name in shared]
        example, C = read_noise(of)
        counts.append(len(of[0].example_sq))
        add = sums.to(example)
        example, C = (torch.cat([t, add @ t]) for t in (example, C))
        left = 1 - counts[-1] / population if population else 1.0
        examples.append(example)
        grads.append(C)
        signals.append(C - left * example)
    found = [*estimate(torch.clone, examples), *estimate(torch.clone, grads)]
    found.append(estimate(torch.clone, signals).stderr)
    numbers = torch.stack(found, -1).tolist()  # the one device synchronisation
    count = sum(counts) / len(counts)
    labels = [(name, kind, first[name].size) for name, kind in zip(shared, kinds, strict=True)]
    sizes = [sum(s for _, k, s in labels if group in (k, ALL)) for group in groups]
    labels += [(WHOLE, group, size) for group, size in zip(groups, sizes, strict=True)]
    tail = (count, len(batches), population or math.nan)
    return [(*label, *tail, *each) for label, each in zip(labels, numbers, strict=True)]
