"""read_pair(): X and Y from a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_pair(path: Path) -> tuple[Tensor, Tensor]:
    """x and y of a .pt, .npz or .safetensors file: n × p and n × q, where a row is an example, or
    examples × length × p and × q.

    Raises ValueError where it is missing, unreadable, or holds no finite floating x and y.
    """
    if not path.exists():
        raise ValueError(f"no file {path}; give one with x and y")
    if path.suffix not in READERS:
        raise ValueError(f"cannot read {path}; give a .pt, .npz or .safetensors file with x and y")
    try:
        content = READERS[path.suffix](path)
    except Exception as error:  # each library has its own
        raise ValueError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not {"x", "y"} <= set(content):
        known = (
            ", ".join(map(str, content))
            if isinstance(content, dict)
            else f"a {type(content).__name__}"
        )
        raise ValueError(
            f"{path} holds {known}, not x and y; save it as in torch.save({{'x': x, 'y': y}},"
            f" '{path}')"
        )
    x, y = torch.as_tensor(content["x"]), torch.as_tensor(content["y"])
    if not x.is_floating_point() or x.dtype != y.dtype:
        raise ValueError(
            f"x and y of {path} must be of one floating dtype, got {x.dtype} and {y.dtype}; convert"
            " them"
        )
    for name, t in (("x", x), ("y", y)):
        if not t.isfinite().all():
            raise ValueError(
                f"{name} of {path} is not finite in {int((~t.isfinite()).sum())} places; leave"
                " those rows out"
            )
    return x, y


def read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file  # comes with transformers

    return load_file(path)


READERS: dict[str, Callable[[Path], object]] = {
    ".pt": partial(torch.load, weights_only=True, map_location="cpu"),
    ".npz": lambda path: dict(np.load(path)),
    ".safetensors": read_safetensors,
}
