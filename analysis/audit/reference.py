"""What a layer is compared with: nn.Linear of its own weight, or an adapter without its dropout."""

import copy

from torch import Tensor, nn


def find_reference(layer: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Find nn.Linear of the layer's own weight and bias, for x (... × p) and y (... × q), or an
    adapter of PEFT in eval mode. Raises ValueError where the layer has no such weight.
    """
    if isinstance(getattr(layer, "base_layer", None), nn.Linear):
        return copy.deepcopy(layer).eval()
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if isinstance(weight, Tensor) and type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()  # of a subclass that stands for numbers, as torchao's
    q, p = y.shape[-1], x.shape[-1]
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.shape != (q, p):
        found = f"one of shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else "none"
        raise ValueError(
            f"audit compares with nn.Linear of the layer's weight, {q} × {p} numbers, and"
            f" {type(layer).__name__} has {found}; give reference=, a module that does what is"
            " right, as the layer before it was quantized, or copy.deepcopy(layer).eval()"
        )
    linear = nn.utils.skip_init(nn.Linear, p, q, bias=bias is not None)
    trained = {name: each.requires_grad for name, each in layer.named_parameters(recurse=False)}
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(linear, name, nn.Parameter(value.detach(), trained.get(name, False)))
    return linear
