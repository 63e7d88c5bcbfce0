"""The discrete cosine transform of the rows of a matrix, at chosen frequencies."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.norms import wide


def cosine_transform(x: Float[Tensor, "n d"], rows: Int[Tensor, " k"]) -> Float[Tensor, "k d"]:
    """Rows ``rows`` of U·X for the orthonormal n × n DCT-II matrix U, u_ja ∝ cos(π(2a + 1)j / 2n).

    One real FFT of length n per column, in float32 or wider; the result has the dtype of X.
    Source: Makhoul 1980, https://doi.org/10.1109/TASSP.1980.1163351.
    """
    n = x.shape[0]
    if x.numel() == 0:
        return x.new_zeros(rows.shape[0], x.shape[1])
    shuffled = torch.cat([x[::2], x[1::2].flip(0)])  # 0, 2, 4, ..., 5, 3, 1
    half = torch.fft.rfft(wide(shuffled), dim=0)
    upper = rows > n // 2  # the FFT of real numbers repeats itself there
    z = half[torch.where(upper, n - rows, rows)]
    angle = (rows.to(z.real.dtype) * (math.pi / (2 * n)))[:, None]
    angle = torch.where(upper[:, None], math.pi / 2 - angle, angle)
    cos, sin = angle.cos(), angle.sin()
    values = torch.where(upper[:, None], z.real * sin - z.imag * cos, z.real * cos + z.imag * sin)
    values = values * torch.where(rows[:, None] == 0, values.new_tensor(n**-0.5), (2 / n) ** 0.5)
    return values.to(x.dtype)
