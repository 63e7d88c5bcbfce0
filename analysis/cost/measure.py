"""cost(): what the noise of an estimator costs the training of a model, beside the minibatch's
own.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis.cost.table import agreement, by_layer, coherence, price, ratios
from sketchvar.analysis.frontier.rows import find_family
from sketchvar.analysis.noise.cost import Draws, draw_noise, endless
from sketchvar.analysis.noise.curvature import Curvature, Hessian, Kicks
from sketchvar.analysis.noise.draw import ENOUGH, Ruler, Sketched
from sketchvar.analysis.noise.gauss_newton import GaussNewton
from sketchvar.analysis.noise.horizon import Dynamics, check_horizon
from sketchvar.analysis.noise.lanczos import nodes_for
from sketchvar.analysis.noise.metric import Steps, steps_of
from sketchvar.analysis.noise.objective import Objective
from sketchvar.analysis.noise.spread import Loss, random_kept
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import choices
from sketchvar.estimators.catalog import check_known
from sketchvar.estimators.choice import Estimators
from sketchvar.estimators.layers.convert import Patterns
from sketchvar.estimators.planned import Planned
from sketchvar.estimators.seeds import fold

CURVATURES: dict[str, type[Curvature]] = {
    "kicks": Kicks,
    "gauss-newton": GaussNewton,
    "hessian": Hessian,
}
KEYS = ["layer", "estimator", "rate"]
SIZES = ["p", "rows", "examples", "kept_bytes", "x_bytes", "input_of", "sketchable"]
HORIZONS = (1, 10, 100, math.inf)
VECTORS = 14  # numbers held per trainable weight, at most, beside a training step's own


@dataclass(frozen=True)
class Costs:
    """``table``: the three ratios of every estimator at every horizon; ``layers``: of every linear
    layer, over one step, where that was asked for; ``coherence``: how much of each noise's cost is
    there because tensors of weights err together; ``agreement``: of one-step costs by other
    curvatures, where those were asked for.

    They are made of ``draws``, in the ``dynamics`` of the optimizer's steps over ``horizons``,
    beside the bytes ``kept`` in all and by layer (``kept_layers``).
    """

    draws: Draws
    dynamics: Dynamics
    horizons: tuple[float, ...]
    kept: pd.DataFrame  # by ``kept_bytes``
    kept_layers: pd.DataFrame  # by ``kept_by_layer``

    def __repr__(self) -> str:
        return self.table.to_string(index=False, float_format="{:.4g}".format)

    @property
    def table(self) -> pd.DataFrame:
        """Cost ratio, metric ratio and variance ratio, of every estimator at every horizon."""
        return self.over(self.horizons)

    @property
    def layers(self) -> pd.DataFrame:
        """The same of every linear layer over one step; empty where that was not asked for."""
        table = by_layer(self.draws.layers, self.dynamics)
        return table if table.empty else table.merge(self.kept_layers, on=KEYS, how="left")

    @property
    def coherence(self) -> pd.DataFrame:
        """The part of each noise's cost that is there because tensors of weights err together."""
        return coherence(self.draws.totals)

    @property
    def agreement(self) -> pd.DataFrame:
        """Costs over one step by other curvatures; empty where those were not asked for."""
        return agreement(self.draws.totals, self.draws.ways)

    def over(
        self, horizons: Sequence[float], schedule: Sequence[float] | None = None
    ) -> pd.DataFrame:
        """``table`` over any ``horizons``, in steps, and learning rates (``schedule``, over that of
        now), without measuring again. Raises ValueError for more than one step where only one was
        measured.
        """
        if self.draws.spectra.empty and set(horizons) != {1}:
            raise ValueError("only one step was measured; ask cost() for a longer horizon")
        dynamics = self.dynamics
        if schedule is not None:
            dynamics = replace(dynamics, schedule=tuple(schedule))
        table = ratios(price(self.draws.totals, self.draws.spectra, dynamics, horizons))
        table = table[table["horizon"].isin(horizons)].merge(self.kept, on=["estimator", "rate"])
        first = ["estimator", "rate", "kept_bytes", "share", "horizon"]
        return table[first + [c for c in table if c not in first]]


def cost(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    estimators: Estimators,
    optimizer: torch.optim.Optimizer | Steps | None = None,
    horizon: float | Sequence[float] = HORIZONS,
    *,
    draws: int = 8,
    curvature: str = "kicks",
    layers: bool = False,
    one_seed: Estimators = (),
    schedule: Sequence[float] = (),
    clip: float = math.inf,
    scaler: Any = None,
    curved: int = 1,
    nodes: int | None = None,
    spectra: int | None = None,
    seed: int = 0,
    include: Patterns = None,
    exclude: Patterns = None,
    progress: Callable[[int, int], object] | None = None,
    signal: bool = True,
    coherence: bool = True,
    agree: Sequence[str] = (),
    jobs: int = 1,
) -> Costs:
    """What noise takes from the decrease of ``loss(model, batch)``, of each estimator over that of
    the minibatch: the *cost ratio*, beside the ratios of variances (``variance``) and of variances
    in the optimizer's metric (``metric``).

    ``batches`` is a loader or list that can be gone through again; 3 (2 + ``curved``) ``draws`` are
    used.
    ``estimators`` are spelled ("countsketch:0.1") or objects. ``optimizer``, after some training,
    gives the steps; without it only the cost over one plain gradient step is known.

    **Which horizon?** The cost ratio of one step says what the next step loses, in steep
    directions; after T steps flat directions count as well, which forget nothing, and it moves
    towards the metric ratio. Name the number of steps that are left: what noise still costs at the
    end of them is what the final loss sees. Where that is not known 100 is a fair guess; the table
    has all of ``horizon``. ``schedule`` gives the learning rates of the coming steps over that of
    now.

    ``draws`` are of each estimator, and three times as many of the minibatch, whose cost varies
    most: over one step 8 give standard errors of 18 to 32 % on a small language model, 24 of 11 to
    18 %; fewer than 4 give none. ``curvature`` of one step is
    measured by "kicks" (any model), "gauss-newton" (losses of torch.nn.functional) or "hessian";
    longer horizons by Gauss–Newton products where kicks are asked for and it can be had.
    It is that of ``curved`` batches, others than those of the noise: one is right for one step; few
    examples have steeper directions than many, and put more of the noise in flat ones, so try 4 for
    long horizons. ``nodes`` is the number of those products: what the longest horizon needs
    (``nodes_for``), unless given; ``spectra`` that of the draws whose spectra are taken: a half of
    them, unless given.
    ``layers`` measures every linear layer by itself, at a kick more for each in every draw.
    ``include`` and ``exclude`` choose the layers that estimators are in, as in ``sketch_linears``.
    ``one_seed``: estimators whose coherence is also measured with one seed for all layers.
    ``clip``: the norm to which gradients are clipped; ``scaler``: a GradScaler.

    ``agree`` names curvatures by which the same draws are measured over one step too: ``agreement``
    says whether they agree. Without ``coherence`` only the minibatch's is measured, and that of
    ``one_seed``. Without ``signal`` what predicts forks (``analysis.cost.beside``) is left out, a
    tenth of the time. ``jobs`` draws are made at a time, by processes; ``loss`` is sent to them.
    ``progress`` is called with how many are done, and of how many.

    The model, its gradients and torch's generators are left as they are: all is done on a copy.
    Memory: up to ``VECTORS`` numbers per trainable weight, beside three training steps, in every
    process; with ``signal`` a number per weight and estimator.
    Raises ValueError for what cannot be measured, FloatingPointError for values that are not
    finite.
    """
    for name in (curvature, *agree):
        check_known("curvature", name, CURVATURES)
    horizons = tuple(map(float, horizon if isinstance(horizon, Sequence) else [1, horizon]))
    for each in horizons:
        check_horizon(each)
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    if draws < ENOUGH:
        warnings.warn(f"{draws} draws give no standard errors; {ENOUGH} do", stacklevel=2)
    asked = [
        *(Sketched(choice) for choice in choices(estimators)),
        *(Sketched(choice, one_seed=True) for choice in choices(one_seed)),
    ]
    for one in asked:
        one.choice.told()  # oracles cannot be used by a layer
    if not asked:
        raise ValueError("cost needs an estimator, got none; give one, as in countsketch:0.1")
    with random_kept(model):
        objective, source = Objective(model, loss, scaler), endless(batches)
        steps = clipped(steps_for(model, optimizer, horizons, objective), objective, batches, clip)
        batch = next(source)
        kept_layers = kept_by_layer(objective, batch, asked)
        kept = kept_bytes(kept_layers)
        kept = kept.assign(family=kept["estimator"].map(families(asked)))
        way = CURVATURES[curvature](objective)
        far = [each for each in horizons if each != 1]
        ruler = Ruler(
            objective,
            way,
            products(way, batch) if curvature == "kicks" else way,
            steps,
            nodes or nodes_for(max((each for each in far if math.isfinite(each)), default=1)),
        )
        half = max(min(ENOUGH, draws), draws // 2)
        spectra = min(draws, spectra or half) if far else 0
        found = draw_noise(
            ruler, source, asked, draws, seed, spectra, layers, curved, include, exclude, progress,
            signal, coherence, {name: CURVATURES[name](objective) for name in agree}, jobs,
        )  # fmt: skip
    dynamics = Dynamics(steps.momentum, steps.nesterov, tuple(schedule))
    return Costs(found, dynamics, tuple(sorted({1.0, *horizons})), kept, kept_layers)


def needed_bytes(model: nn.Module, signals: int = 0) -> int:
    """The most bytes that a process of ``cost`` holds beside three training steps of this model;
    ``signals`` is the number of estimators where their signal is measured too.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return (VECTORS + signals) * sum(p.numel() * p.element_size() for p in trained)


def products(kicks: Curvature, batch: Any) -> Curvature:
    """What multiplies by the curvature where single forms are kicks: Gauss–Newton, which has no
    negative part, where loss and model have it, else differences of gradients.
    """
    gauss_newton = GaussNewton(kicks.objective)
    nothing = torch.zeros_like(kicks.objective.joined(dict(kicks.objective.parameters)))
    try:
        gauss_newton.product(nothing, [batch], 0)
    except (ValueError, RuntimeError, NotImplementedError):
        return kicks
    return gauss_newton


def steps_for(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Steps | None,
    horizons: Sequence[float],
    objective: Objective,
) -> Steps:
    """The steps of the optimizer, or plain ones of size 1 where a horizon needs none."""
    if isinstance(optimizer, Steps):
        if optimizer.rate.shape != (objective.size,):
            raise ValueError(
                f"rate must have {objective.size} entries, one per trainable weight, got shape"
                f" {tuple(optimizer.rate.shape)}"
            )
        return optimizer
    if optimizer is not None:
        return steps_of(optimizer, [p for p in model.parameters() if p.requires_grad])
    if any(horizon != 1 for horizon in horizons):
        raise ValueError(
            "a horizon of more than one step needs the optimizer, for the size of its steps; give"
            " optimizer=..., or horizon=1"
        )
    first = next(iter(objective.parameters.values()))
    return Steps(torch.ones(objective.size, dtype=objective.dtype, device=first.device))


def clipped(steps: Steps, objective: Objective, batches: Iterable[Any], clip: float) -> Steps:
    """The steps where gradients are scaled down to a norm of ``clip``: by the mean over some
    batches.
    """
    if math.isinf(clip):
        return steps
    few = itertools.islice(batches, ENOUGH)
    norms = [float(objective.gradient(batch, i).norm()) for i, batch in enumerate(few)]
    scale = sum(min(1.0, clip / max(norm, 1e-30)) for norm in norms) / len(norms)
    return replace(steps, rate=steps.rate * scale)


def kept_by_layer(objective: Objective, batch: Any, asked: Sequence[Sketched]) -> pd.DataFrame:
    """What every choice keeps of the input of each layer that it can be given to, in ``kept_bytes``
    of ``x_bytes``, and what a plan needs to know of the layer: columns as ``noise.COLUMNS``.
    """
    with Probe(objective.model, by_example=False) as probe:
        objective.gradient(batch, fold(0, "kept"))
    seen = probe.read()
    lines = []
    for choice in dict.fromkeys(each.choice for each in asked):
        told = choice.told()
        with objective.sketched(told, 0) as done:
            mine = [layer for layer in seen.values() if layer.name in done.converted]
        if isinstance(told, Mapping):  # what a plan leaves exact is kept whole
            mine = [layer for layer in seen.values() if layer.sketchable]
        for layer in mine:
            n, p = layer.moments.n, layer.moments.p
            whole = n * p * layer.dtype.itemsize
            estimator = told.get(layer.name) if isinstance(told, Mapping) else told
            kept = min(whole, estimator.kept_bytes(n, p, layer.dtype)) if estimator else whole
            size = (p, n, layer.examples, kept, whole, layer.input_of, layer.sketchable)
            lines.append((layer.name, choice.name, choice.rate, *size))
    return pd.DataFrame(lines, columns=[*KEYS, *SIZES])


def families(asked: Sequence[Sketched]) -> dict[str, str]:
    """What each estimator does to X, one of ``frontier.FAMILIES``."""
    return {
        each.choice.name: "plans"
        if isinstance(each.choice, Planned)
        else find_family(each.choice.told())
        for each in asked
    }


def kept_bytes(layers: pd.DataFrame) -> pd.DataFrame:
    """Bytes that every choice keeps of the inputs of all its layers, and their share of what exact
    training keeps of them; layers that read one input share a copy.
    """
    once = layers.drop_duplicates(["estimator", "rate", "input_of", "p"])
    sums = once.groupby(["estimator", "rate"], sort=False)[["kept_bytes", "x_bytes"]].sum()
    table = sums.assign(share=sums["kept_bytes"] / sums["x_bytes"].clip(lower=1)).reset_index()
    return table.drop(columns="x_bytes")
