"""Closed forms beside the truth: the minibatch variance and many redrawn batches, an estimator and
its own draws.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.estimators import Estimator, Measured, sketch_linears, spell

COLUMNS = ["layer", "examples", "draws", "redrawn", "redrawn_stderr"]
COLUMNS += ["row", "row_stderr", "row_z", "example", "example_stderr", "example_z"]
UNWEIGHTED = ["unweighted", "unweighted_stderr", "unweighted_z"]
SKETCHED = ["layer", "estimator", "draws", "variance", "measured", "stderr", "z"]


def truth(
    model: nn.Module,
    loss: noise.Loss,
    loader: Iterable[Any],
    draws: int,
    population: int | None = None,
    progress: Callable[[pd.DataFrame], object] | None = None,
    seen: "Seen | None" = None,
    weights: Callable[[Any], Tensor | None] = lambda batch: None,
) -> pd.DataFrame:
    """A line per layer that a probe can measure: the redrawn variance, both closed forms, and how
    far they are off.

    ``loader`` gives 2 · ``draws`` independent minibatches. The closed form of a single one is
    itself random, so each is averaged over every other minibatch, and the rest are for ``redraw``.
    ``row_z`` and ``example_z`` are differences over their standard errors. Batches without
    replacement from ``population`` examples give both forms the factor 1 − S/N. A weight that
    modules or layers share is not one layer's to redraw: NaN. ``progress`` is shown the table.
    ``seen`` is what an interrupted call has seen, and ``loader`` gives the rest. ``weights`` says
    of a batch how many tokens of each example the loss is a mean over, where they differ: the form
    by example is then that of ``noise.by_example`` with weights, and that without has columns of
    its own, ``UNWEIGHTED``.

    The form by example is exact where the loss is a mean or sum over examples that do not see each
    other: not under batch norm; with weights it holds to first order.
    Dropout adds noise that 1 − S/N does not diminish.

    Raises ValueError for batches of one example and whatever ``redraw`` and ``Probe`` refuse,
    FloatingPointError where a loss or a gradient is not finite.
    """
    seen = seen or Seen()
    batches = noise.exactly(loader, 2 * (draws - seen.spread.count))
    own = unshared(model)

    def every_other() -> Iterator[Any]:
        for batch in batches:
            where = f"draw {seen.spread.count}; no variance can be measured there"
            told = Probe(model, weights=weights(batch), parameters=False)
            with noise.unchanged(model), told as probe:
                noise.backward(loss(model, batch), where)
            for name, layer in probe.read().items():
                seen.forms[name].append(closed_forms(layer, population))
            yield next(batches)

    def show(known: dict[str, Measured]) -> pd.DataFrame:
        rows = table(
            seen.forms, {layer: known[weight] for layer, weight in own.items() if weight in known}
        )
        if progress:
            progress(rows)
        return rows

    return show(noise.redraw(model, loss, every_other(), draws, show, seen.spread))


@dataclass
class Seen:
    """What ``truth`` has seen so far, whole whenever it shows its progress: a few numbers of the
    closed forms per minibatch and layer (examples, by row, by example), and the redrawn gradients'
    spread.
    """

    forms: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))
    spread: noise.Spread = field(default_factory=noise.Spread)


def closed_forms(layer: Layer, population: int | None) -> tuple[float, ...]:
    """(examples, variance by row, by example, and where examples have weights, by example without
    them) of one layer in one minibatch. Raises ValueError for a single example.
    """
    if layer.examples < 2 or layer.example_sq is None:
        raise ValueError(
            "a batch of one example says nothing of the variance over batches; take batches of 2 or"
            " more"
        )
    left = 1 - layer.examples / population if population else 1.0
    squares, C = layer.example_sq, layer.moments.C
    forms = [noise.by_row(layer.moments), noise.by_example(squares, C)]
    if layer.weights is not None:
        weighed = noise.by_example(squares, C, weights=layer.weights, inner=layer.inner)
        forms.insert(1, weighed)
    return layer.examples, *(float(form) * left for form in forms)


def average(each: Tensor) -> Measured:
    """The mean of independent numbers, with its standard error."""
    return Measured(each.mean(), each.std() / len(each) ** 0.5, len(each))


def unshared(model: nn.Module) -> dict[str, str]:
    """Layer -> name of its weight, for every layer whose weight no other module has; ``in_proj``
    and the like, of attention, are layers too.
    """
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{module_name}.{key}".removesuffix("weight").strip("._"): names[id(weight)]
        for module_name, module in model.named_modules()
        for key, weight in module._parameters.items()
        if weight is not None and key.endswith("weight") and owners[id(weight)] == 1
    }


def table(forms: dict[str, list[tuple[float, ...]]], known: dict[str, Measured]) -> pd.DataFrame:
    """A line of ``COLUMNS``, and ``UNWEIGHTED`` if any, per layer; NaN where nothing was
    redrawn.
    """
    nothing = Measured(torch.tensor(torch.nan), torch.tensor(torch.nan), 0)
    lines = []
    for name, each in forms.items():
        drawn, (examples, *both) = (
            known.get(name, nothing),
            torch.tensor(each, dtype=torch.float64).T,
        )
        line = [name, float(examples.mean()), drawn.count, float(drawn.value), float(drawn.stderr)]
        for form in map(average, both):
            apart = (form.value - drawn.value) / torch.hypot(form.stderr, drawn.stderr)
            line += [float(form.value), float(form.stderr), float(apart)]
        lines.append(line)
    width = max(map(len, lines), default=len(COLUMNS))
    return pd.DataFrame(lines, columns=[*COLUMNS, *UNWEIGHTED][:width])


def bound(level: float, z: pd.Series, draws: int) -> float:
    """The value that no |z| of a whole table exceeds with probability 1 − ``level`` or more, were
    its closed form true.

    Bonferroni over the entries that are not NaN; Student's t with one degree of freedom less than
    draws. Where single draws are heavy-tailed and few, large |z| are more frequent than that.
    """
    return float(stats.t.ppf(1 - level / (2 * max(1, z.notna().sum())), draws - 1))


def estimator_truth(
    model: nn.Module, loss: noise.Loss, batch: Any, estimator: Estimator, draws: int
) -> pd.DataFrame:
    """A line per layer: an estimator's closed form on one batch, and its variance over ``draws``
    gradients of a model that trains with it, nothing else being random: a copy of ``model`` in eval
    mode, but for the sketched layers.

    Layers in which the estimator keeps no less than X, and which therefore run plain, are left out.
    Raises ValueError for an estimator that is biased, an oracle, or without a closed form, and what
    ``redraw`` refuses.
    """
    check(estimator)
    still = copy.deepcopy(model).eval()
    with noise.random_kept(still):
        with Probe(
            still,
            by_example=False,
            pairs=Probe(still).watched if estimator.traits.needs_pair else (),
        ) as probe:
            noise.backward(loss(still, batch), "the batch that estimates are drawn on")
        layers = probe.read()
    for name in sketch_linears(still, estimator).converted:
        still.get_submodule(name).train()
    drawn = noise.redraw(still, loss, repeat(batch), draws)
    lines = []
    for name, weight in unshared(still).items():
        if name in layers and weight in drawn and float(drawn[weight].value) > 0:
            variance, measured = estimator.variance(layers[name].moments), drawn[weight]
            apart = (variance - measured.value) / measured.stderr
            numbers = map(float, (variance, measured.value, measured.stderr, apart))
            lines.append((name, spell(estimator), draws, *numbers))
    return pd.DataFrame(lines, columns=SKETCHED)


def check(estimator: Estimator) -> None:
    """Raise ValueError for an estimator whose draws' variance is not its closed form, or that has
    none.
    """
    if estimator.traits.biased or estimator.traits.no_closed_form:
        raise ValueError(
            f"{spell(estimator)} is biased or has no closed form to set beside draws; choose"
            " another"
        )
