"""Every option that several commands have, once: its words, its type, its default and its help.

Each function is called as its option is, and makes a field of a command's options::

    seed: int = options.seed()
"""

from pathlib import Path
from typing import Any

from sketchvar.analysis.commands.option import option
from sketchvar.analysis.tasks import TASKS

EXAMPLES = "gaussian:0.1, rounding:2, centered(countsketch):0.1, gaussian:0.1+rounding:4"
# one of each kind; whatever is spelled and has a closed form can be given
KINDS = (
    "gaussian",
    "rademacher",
    "countsketch",
    "srht",
    "uniform-rows",
    "norm-rows",
    "optimal-rows",
)


# what is trained


def task(default: str | None = "stdlib-lm", usual: str = "") -> Any:
    return option(
        "--task",
        default=default,
        section="task",
        metavar="T",
        help=f"what to train: {', '.join(TASKS)}{usual}",
    )


def model() -> Any:
    return option(
        "--model",
        section="task",
        metavar="M",
        help=(
            "for glue/...: a directory, minilm (the installed package), or a name on the hub"
            " (default: roberta-base)"
        ),
    )


def data_dir() -> Any:
    return option(
        "--data-dir",
        section="task",
        metavar="DIR",
        help=(
            "for glue/... and cifar10/...: a directory of GLUE's TSV files or of CIFAR-10's images"
            " (default: the one in SKETCHVAR_DATASETS, else the hub)"
        ),
    )


def batch_size() -> Any:
    return option(
        "--batch-size",
        section="task",
        type=int,
        metavar="B",
        help="examples in a batch (default: the task's)",
    )


def learning_rate() -> Any:
    return option(
        "--learning-rate",
        section="task",
        type=float,
        metavar="L",
        help="of AdamW (default: the task's)",
    )


def depth(default: int | None = None, *more: str) -> Any:
    return option(
        "--depth",
        *more,
        default=default,
        section="task",
        type=int,
        metavar="N",
        help="blocks of the model" + ("" if default else ", from scratch (default: the task's)"),
    )


def precision(
    whose: str = "of matrix products; weights are float32 (default: the task's)", *more: str
) -> Any:
    return option("--precision", section="task", choices=["float32", "bfloat16", *more], help=whose)


def settings() -> Any:
    return option(
        "--set",
        default=(),
        section="task",
        nargs="+",
        action="extend",
        metavar="NAME=VALUE",
        help="any other field of the task, as in width=64; an unknown one lists those that it has",
    )


# what is measured


def steps(default: int | None = None, whose: str = "updates") -> Any:
    return option(
        "--steps",
        default=default,
        type=int,
        metavar="N",
        help=whose + ("" if default else " (default: the task's own)"),
    )


def measure_at(
    whose: str = (
        "measure the gradient after so many updates, 0 to N (default: the task's own, up to N)"
    ),
) -> Any:
    return option("--measure-at", type=int, nargs="+", metavar="S", help=whose)


def batches() -> Any:
    return option(
        "--batches",
        default=4,
        type=int,
        metavar="M",
        help="fresh batches to average at each measured step; 1: the batch that is trained on",
    )


def metric() -> Any:
    return option(
        "--metric",
        choices=["progress", "update"],
        help=(
            "measure variances in the metric of the optimizer's step too: progress, 1/(sqrt(v) +"
            " eps) for Adam, or its square, update"
        ),
    )


def estimators(default: tuple[str, ...] = KINDS, usual: str = "") -> Any:
    return option(
        "--estimators",
        default=default,
        nargs="*",
        metavar="E",
        help=(
            f"names, as sketchvar estimators lists them, or with a rate or bits of their own:"
            f" {EXAMPLES}{usual}"
        ),
    )


def rates(*default: float) -> Any:
    return option(
        "--rates",
        default=default or (0.5, 0.2, 0.1, 0.05),
        type=float,
        nargs="+",
        metavar="R",
        help="fractions of X to keep, 0 to 1",
    )


def rate(default: float | None = None) -> Any:
    return option(
        "--rate",
        default=default,
        type=float,
        metavar="R",
        help="fraction of X that is kept" + ("" if default else " (default: 0.1, or the least)"),
    )


def layer(usual: str) -> Any:
    return option("--layer", metavar="NAME", help=f"one layer (default: {usual})")


def horizon() -> Any:
    return option(
        "--horizon",
        type=float,
        metavar="T",
        help="steps over which cost counts (default: the most that were measured)",
    )


def plans(whose: str) -> Any:
    return option(
        "--plans",
        default=(),
        type=Path,
        nargs="+",
        metavar="FILE",
        help=f"files of sketchvar plan: {whose} by these plans too, each called by its file's name",
    )


def draws(default: int | None, whose: str) -> Any:
    return option("--draws", default=default, type=int, metavar="N", help=whose)


def repeats(default: int, whose: str) -> Any:
    return option("--repeats", default=default, type=int, metavar="N", help=whose)


def level(default: float, whose: str) -> Any:
    return option("--level", default=default, type=float, metavar="P", help=whose)


# where it runs and where it is written


def device() -> Any:
    return option(
        "--device",
        default="auto",
        metavar="D",
        help="auto, cpu, cuda or cuda:N; auto takes a GPU if any",
    )


def jobs() -> Any:
    return option(
        "--jobs",
        type=int,
        metavar="N",
        help=(
            "runs at a time (default: one; with several GPUs one on each; on Ray as many as there"
            " is room for)"
        ),
    )


def processes(whose: str) -> Any:
    return option(
        "--jobs",
        type=int,
        metavar="N",
        help=f"{whose}, each by a process (default: as many as there are cores; one on a GPU)",
    )


def backend(whose: str = "runs are trained") -> Any:
    return option(
        "--backend",
        default="processes",
        choices=["processes", "ray"],
        help=f"where {whose}: processes of this machine, or a Ray cluster",
    )


def seed(whose: str = "of the model, its training and the draws") -> Any:
    return option(
        "--seed",
        default=0,
        type=int,
        metavar="S",
        help=f"{whose}: the same seed gives the same rows on a CPU",
    )


def out(usual: str = "runs/<command>-<what>-<time>", metavar: str = "DIR") -> Any:
    going = "; a folder with the same work goes on" if metavar == "DIR" else ""
    return option(
        "--out",
        section="output",
        type=Path,
        metavar=metavar,
        help=f"where to write{going} (default: {usual})",
    )


def resume() -> Any:
    return option(
        "--resume",
        default=False,
        section="output",
        action="store_true",
        help="go on with the work in --out, which has to be there",
    )


def run() -> Any:
    return option(
        metavar="RUN", type=Path, help="a folder that sketchvar or a Probe wrote, as runs/NAME"
    )


def runs() -> Any:
    return option(
        metavar="RUN",
        type=Path,
        nargs="+",
        help="a folder that sketchvar or a Probe wrote, as runs/NAME; several of one kind",
    )
