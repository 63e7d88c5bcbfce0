"""A block in which batches can be measured beside a training, which goes on as if it had not
been.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sketchvar.analysis import noise


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within, gradients are formed and may be cleared; afterwards they, all buffers, torch's
    generators and the mode of every module are what they were.

    Raises RuntimeError where a weight was changed, as by an optimizer that steps in a hook.
    """
    modes = {module: module.training for module in model.modules()}
    versions = {name: p._version for name, p in model.named_parameters()}
    try:
        with noise.random_kept(model), noise.unchanged(model), torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
    changed = [name for name, p in model.named_parameters() if p._version != versions[name]]
    if changed:
        raise RuntimeError(
            f"{changed[0]} changed while batches were measured: something updates weights during"
            " the backward pass, as an optimizer in a hook; take it off while measuring"
        )
