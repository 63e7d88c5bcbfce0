"""What every column of a table means, in one place: ``help(Probe.rows)``, the metadata of Parquet
files and docs/columns.md read it here.

``python -m sketchvar.analysis.columns`` prints that page.
"""

import re
from collections.abc import Callable, Iterable
from textwrap import wrap
from typing import Any, NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Column(NamedTuple):
    """The unit of a column ("" where it has none, "1" for a ratio) and what it is."""

    unit: str
    meaning: str


GRADIENT = "gradient²"  # the square of the unit of the gradient, that is of loss per weight
FLAGS = {
    "oracle": ("", "whether the estimator is told of Y in advance, which no layer can be"),
    "biased": ("", "whether E Ĝ ≠ G: its variance is then a mean squared error"),
    "takes_rate": ("", "whether the estimator takes a rate; if not, it comes once, at rate 1"),
}
WHICH = {
    "run": ("", "name of the run"),
    "task": ("", "what is trained"),
    "step": ("updates", "optimizer steps before this one"),
    "layer": ("", "name of the layer in the model"),
    "estimator": ("", "its spelling, without the rate"),
    "rate": ("1", "part of X that is kept: of its rows, or of its features"),
}
SHAPE = {
    "p": ("numbers", "features of X, the layer's input"),
    "q": ("numbers", "features of Y, the gradient of its output"),
    "rows": ("rows", "rows of X and Y (tokens of all examples), padding included"),
    "examples": ("examples", "what the loader drew: sequences, images"),
}
METHOD = {
    "batch": ("examples", "examples in a step"),
    "checkpointing": ("", "whether activation checkpointing was on"),
    "layers": ("", "which layers are sketched, or how many the model has"),
    "seed": ("", "seed of the run"),
    "device": ("", "where it ran"),
    "hardware": ("", "which processor or GPU that is"),
    "threads": ("threads", "of torch"),
    "commit": ("", "of this code; + where files differed from it"),
    "torch": ("", "version of torch"),
    "dtype": ("", "precision of X"),
}
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "layers (Probe.rows, rows.parquet of a study)": {
        **WHICH,
        **SHAPE,
        "uses": ("", "how often the weight was used in the step"),
        "batches": ("batches", "the numbers are means over so many"),
        "population": ("examples", "examples that there are to draw from; NaN: no end of them"),
        "kept_rows": ("rows", "rows, or sums of rows, that are kept; NaN where features or bits"),
        "kept_bytes": ("bytes", "all that one compressed X keeps: payload, indices, scales, seed"),
        "x_bytes": ("bytes", "those of X itself"),
        "share": ("1", "kept_bytes / x_bytes"),
        "variance": (GRADIENT, "E‖Ĝ − G‖², over all entries, by the estimator's closed form"),
        "minibatch_row": (GRADIENT, "variance of G over minibatches, were rows independent"),
        "minibatch_example": (GRADIENT, "variance of G over minibatches of independent examples"),
        "ratio": ("1", "variance / minibatch_example, of their means; NaN where that is unknown"),
        "alpha": ("1", "‖G‖² / (‖X‖²‖Y‖²), from 0 to 1: how far rows agree"),
        "grad_sq": (GRADIENT, "‖G‖², before clipping and without the scale of a GradScaler"),
        "signal": (GRADIENT, "‖E g‖², as noise_scale estimates it"),
        "signal_stderr": (GRADIENT, "standard error of ‖E g‖², as noise_scale estimates it"),
        "metric_variance": ("", "variance in the metric of the optimizer's step, 1/(√v̂ + ε)"),
        "metric_minibatch": ("", "minibatch_example in that metric"),
        "metric_ratio": ("1", "metric_variance / metric_minibatch"),
        "sketchable": ("", "whether sketch_linears can convert the layer"),
        "input_of": ("", "the first layer that read the same X, with which a copy is shared"),
        **FLAGS,
    },
    "frontier (frontier.parquet)": {
        **WHICH,
        **SHAPE,
        "family": ("", "what is kept: sampled rows, row sketches, features, rounding"),
        "line": ("", "the estimator with its bits left open: a line of the figure"),
        "budget": ("1", "part of X's bytes that had to suffice; NaN: its size is its own"),
        "kept_bytes": ("bytes", "all that survives from forward to backward"),
        "fraction": ("1", "kept_bytes over the bytes of X"),
        "variance": (GRADIENT, "E‖Ĝ − G‖²; by draws where there is no closed form"),
        "stderr": (GRADIENT, "standard error of variance, of those draws; 0 for a closed form"),
        "bias_sq": (GRADIENT, "the part of a biased estimator's variance that is bias"),
        "minibatch_row": (GRADIENT, "variance of G over minibatches, were rows independent"),
        "minibatch_example": (GRADIENT, "variance of G over minibatches of independent examples"),
        "ratio": ("1", "variance / minibatch_example"),
        **FLAGS,
    },
    "draws (draws.parquet; compare and variance)": {
        **WHICH,
        "share": ("1", "kept bytes over those of X"),
        "variance": (GRADIENT, "E‖Ĝ − G‖² by the closed form; NaN where there is none"),
        "measured": (GRADIENT, "mean of ‖Ĝ − G‖² over draws"),
        "stderr": (GRADIENT, "standard error of measured"),
        "draws": ("draws", "behind measured"),
        "z": ("1", "(measured − variance) / stderr; NaN where draws do not differ"),
        "ratio": ("1", "variance over the minibatch variance by example"),
        "minibatch_example": (GRADIENT, "variance of G over minibatches of independent examples"),
        **FLAGS,
    },
    "noise of parameters (Probe.noise, noise.parquet)": {
        "run": WHICH["run"],
        "step": WHICH["step"],
        "parameter": ("", "name of the parameter; then each kind, and the whole model"),
        "kind": ("", "what it belongs to: linear, norm, embedding, bias and so on"),
        "size": ("numbers", "of the parameter"),
        "examples": SHAPE["examples"],
        "batches": ("batches", "the numbers are means over so many"),
        "population": ("examples", "examples that there are to draw from; NaN: no end of them"),
        "minibatch_example": (GRADIENT, "variance of its gradient over minibatches of examples"),
        "grad_sq": (GRADIENT, "‖G‖² of its gradient"),
        "signal": (GRADIENT, "‖E g‖², as noise_scale estimates it"),
        "signal_stderr": (GRADIENT, "standard error of ‖E g‖², as noise_scale estimates it"),
    },
    "losses (losses.parquet)": {
        "step": ("updates", "optimizer steps before this one"),
        "train": ("loss", "mean loss of the training batches since the last line"),
        "validation": ("loss", "mean loss on the validation set"),
        "metric": ("", "the task's score on it: accuracy, Matthews correlation; larger is better"),
    },
    "coverage (Probe.coverage, coverage.parquet)": {
        "parameter": ("", "name of a trained parameter"),
        "module": ("", "class of the module that has it"),
        "share": ("1", "its part of all trained parameters"),
        "measured": ("", "whether it was measured in the last measured step"),
        "reason": ("", "why not"),
        "note": ("", "what to know of its numbers, where there is something"),
        "not_finite": ("steps", "measured steps that were left out, as X or Y was not finite"),
    },
    "training (rows.parquet of sketchvar train)": {
        "cell": ("", "name of the training run"),
        **WHICH,
        **METHOD,
        "factor": ("1", "of the task's learning rate"),
        "longer": ("", "whether it has more updates, for as many examples on a smaller batch"),
        "train": ("loss", "mean loss of the training batches since the last line"),
        "validation": ("loss", "mean loss on the validation set"),
        "metric": ("", "the task's score on it; larger is better"),
        "ratio": ("1", "estimator variance over minibatch variance, summed over layers"),
        "ratio_median": ("1", "the same, median over layers"),
        "seconds": ("s", "of training, evaluation left out"),
        "peak": ("bytes", "the most that was held at once"),
        **FLAGS,
    },
    "summary (summary.parquet of sketchvar train)": {
        **WHICH,
        **METHOD,
        "seeds": ("runs", "that were trained"),
        "same_memory_batch": ("examples", "batch of exact training that holds as many bytes"),
        "same_peak_batch": ("examples", "batch of exact training of the same peak"),
        "metric": ("", "final score, mean over seeds"),
        "validation": ("loss", "final validation loss, mean over seeds"),
        "metric_exact": ("", "metric less that of exact training on the whole batch"),
        "validation_exact": ("loss", "validation less that of exact training, whole batch"),
        "metric_smaller": ("", "metric less that on same_memory_batch"),
        "validation_smaller": ("loss", "validation less that on same_memory_batch"),
        "metric_examples": ("", "metric less that on same_memory_batch for as many examples"),
        "validation_examples": ("loss", "validation less that, for as many examples"),
        "metric_peak": ("", "metric less that on same_peak_batch"),
        "validation_peak": ("loss", "validation less that on same_peak_batch"),
        "slowdown": ("1", "updates, over those in which exact training has the same loss"),
        "detectable": ("loss", "least difference that these seeds would have shown, alone"),
        "drawn": ("intervals", "that a figure draws together"),
        "detectable_drawn": ("loss", "the least difference shown among that many"),
        "factor": ("1", "of the task's learning rate: the best, mean over seeds"),
        "ratio": ("1", "estimator variance over minibatch variance, all layers, through training"),
        "fraction": ("1", "1 / (1 + ratio): the batch that would be as noisy"),
        "seconds": ("1", "time over that of exact training"),
        "peak": ("1", "peak over that of exact training"),
        **FLAGS,
    },
    "memory of a training (memory-….parquet)": {
        **WHICH,
        "activations": ("bytes", "held between forward and backward"),
        "exact": ("bytes", "held by exact training on the whole batch"),
        "same_memory_batch": ("examples", "batch of exact training that holds as many"),
        "peak": ("bytes", "the most that a step holds at once"),
        "exact_peak": ("bytes", "that of exact training on the whole batch"),
        "same_peak_batch": ("examples", "batch of exact training of the same peak"),
    },
    "predictions (predictions.parquet)": {
        **WHICH,
        "fraction": ("1", "1 / (1 + ratio), of the batch that would be as noisy"),
        "effective_batch": ("examples", "batch times fraction"),
        "seeds": ("runs", "that were trained"),
        "inside": ("", "whether the effective batch is among those of exact training"),
        "observed": ("loss", "final validation loss"),
        "predicted": ("loss", "that of exact training on the effective batch"),
        "error": ("loss", "observed − predicted"),
        **FLAGS,
    },
    "cost (cost.parquet, cost-layers.parquet)": {
        **WHICH,
        **SHAPE,
        "x_bytes": ("bytes", "those of X itself"),
        "sketchable": ("", "whether sketch_linears can convert the layer"),
        "input_of": ("", "the first layer that read the same X, with which a copy is shared"),
        "horizon": ("updates", "steps that go on after the noise; inf: for ever"),
        "variance": (GRADIENT, "of the noise, all linear layers together"),
        "metric": ("", "the same in the metric of the optimizer's step"),
        "cost": ("loss", "that the noise takes from training"),
        "minibatch_cost": ("loss", "that the minibatch's own noise takes"),
        "draws": ("draws", "of noise"),
        "share": ("1", "bytes kept, of those of the layers' inputs"),
        "coherence": ("1", "part of the cost that is there because tensors err together"),
        "negative": ("1", "share of the noise where the loss curves down"),
        "unstable": ("1", "share of the noise where steps nearly diverge"),
        "kept_bytes": (
            "bytes",
            "kept of the inputs of all layers; layers of one input share a copy",
        ),
        "family": ("", "what is kept: sampled rows, row sketches, features, rounding"),
        "noise": ("", "whose: an estimator, the minibatch, or the minibatch of linear weights"),
        "seeds": ("", "own: each layer draws for itself; one: all draw by one seed"),
        "draw": ("", "number of the draw of noise"),
        "form": ("loss", "uᵀHu of the noise u of an update, from which its cost comes"),
        "apart": ("loss", "the same, with the sign of each tensor's noise turned at random"),
        "curvature": ("", "which curvature H was taken"),
        "over_first": ("1", "cost by it over that by the first curvature, of the same draws"),
        "first": ("1", "cost ratio by the first curvature"),
        "node": ("1/step", "curvature, in the metric of the step, of a part of the noise"),
        "weight": ("", "how much of the noise has it"),
        **FLAGS,
    },
    "forks (forks.parquet, effective.parquet, progress.parquet)": {
        **WHICH,
        "fraction": ("1", "part of the batch that exact training takes"),
        "factor": ("1", "its learning rate over that of the task"),
        "fork": ("", "number of the copy of the training"),
        "steps": ("updates", "that a copy goes on for"),
        "tuning": ("", "whether the fork only chooses a learning rate"),
        "loss": ("loss", "at the end; mean over forks"),
        "forks": ("forks", "behind the mean"),
        "tuned": ("", "whether each method has its own best learning rate"),
        "behind": ("loss", "loss less that of exact training on the whole batch, paired"),
        "effective": ("1", "part of the batch on which exact training ends at that loss"),
        "low": ("1", "lower end of the 95 % interval of effective"),
        "high": ("1", "upper end of the 95 % interval of effective"),
        "inside": ("", "whether the loss is among those of exact training"),
        "by_variance": ("1", "effective as 1 / (1 + variance ratio) predicts it"),
        "by_metric": ("1", "as 1 / (1 + metric ratio) does"),
        "by_cost": ("1", "as 1 / (1 + cost ratio) does"),
        "by_both": ("1", "as noise and progress joined do"),
        "off_variance": ("1", "by_variance less effective, over half the interval on that side"),
        "off_metric": ("1", "the same of by_metric"),
        "off_cost": ("1", "the same of by_cost"),
        "off_both": ("1", "the same of by_both"),
        "after": ("updates", "on gradients of the method, after which progress is told"),
        "progress": ("1", "linear progress of a step by then, over that of now"),
        "noise": ("", "whose: an estimator, or the minibatch"),
        "variance": (GRADIENT, "of the noise, all linear layers together"),
        "metric": ("", "the same in the metric of the optimizer's step"),
        "cost": ("loss", "that the noise takes from training"),
        "horizon": ("updates", "of the cost"),
        "draws": ("draws", "of noise"),
        "share": ("1", "bytes kept, of those of the layers' inputs"),
        "kept_bytes": ("bytes", "kept of the inputs of all layers"),
        "negative": ("1", "share of the noise where the loss curves down"),
        "unstable": ("1", "share of the noise where steps nearly diverge"),
        "family": ("", "what is kept: sampled rows, row sketches, features, rounding"),
        **FLAGS,
    },
    "truth (truth.parquet)": {
        **WHICH,
        "examples": ("examples", "in a minibatch"),
        "draws": ("minibatches", "that were drawn with frozen weights"),
        "redrawn": (GRADIENT, "how much the gradient varied over them: the truth"),
        "row": (GRADIENT, "what the form by row says"),
        "example": (GRADIENT, "what the form by example says"),
        "unweighted": (GRADIENT, "what it says without the examples' numbers of tokens"),
    },
    "draws of layers that train (estimator.parquet)": {
        **WHICH,
        "draws": ("draws", "of the estimator on one minibatch"),
        "variance": (GRADIENT, "by the closed form"),
        "measured": (GRADIENT, "over the draws"),
        "stderr": (GRADIENT, "standard error of measured"),
        "z": ("1", "(measured − variance) / stderr"),
        **FLAGS,
    },
    "intervals (intervals.parquet)": {
        **WHICH,
        "quantity": ("", "column whose standard error is judged"),
        "batches": ("batches", "that each estimate is a mean over"),
        "groups": ("groups", "independent estimates"),
        "known": ("1", "part of them whose error is known"),
        "covered": ("1", "part of those whose 95 % interval holds the truth"),
        "told": ("", "standard error that was told, the root of its mean square"),
        "true": ("", "standard deviation of the estimates over groups"),
        "mean": ("", "mean of the estimates"),
    },
    "scores (scores.parquet)": {
        **WHICH,
        "variance": (GRADIENT, "mean over batches"),
        "minibatch_example": (GRADIENT, "mean over batches"),
        "ratio": ("1", "variance / minibatch_example"),
        "gap_closed": ("1", "from norm rows (0) to the oracle (1), how far scores get"),
        "gap_stderr": ("1", "standard error of gap_closed, over batches"),
        **FLAGS,
    },
    "time of a layer (layer.parquet)": {
        **METHOD,
        **SHAPE,
        **WHICH,
        "mode": ("", "train, or the forward alone in eval or no_grad"),
        "ratio": ("1", "time of a training step of the layer over that of nn.Linear"),
        "low": ("1", "lower end of its interval"),
        "high": ("1", "upper end of its interval"),
        "theory": ("1", "what the operations would let one expect"),
        "kept": ("1", "bytes kept, of those of the layer's input"),
        "allocated": ("1", "bytes that a step asks for one by one, over those of nn.Linear"),
        "peak": ("1", "the most bytes that a step holds at once, over that of nn.Linear"),
        "kernel": ("", "side of a convolution's kernel, whose patches are X; 1 for nn.Linear"),
        "allocations": ("requests", "for memory in a step, more than of nn.Linear"),
        "passes": ("1", "reads and writes beside products, of the input's size, more than there"),
        "numbers": ("1", "random numbers that are drawn for each number of X"),
        "repeats": ("runs", "that were timed"),
        **FLAGS,
    },
    "time and memory of a training step (step.parquet)": {
        **METHOD,
        **WHICH,
        "ratio": ("1", "time of a training step over that of the exact one"),
        "low": ("1", "lower quartile of that ratio over pairs"),
        "high": ("1", "upper quartile of that ratio over pairs"),
        "plain_peak": ("bytes", "the most that the exact step held at once, above what stays"),
        "peak": ("bytes", "the most that the step held at once, above what stays"),
        "plain_saved": ("bytes", "that autograd holds for backward in the exact step"),
        "saved": ("bytes", "that autograd holds between forward and backward"),
        "kept": ("bytes", "the part of saved that layers keep in place of their inputs"),
        "repeats": ("runs", "that were timed"),
        **FLAGS,
    },
    "memory of a model (memory.parquet)": {
        **METHOD,
        **WHICH,
        "length": ("rows", "tokens of an example"),
        "shape": ("", "which model's, with random weights"),
        "selective": ("", "whether checkpointing kept the products of linear layers"),
        "peak": ("bytes", "the most that a training step held at once"),
        "ratio": ("1", "peak over that of the plain model"),
        "theory": ("1", "what the bytes kept would let one expect"),
        "resident": ("bytes", "of the process"),
        "saved": ("bytes", "that autograd holds between forward and backward"),
        "account": ("", "those bytes by the operation that holds them, in JSON"),
        "seconds": ("s", "of a step"),
        **FLAGS,
    },
    "averages of several sketches (paper/averaging)": {
        **WHICH,
        "count": ("sketches", "that are averaged"),
        "variance": (GRADIENT, "of the average, by draws"),
        "stderr": (GRADIENT, "standard error of variance"),
        "draws": ("draws", "behind variance"),
        "one": (GRADIENT, "of one sketch of as many bytes"),
        "single": (GRADIENT, "of one of the sketches"),
        **FLAGS,
    },
}
LAYERS = next(iter(TABLES))
ENDINGS = {
    "_stderr": "standard error of {}",
    "_low": "lower end of the 95 % interval of {}",
    "_high": "upper end of the 95 % interval of {}",
    "_p": "p-value of {}",
    "_holm": "p-value of {}, over all of the family",
    "_z": "{} less the truth, over the standard error of both",
    "_ratio": "{} over the minibatch's",
}


def find_column(name: str, table: str = LAYERS) -> Column | None:
    """What a column of a table is; of ``…_stderr`` and the like what it belongs to."""
    if name in TABLES[table]:
        return Column(*TABLES[table][name])
    for ending, words in ENDINGS.items():
        stem = name.removesuffix(ending)
        if stem != name and (of := find_column(stem, table)):
            unit = "1" if ending in ("_p", "_holm", "_z", "_ratio") else of.unit
            return Column(unit, words.format(stem))
    return None


def find_table(names: Iterable[str]) -> str:
    """The table that knows most of these columns, the first of several."""
    names = list(names)
    return max(TABLES, key=lambda table: sum(find_column(n, table) is not None for n in names))


def describe(names: Iterable[str]) -> dict[str, Column]:
    """What the columns of a table are, those that are known."""
    names = list(names)
    table = find_table(names)
    return {name: found for name in names if (found := find_column(name, table))}


def document(names: Iterable[str]) -> Callable[[Function], Function]:
    """Add what these columns are to a docstring."""

    def add(function: Function) -> Function:
        indent = re.findall(r"\n( +)", function.__doc__ or "") or ["    "]
        lines = []
        for name, column in describe(names).items():
            unit = f" [{column.unit}]" if column.unit else ""
            first, *rest = wrap(f"{name}{unit}: {column.meaning}", 88)
            lines += [f"{indent[0]}    {first}", *(f"{indent[0]}        {line}" for line in rest)]
        function.__doc__ = "\n".join([(function.__doc__ or "").rstrip(), "", *lines, indent[0]])
        return function

    return add


def write_page() -> str:
    """The page of all columns, in Markdown."""
    lines = [
        "# Columns",
        "",
        "Made by `python -m sketchvar.analysis.columns`; a test keeps it up to date. What each"
        " column of a table is: name, unit and",
        "meaning. The Parquet files carry the same (`pyarrow.parquet.read_schema(file).field(name)"
        ".metadata`), and so does",
        "`help(Probe.rows)`. Unit 1 is a ratio; gradient² the square of the unit of the gradient,"
        " summed over entries. What was not",
        "measured is NaN.",
        "",
        "Endings: " + "; ".join(f"`{e}` is the {w.format('…')}" for e, w in ENDINGS.items()) + ".",
    ]
    for table, columns in TABLES.items():
        lines += ["", f"## {table[0].upper()}{table[1:]}", "", "| column | unit | meaning |"]
        lines += ["|---|---|---|"]
        lines += [f"| `{name}` | {unit} | {text} |" for name, (unit, text) in columns.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(write_page(), end="")
