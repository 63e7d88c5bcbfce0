"""Functions by what they do to the examples among their arguments."""

from typing import Any

ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "pow", "maximum", "minimum", "floordiv")
BROADCAST = frozenset(
    [name for each in ARITHMETIC for name in (each, f"{each}_", f"__{each}__", f"__r{each}__",
     f"__i{each}__")]
    + ["true_divide", "subtract", "multiply", "divide", "rsub", "where", "lerp", "addcmul"]
    + ["addcdiv", "masked_fill", "logaddexp"]
)  # fmt: skip
EXPAND = frozenset(["expand", "expand_as", "broadcast_to", "repeat", "tile"])
# with rows in the first dimensions, and giving as many
BY_ROW = BROADCAST | frozenset(
    [
        "silu", "gelu", "relu", "relu_", "sigmoid", "tanh", "softplus", "leaky_relu", "elu",
        "selu", "hardtanh", "clamp", "clip", "chunk", "split", "tensor_split", "unbind", "to",
        "float", "half", "bfloat16", "double", "type", "type_as", "contiguous", "clone",
        "dropout", "abs", "neg", "exp", "sqrt", "rsqrt", "square", "log", "softmax",
        "log_softmax", "layer_norm", "rms_norm", "mean", "sum", "linear", "glu", "mish",
        "hardswish", "detach", "alpha_dropout", "cos", "sin", "unsqueeze",
    ]
)  # fmt: skip
PICK = frozenset(["__getitem__", "index_select"])


def name_of(func: Any) -> str:
    """The name of a function of torch's."""
    return getattr(func, "__name__", str(func))
