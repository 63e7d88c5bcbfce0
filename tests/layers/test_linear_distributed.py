"""Ranks of a process group draw different sketches, from equal generator states, and stay in
step.
"""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from support.ranks import leave
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sketchvar.estimators import CountSketch, estimate, sketch_linears
from sketchvar.estimators.layers.opaque import next_seed
from sketchvar.estimators.seeds import fold


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    sketch_linears(model, CountSketch(0.3))
    parallel = DistributedDataParallel(model)
    x = torch.randn(20, 6)
    torch.manual_seed(1)
    seed = next_seed()
    torch.manual_seed(1)
    parallel(x).sum().backward()
    torch.save((seed, model[0].weight.grad, x), os.path.join(folder, f"{rank}.pt"))
    leave()


def test_ranks_draw_independently_and_gradients_are_averaged(tmp_path):
    torch.manual_seed(1)
    alone = next_seed()
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    (first, gradient, x), (second, same, _) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)
    )
    assert [first, second] == [fold(alone, "rank", rank) for rank in (0, 1)] and first != second
    assert torch.equal(gradient, same)
    estimates = [
        estimate(CountSketch(0.3), x, torch.ones(20, 5), seed).T for seed in (first, second)
    ]
    assert torch.allclose(gradient, (estimates[0] + estimates[1]) / 2, atol=1e-5)
