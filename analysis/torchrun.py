"""Torchrun: the processes that it started, which train one model on parts of each batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from sketchvar.analysis.probe.ranks import Ranks, world


@contextmanager
def join() -> Iterator[Ranks]:
    """A block in which the processes that torchrun started are in touch, each with a GPU of its own
    where there are any; elsewhere it is one process, and nothing happens.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or dist.is_initialized():
        yield Ranks(world())
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(world())
    finally:
        dist.destroy_process_group()
