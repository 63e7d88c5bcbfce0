"""Ranks: the processes whose gradients are averaged, and their statistics brought together."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ALONE = (
    "torch.distributed runs with {size} ranks, but this model is not wrapped, so that the probe"
    " takes the gradients to be of this rank's examples alone; give it the wrapped model, or"
    " group=torch.distributed.group.WORLD"
)


def world() -> Any:
    """The group of all ranks, where there are several."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if several else None


@dataclass(frozen=True)
class Ranks:
    """``group`` None is this process alone."""

    group: Any = None

    @classmethod
    def of(cls, model: nn.Module, group: Any = None) -> "Ranks":
        """Those of the group given, else of a model wrapped by DDP or FSDP2; else this one, with a
        warning.
        """
        if world() is None:
            return cls()
        if group is None and isinstance(model, DistributedDataParallel):
            group = model.process_group
        if group is None:
            meshes: list[Any] = [
                p.device_mesh for p in model.parameters() if hasattr(p, "device_mesh")
            ]
            group = (
                None
                if not meshes
                else meshes[0].get_group()
                if meshes[0].ndim == 1
                else dist.group.WORLD
            )
        if group is None:
            warnings.warn(ALONE.format(size=dist.get_world_size()), stacklevel=4)
        return cls(group)

    @property
    def size(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.group is None or dist.get_rank(self.group) == 0

    def replicas(self, weight: Any) -> int:
        """How many ranks hold the same shard of a weight."""
        if not hasattr(weight, "placements"):
            return self.size
        return math.prod(
            weight.device_mesh.size(i) for i, p in enumerate(weight.placements) if p.is_replicate()
        )

    def sum(self, t: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        if self.group is not None:
            dist.all_reduce(t := t.clone(), group=self.group)
        return t

    def greatest(self, number: int, device: torch.device) -> int:
        """The greatest of a whole number of every rank."""
        return max(int(t.item()) for (t,) in self.gather([torch.tensor([number], device=device)]))

    def gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Vectors of every rank, in the order of the ranks; each rank gives equally many, of any
        lengths.
        """
        if self.group is None:
            return [list(tensors)]
        device = tensors[0].device
        mine = torch.tensor([len(t) for t in tensors], device=device)
        sizes = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(sizes, mine, group=self.group)
        lengths = [s.tolist() for s in sizes]
        longest = max(sum(each) for each in lengths)
        flat = torch.cat([t.double() for t in tensors])
        flat = torch.nn.functional.pad(flat, (0, longest - len(flat)))
        flats = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(flats, flat, group=self.group)
        return [list(f[: sum(each)].split(each)) for f, each in zip(flats, lengths, strict=True)]
