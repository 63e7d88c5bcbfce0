"""Layers of torchao are audited as they are: an FP8 one shows the bias of its casts."""

import pytest
import torch
from torch import nn

from sketchvar import audit

torchao = pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
pytestmark = pytest.mark.slow  # it takes seconds to import

P, Q, N = 32, 48, 64


@pytest.fixture(scope="module")
def pair():
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(N, d, generator=g) for d in (P, Q))


def cast(t, dtype):
    """By one scale for all of a tensor, as FP8 training has it."""
    scale = torch.finfo(dtype).max / t.abs().max()
    return (t * scale).to(dtype).double() / scale


def test_fp8_training_has_the_bias_of_its_casts(pair):
    """X in e4m3, Y in e5m2, by hand; torchao works in float32, which is the tolerance."""
    from torchao.float8 import CastConfig, Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(
        emulate=True,  # the arithmetic of FP8 without its GPU
        cast_config_grad_output=CastConfig(target_dtype=torch.float8_e5m2),
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(P, Q, bias=False))
    (layer,) = convert_to_float8_training(model, config=config)
    x, y = pair
    part = audit(layer, x, y, draws=4).parts["weight gradient"]
    right = y.double().T @ x.double()
    by_hand = {
        dtype: (cast(y, dtype).T @ cast(x, torch.float8_e4m3fn) - right).square().sum().item()
        for dtype in (torch.float8_e5m2, torch.float8_e4m3fn)
    }
    assert part.bias_sq == pytest.approx(by_hand[torch.float8_e5m2], rel=1e-3)
    assert part.bias_sq != pytest.approx(by_hand[torch.float8_e4m3fn], rel=0.05)  # must fail
    assert part.variance == 0 and part.p_value < 1e-6


@pytest.mark.parametrize("name", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_a_quantized_weight_is_what_its_layer_stands_for(name, pair):
    """Frozen, and read as the numbers that it stands for, so that there is no bias; compared with
    the layer of before, its rounding is one.
    """
    from torchao import quantization

    before = nn.Linear(P, Q)
    (layer,) = model = nn.Sequential(nn.Linear(P, Q))
    layer.load_state_dict(before.state_dict())
    quantization.quantize_(model, getattr(quantization, name)())
    x, y = pair
    found = audit(model[0], x, y, draws=4)
    assert "weight gradient" not in found.parts
    for part in found.parts.values():
        assert part.p_value == 1 and part.bias_sq < 1e-10 * part.norm_sq
    parts = audit(model[0], x, y, draws=4, reference=before).parts
    assert parts["output"].bias_sq > 1e-6 * parts["output"].norm_sq
