"""Rounding to grids: every way to round a small case, PyTorch's own casts, scales that never clip,
bytes, and what is not a number.
"""

from dataclasses import replace

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import GridRounding, Moments, estimate
from sketchvar.estimators.grids import (
    GRIDS,
    SCALES,
    goes_up_to_nearest,
    least_scale,
    levels_of,
    locate,
)
from sketchvar.estimators.testing import mean_and_variance

NAMED = {
    "nvfp4": GridRounding("e2m1", 16, "e4m3"),
    "mxfp4": GridRounding("e2m1", 32, "power"),
    "fp8": GridRounding("e4m3"),
}


def some(rows, columns, spread=1.0, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=g)
    return (x * torch.randn(rows, columns, generator=g).mul(spread).exp()).to(dtype)


CASES = [
    GridRounding("e2m1", 2, "e4m3"),
    GridRounding("e2m1", 2, "power", axis="tokens"),
    GridRounding("log2"),
    GridRounding("nf4", 3),
    GridRounding("e5m2", scale="power"),
    GridRounding("e4m3", axis="tokens"),
    GridRounding("e2m1", axis="tokens", rotate=4),
    GridRounding("e2m1", 4, "e4m3", axis="tokens", rotate=2),
    GridRounding("e2m1", rotate=2),
]


@pytest.mark.parametrize("estimator", CASES, ids=str)
def test_enumeration(estimator):
    x, y = pair(4)
    x = x[:, :2]
    m = Moments.of(x, y)
    mean, variance = mean_and_variance(estimator, x, y)
    formula = estimator.variance(m)
    assert formula > 0
    assert (mean - m.G).norm() <= 1e-12 * m.Q.sqrt()
    assert agrees(variance, formula, m)
    # must fail: 5 % off, and for tokens that are mixed the rows of Y as they are
    assert not agrees(variance, formula * 1.05, m)
    if estimator.axis == "tokens" and estimator.rotate:
        assert not agrees(variance, m.y_sq @ estimator.errors(x).sum(1), m)


@pytest.mark.parametrize(
    ("grid", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)]
)
def test_nearest_is_the_cast_of_pytorch(grid, dtype):
    """Bit for bit, ties and values below the least normal one included."""
    levels = levels_of(grid, torch.float32, torch.device("cpu"))
    middles = (levels[1:] + levels[:-1]) / 2
    near = torch.cat([middles.nextafter(middles + 1), middles.nextafter(middles - 1)])
    v = torch.cat([levels, middles, near, some(50, 40, 3).flatten()])
    v = v.clamp(levels.min(), levels.max())
    down, above, below = locate(v, levels)
    code = down + goes_up_to_nearest(down, above, below, levels)
    assert torch.equal(levels[code], v.to(dtype).float())


def test_e2m1_by_hand():
    assert GRIDS["e2m1"].tolist()[7:] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    x = torch.tensor([[6.0, 5.0, 2.5, 0.25, -1.25, -3.4, 0.75, 0.0]])
    nearest = GridRounding("e2m1", scale="power", nearest=True)
    rounded = nearest.restore(nearest.compress(x, 0), torch.float32)
    assert rounded.tolist() == [[6.0, 4.0, 2.0, 0.0, -1.0, -3.0, 1.0, 0.0]]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 1.0, 1e38])
@pytest.mark.parametrize("grid", GRIDS)
def test_nothing_lies_beyond_the_grid(grid, scale, size):
    """The largest of every block is within the grid after scaling: no outcome is a clip."""
    x = some(20, 33, spread=2)
    x = x / x.abs().max() * size
    e = GridRounding(grid, 8, scale)
    kept = SCALES[scale].write(e.need(x))
    most = GRIDS[grid].max().item()
    assert e.scaled(x, kept).abs().max() <= most
    if size == 1.0 and scale == "power":  # must fail: half of it is not enough
        assert e.scaled(x, (kept[0] - 1,)).abs().max() > most


def test_where_no_power_of_two_is_large_enough_it_is_an_error():
    x = torch.tensor([[2e38, 1.0], [1.0, torch.inf]])
    kept = GridRounding("e2m1", scale="power").compress(x, 0)
    assert GridRounding("e2m1", scale="power").restore(kept, torch.float32)[0].isfinite().all()
    for e, z in ((GridRounding("nf4", scale="power"), x), (NAMED["mxfp4"], x.double() * 1e10)):
        with pytest.raises(ValueError, match=r"writes scales up to 1.7e.38 and values .*, got 2e"):
            e.compress(z, 0)
        with pytest.raises(ValueError, match="divide X, or take scale='float'"):
            e.errors(z)


@pytest.mark.parametrize(
    "e", [NAMED["nvfp4"], NAMED["mxfp4"], GridRounding("nf4", 7, axis="tokens")]
)
def test_a_block_that_goes_beyond_the_end_is_filled_up_by_zeros(e):
    x = some(20, 37)
    size = (20 if e.axis == "tokens" else 37) % e.block
    more = (0, 0, 0, e.block - size) if e.axis == "tokens" else (0, e.block - size)
    padded = torch.nn.functional.pad(x, more)
    nearest = replace(e, nearest=True)
    kept, whole = (nearest.restore(nearest.compress(z, 0), z.dtype) for z in (x, padded))
    assert torch.equal(kept, whole[:20, :37]) and (whole != 0).sum() == (kept != 0).sum()
    assert torch.equal(e.errors(x), e.errors(padded)[:20, :37])


def test_least_scale_is_enough_and_not_much_more():
    largest = torch.rand(100, 100) * 100
    scale = least_scale(largest, 6.0)
    assert (largest / scale <= 6).all() and (scale <= largest / 6 * (1 + 3e-7)).all()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("axis", ["features", "tokens"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_bytes(name, axis, dtype):
    made = NAMED[name]
    e = GridRounding(made.grid, made.block, made.scale, axis=axis)
    for n, p in [(64, 96), (13, 5), (1, 1), (0, 3), (3, 0)]:
        x = some(n, p, dtype=dtype)
        assert e.compress(x, 0).nbytes == e.kept_bytes(n, p, dtype)


def test_bytes_by_hand():
    """4 bits and one byte for each 16 or 32; 8 bits and a float for each row."""
    numbers = 64 * 96
    counted = [e.kept_bytes(64, 96, torch.float32) for e in NAMED.values()]
    assert counted == [
        8 + numbers // 2 + numbers // 16 + 4,
        8 + numbers // 2 + numbers // 32,
        8 + numbers + 64 * 4,
    ]


@pytest.mark.parametrize("e", [*NAMED.values(), *CASES], ids=str)
def test_zero_blocks_are_exact_and_what_is_not_finite_shows(e):
    x, y = some(8, 64), some(8, 3)
    x[:, :32] = 0
    kept = e.restore(e.compress(x, 0), torch.float32)
    assert kept.isfinite().all()
    if e.rotate is None:
        assert (kept[:, :32] == 0).all()
    for bad in (torch.nan, torch.inf):
        x[3, 40] = bad
        assert not estimate(e, x, y, 0).isfinite().all()
    assert estimate(e, torch.zeros(8, 64), y, 0).eq(0).all()
    assert e.variance(Moments.of(torch.zeros(8, 64), y)) == 0


def test_nearest_has_its_exact_bias():
    x, y = some(20, 32, dtype=torch.float64), some(20, 3, dtype=torch.float64)
    m = Moments.of(x, y)
    e = GridRounding("e2m1", 16, "e4m3", nearest=True)
    assert e.traits.biased and not NAMED["nvfp4"].traits.biased
    error = (estimate(e, x, y, 0) - m.G).square().sum()
    assert torch.equal(estimate(e, x, y, 0), estimate(e, x, y, 1))
    assert e.variance(m) == e.bias_sq(m) > 0
    assert e.bias_sq(m).item() == pytest.approx(error.item(), rel=1e-10)
    assert NAMED["nvfp4"].bias_sq(m) == 0


BAD = {
    r"needs a grid of e2m1, .*, got grid='e3m0'": lambda: GridRounding("e3m0"),
    r"needs a scale of float, power, e4m3, got scale='e8'": lambda: GridRounding(
        "e2m1", scale="e8"
    ),
    r"needs a axis of features, tokens, got axis='rows'": lambda: GridRounding("e2m1", axis="rows"),
    r"needs block >= 1 entries.*got block=0": lambda: GridRounding("e2m1", 0),
    r"needs to rotate 2, 4, 8, 16, ... entries, got rotate=12": lambda: GridRounding(
        "e2m1", rotate=12
    ),
    r"mixes 16 tokens at a time, got 20; pad them, or rotate 4": lambda: GridRounding(
        "e2m1", axis="tokens", rotate=16
    ).compress(some(20, 3), 0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
