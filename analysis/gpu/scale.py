"""Scale: how large everything in the GPU suite is; FULL for a GPU, TINY for a test of the suite."""

from dataclasses import dataclass

import torch

from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.tasks import Options
from sketchvar.estimators import CATALOG, choices


@dataclass(frozen=True)
class Scale:
    """How large everything is: ``FULL`` for a GPU, ``TINY`` for a test of the suite itself."""

    task: str
    options: Options
    steps: int
    measure_at: tuple[int, ...]
    draws: int
    estimators: tuple[str, ...]  # in the study
    rates: tuple[float, ...]
    layer_estimators: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    dtypes: tuple[torch.dtype, ...]
    repeats: int
    encoder_layers: int
    batches: tuple[tuple[str, int, int], ...]  # task, examples, tokens of an example
    memory_estimators: tuple[str, ...]
    memory_rates: tuple[float, ...]
    matrix: tuple[int, int]  # that the kernels read
    side: int  # of the matrices behind copy bandwidth and GEMM rate
    grids: tuple[Grid, ...]  # of fine-tuning, with one seed each: whole seeds come first


KNOWN = choices(CATALOG, 1.0)
WITH_CLOSED_FORM = tuple(choice.name for choice in KNOWN if not choice.no_closed_form)
# Haar orthonormalises an n × k matrix for every step, which no layer can afford
FIRST = (
    "countsketch",
    "uniform-rows",
    "gaussian",
    "rademacher",
    "rounding:4",
    "rounding:2",
    "norm-rows",
)
OTHERS = (choice.name for choice in KNOWN if not choice.oracle)
OF_LAYERS = (*FIRST, *(name for name in OTHERS if name not in {"exact", "haar", *FIRST}))
TRAINED = ("gaussian", "countsketch", "centered(countsketch)", "uniform-rows", "rounding:2")
FULL = Scale(
    task="stdlib-lm-gpt2",
    options=(),
    steps=300,
    measure_at=(0, 10, 30, 100, 300),
    draws=64,
    estimators=WITH_CLOSED_FORM,
    rates=(0.5, 0.2, 0.1, 0.05),
    layer_estimators=OF_LAYERS,
    shapes=(
        (16384, 4096, 4096), (16384, 4096, 11008), (16384, 11008, 4096),  # Llama-7B
        (16384, 768, 2304), (16384, 768, 3072), (16384, 3072, 768),  # GPT-2
        (8192, 768, 768), (8192, 768, 3072), (8192, 3072, 768),  # RoBERTa-base
    ),
    dtypes=(torch.bfloat16, torch.float32),
    repeats=15,
    encoder_layers=12,
    # the paper's batch sizes; tokens are those of the longest of the first thousand training
    # examples (word pieces of MiniLM's vocabulary), but for QQP and QNLI, where they are inferred
    # from the paper's own peaks
    batches=(
        ("CoLA", 256, 33), ("MRPC", 128, 89), ("QQP", 32, 277), ("SST-2", 256, 56),
        ("STS-B", 64, 49), ("WNLI", 128, 108), ("RTE", 32, 250), ("QNLI", 16, 446),
    ),
    memory_estimators=("gaussian", "countsketch", "uniform-rows", "rounding:2"),
    memory_rates=(0.5, 0.2, 0.1),
    matrix=(16384, 4096),
    side=8192,
    grids=tuple(
        Grid(f"glue/{task}", (("pretrained", "minilm"),), TRAINED, (0.5, 0.1), (seed,), 1000)
        for seed in range(5)
        for task in ("cola", "mrpc", "rte", "sst-2")
    ),
)  # fmt: skip
TINY = Scale(
    task="stdlib-lm",
    options=(
        ("width", 16),
        ("depth", 1),
        ("heads", 2),
        ("length", 8),
        ("batch_size", 4),
        ("precision", "bfloat16"),
    ),
    steps=2,
    measure_at=(0, 2),
    draws=3,
    estimators=WITH_CLOSED_FORM,
    rates=(0.5,),
    layer_estimators=OF_LAYERS,
    shapes=((64, 16, 24),),
    dtypes=(torch.float32,),
    repeats=2,
    encoder_layers=1,
    batches=(("CoLA", 2, 8),),
    memory_estimators=("countsketch", "rounding:2"),
    memory_rates=(0.5,),
    matrix=(128, 64),
    side=64,
    grids=(Grid("digits-mlp", (("batch_size", 8),), ("countsketch",), (0.5,), (0,), 2, 1),),
)
