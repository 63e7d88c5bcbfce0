"""Workers: where the runs of a sweep are done: here, on processes of this machine, or on Ray. Each
hands over what came of a run as soon as it ends.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import AbstractContextManager
from itertools import cycle, islice
from typing import Any, TypeVar

import joblib
import torch
from joblib.externals.loky import ProcessPoolExecutor

from sketchvar.estimators.catalog import check_known

BACKENDS = ("processes", "ray")
T = TypeVar("T")
Ended = Iterator[tuple[T, Any]]  # an item, and what came of it or the error of its worker
MISSING = '--backend ray needs: pip install "sketchvar[cluster]"'
KILLED = "its process was killed, perhaps for its memory; give fewer --jobs, and --retry"


def run_here(work: Callable[[T], Any], items: Iterable[T]) -> Ended[T]:
    """Do ``work`` on one item after another."""
    for item in items:
        yield item, work(item)


def run_on_processes(
    work: Callable[[T], Any],
    items: Iterable[T],
    jobs: int,
    gpus: Iterable[str] = (),
    restarts: int = 1,
) -> Ended[T]:
    """Do ``work`` on ``jobs`` items at a time, each by a process that sees one of the ``gpus``, as
    CUDA_VISIBLE_DEVICES names them. Where a process is killed, its item is begun again,
    ``restarts`` times.
    """
    waiting = deque((item, 0) for item in items)
    running: dict[Future[Any], tuple[str | None, ProcessPoolExecutor, T, int]] = {}
    shared: list[str | None] = [*gpus] or [None]
    idle = [(gpu, start(gpu)) for gpu in islice(cycle(shared), min(jobs, len(waiting)))]
    try:
        while waiting or running:
            while waiting and idle:
                (gpu, pool), (item, killed) = idle.pop(), waiting.popleft()
                running[pool.submit(work, item)] = gpu, pool, item, killed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                gpu, pool, item, killed = running.pop(future)
                error = future.exception()
                broken = isinstance(error, BrokenExecutor)
                idle.append((gpu, start(gpu) if broken else pool))
                if broken and killed < restarts:
                    waiting.append((item, killed + 1))
                else:
                    yield item, (RuntimeError(KILLED) if broken else error or future.result())
    finally:
        for pool in [*(each[1] for each in running.values()), *(pool for _, pool in idle)]:
            pool.shutdown(kill_workers=True)


def start(gpu: str | None) -> ProcessPoolExecutor:
    """Start a process that sees one GPU, or all that there are."""
    return ProcessPoolExecutor(1, env=None if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})


def list_gpus(device: str) -> list[str]:
    """List the GPUs that are shared out: all for "cuda", as CUDA_VISIBLE_DEVICES names them; none
    for a CPU, or for one GPU by its number.
    """
    if device != "cuda":
        return []
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return visible.split(",")[:count]


def run_on_ray(
    work: Callable[[T], Any],
    items: Iterable[T],
    jobs: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
    restarts: int = 1,
) -> Ended[T]:
    """Do ``work`` by tasks of the Ray cluster that RAY_ADDRESS names (else a local one), at most
    ``jobs`` at a time; each has so many ``cpus`` and ``gpus`` and sees no other GPU. Where a worker
    or its machine is lost, its item is begun again, ``restarts`` times.

    Raises ValueError where Ray is missing.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(MISSING) from None
    if not ray.is_initialized():
        ray.init()
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=restarts)(work)
    waiting = deque(items)
    running: dict[Any, T] = {}
    while waiting or running:
        while waiting and (jobs is None or len(running) < jobs):
            item = waiting.popleft()
            running[task.remote(item)] = item
        (ended,), _ = ray.wait(list(running))
        try:
            found = ray.get(ended)
        except ray.exceptions.RayError as error:
            found = error
        yield running.pop(ended), found


def use_backend(backend: str) -> AbstractContextManager[Any]:
    """Have joblib run on processes of this machine, or on the Ray cluster that RAY_ADDRESS names
    (else a local one).
    """
    check_known("backend", backend, BACKENDS)
    if backend == "processes":
        return joblib.parallel_config(backend="loky")
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise ValueError(MISSING) from None
    register_ray()
    return joblib.parallel_config(backend="ray")
