"""Whether the noise scale of one kind of parameter stands for that of the whole model."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sketchvar.analysis.noise.moving import NoiseScale
from sketchvar.analysis.noise.scale import ALL

PROXIES = ["run", "kind", "steps", "ratio", "low", "high", "correlation"]


def compare_proxies(runs: Mapping[str, pd.DataFrame], decay: float = 0.9) -> pd.DataFrame:
    """Tell of each kind of parameter its noise scale over that of all, at the measured steps of
    each of ``runs``: name -> the rows of its ``noise()``. ``decay`` is that of ``NoiseScale``.

    ``ratio`` is the geometric mean over the steps where both are known, ``low`` and ``high`` the
    range; ``correlation`` that of the logarithms, NaN for fewer than three steps. A proxy keeps its
    ratio through a training (``low`` near ``high``), and from one model to another. The first step
    averages nothing yet, and later ones share what they average: no error is given.
    Source of the claim for normalisation layers: Gray et al. 2024, https://arxiv.org/abs/2411.00999.
    """
    lines = []
    for run, rows in runs.items():
        table = NoiseScale(decay).add(rows)
        scale = table.pivot_table("noise_scale", "step", "kind")
        for kind in scale.columns.drop(ALL):
            both = scale[[kind, ALL]].dropna().apply(np.log)
            apart = both[kind] - both[ALL]
            if apart.empty:
                continue
            alike = both[kind].corr(both[ALL]) if len(both) > 2 else np.nan
            numbers = np.exp([apart.mean(), apart.min(), apart.max()])
            lines.append((run, kind, len(both), *numbers, alike))
    return pd.DataFrame(lines, columns=PROXIES)
