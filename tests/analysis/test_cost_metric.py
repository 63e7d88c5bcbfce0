"""Step sizes, against the step that torch's own optimizer then takes."""

import pytest
import torch
from torch import nn

from sketchvar.analysis.noise.metric import Steps, steps_of

LATE = 10**6  # updates after which Adam's corrections are 1


def two_tensors() -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64))
        for shape in ((3, 2), (4,))
    ]


def step_taken(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> torch.Tensor:
    """What one step does with a gradient of ones, its momentum being at rest there."""
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return torch.cat([(b - p.detach()).flatten() for b, p in zip(before, parameters, strict=True)])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam(kind, amsgrad):
    parameters = two_tensors()
    # an average so slow that the step itself does not change it
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 0.3), strict=True)]
    optimizer = kind(groups, betas=(0.9, 1 - 1e-12), eps=1e-3, weight_decay=0.0, amsgrad=amsgrad)
    step_taken(optimizer, parameters)
    for p in parameters:
        optimizer.state[p]["exp_avg"].fill_(1.0)
        square = optimizer.state[p]["exp_avg_sq"]
        square.copy_(torch.linspace(1, 9, p.numel(), dtype=p.dtype).view_as(p) * 1e-6)
        if amsgrad:
            optimizer.state[p]["max_exp_avg_sq"].copy_(2 * square)
        optimizer.state[p]["step"].fill_(LATE)
    found = steps_of(optimizer, parameters)
    truth = step_taken(optimizer, parameters)
    torch.testing.assert_close(found.sizes, truth, rtol=1e-3, atol=0)  # one step more corrects less
    assert (found.momentum, found.nesterov) == (0.9, False)
    assert found.sizes[0] != pytest.approx(0.1)  # must fail: not the learning rate alone


def test_adams_correction_at_its_first_steps():
    parameters = two_tensors()
    optimizer = torch.optim.Adam(parameters, lr=0.1, betas=(0.0, 0.99), eps=0.0)
    truth = step_taken(optimizer, parameters)  # of the first step: lr · sign
    found = steps_of(optimizer, parameters)
    torch.testing.assert_close(found.sizes * 1.0, truth)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.3},
    ],
)
def test_sgd(options):
    parameters = two_tensors()
    optimizer = torch.optim.SGD(parameters, lr=0.2, **options)
    found = steps_of(optimizer, parameters)
    for _ in range(400):  # momentum comes to rest
        truth = step_taken(optimizer, parameters)
    torch.testing.assert_close(found.sizes, truth)
    assert found.momentum == options.get("momentum", 0)
    assert found.nesterov == options.get("nesterov", False)


def test_adafactor():
    parameters = two_tensors()
    optimizer = torch.optim.Adafactor(parameters, lr=0.01, beta2_decay=-3.0, d=1e9)
    for _ in range(300):
        step_taken(optimizer, parameters)
    found = steps_of(optimizer, parameters)
    torch.testing.assert_close(found.sizes, step_taken(optimizer, parameters), rtol=0.02, atol=0)
    assert found.momentum == 0


def test_what_is_not_trained_stands_still():
    parameters = two_tensors()
    found = steps_of(torch.optim.SGD(parameters[:1], lr=0.2), parameters)
    assert found.sizes.tolist() == pytest.approx([0.2] * 6 + [0.0] * 4)


def test_bad_input():
    parameters = two_tensors()
    with pytest.raises(ValueError, match=r"Adam has no state yet.*train for some steps"):
        steps_of(torch.optim.Adam(parameters), parameters)
    with pytest.raises(TypeError, match=r"steps of RMSprop are not known.*give Steps"):
        steps_of(torch.optim.RMSprop(parameters), parameters)
    with pytest.raises(ValueError, match="moves none of the model's parameters"):
        steps_of(torch.optim.SGD(two_tensors(), lr=0.1), parameters)
    groups = [{"params": [p], "momentum": m} for p, m in zip(parameters, (0.0, 0.9), strict=True)]
    with pytest.raises(
        ValueError, match=r"one momentum, β₂ and ε for all parameters, got 0\.0, 0\.9"
    ):
        steps_of(torch.optim.SGD(groups, lr=0.1), parameters)
    assert Steps(torch.ones(2)).momentum == 0


def test_adam_moves_after_it_has_seen_the_gradient():
    """By the optimizer itself, from a state in which one weight has been quiet for long."""
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([p], lr=0.1, betas=(0.0, 0.9), eps=0.0)
    step_taken(optimizer, [p])
    optimizer.state[p]["exp_avg_sq"].copy_(torch.tensor([1.0, 1e-8, 4.0]))
    optimizer.state[p]["step"].fill_(LATE)
    steps, ones = steps_of(optimizer, [p]), torch.ones(3, dtype=torch.float64)
    truth = step_taken(optimizer, [p])
    torch.testing.assert_close(steps.after(ones, 0 * ones).sizes, truth)
    assert steps.sizes[1] > 100 * truth[1]  # must fail: as it was before
    dead = steps.after(0 * ones, 1e3 * ones)  # the noise is far beyond what was seen
    torch.testing.assert_close(dead.sizes * 1e3, torch.full_like(ones, 0.1 * 1000**0.5))
    sgd = steps_of(torch.optim.SGD([p], lr=0.1), [p])
    assert sgd.after(ones, ones) is sgd
