"""What the paper itself reports: one run each, best epoch; RoBERTa-base; its hardware. Set beside
ours, never mixed in.

Source: Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195; memory is read off the authors'
figure (± 0.1 GiB).
"""

import pandas as pd

# CoLA: Matthews × 100 and seconds of training, exact training first. DFT, which has no estimator
# here, is left out.
MATMULS = pd.DataFrame(
    [
        ("exact", 1.0, 60.90, 524),
        ("gaussian", 0.5, 58.60, 610),
        ("gaussian", 0.2, 57.79, 610),
        ("gaussian", 0.1, 56.52, 610),
        ("rademacher", 0.5, 62.38, 935),
        ("rademacher", 0.2, 59.11, 935),
        ("rademacher", 0.1, 55.50, 935),
        ("dct", 0.5, 59.17, 1010),
        ("dct", 0.2, 58.81, 1010),
        ("dct", 0.1, 53.38, 1010),
    ],
    columns=["estimator", "rate", "score", "seconds"],
)

# peak GiB without a sketch and at 50, 20, 10 %: (task, batch) -> values
PEAKS = {
    ("cola", 256): (9.68, 8.96, 7.76, 7.28),
    ("mrpc", 128): (11.36, 10.64, 9.20, 8.72),
    ("qqp", 32): (11.76, 11.12, 10.16, 9.76),
    ("sst-2", 256): (13.36, 12.56, 10.56, 9.92),
    ("sts-b", 64): (7.84, 7.28, 6.56, 6.24),
    ("wnli", 128): (11.60, 10.88, 9.36, 8.88),
    ("rte", 32): (10.56, 10.00, 9.12, 8.72),
    ("qnli", 16): (11.68, 11.20, 10.48, 10.08),
}
MEMORY = pd.DataFrame(
    [
        (task, batch, rate, peak, peak / peaks[0])
        for (task, batch), peaks in PEAKS.items()
        for rate, peak in zip((1.0, 0.5, 0.2, 0.1), peaks, strict=True)
    ],
    columns=["task", "batch", "rate", "peak", "ratio"],
)
