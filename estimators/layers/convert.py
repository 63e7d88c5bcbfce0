"""sketch_linears and unsketch: turn the layers of an existing model into sketched ones, in place,
and back.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.layers.linear import Sketched, base_of, sketched_class
from sketchvar.estimators.layers.reads import reads_weight

Patterns = str | Iterable[str] | None


@dataclass(frozen=True)
class Conversion:
    """What ``sketch_linears`` did. ``converted``: layer -> its estimator. ``skipped``: layer -> why
    it was not.

    Every module that owns a matrix of parameters (two dimensions or more) is in one of the two.
    """

    converted: dict[str, Estimator]
    skipped: dict[str, str]

    def __repr__(self) -> str:
        lines = [f"{len(self.converted)} layers sketched, {len(self.skipped)} not"]
        lines += [f"  {name}: {estimator}" for name, estimator in self.converted.items()]
        lines += [f"  {name}: not sketched, {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)


def sketch_linears(
    model: nn.Module,
    estimator: Estimator | Mapping[str, Estimator],
    include: Patterns = None,
    exclude: Patterns = None,
) -> Conversion:
    """Let the linear layers of ``model`` take their weight gradient from ``estimator``, in place;
    say what was done.

    ``estimator`` is one for all layers, or a mapping of layer names or patterns to estimators: a
    layer's own name comes first, then the first pattern that matches. Of the layers that match
    ``include`` (all, unless given) those that match ``exclude`` stay plain. Patterns are those of
    ``fnmatch`` ("encoder.*.query") on names in ``model.named_modules()``; what names a layer is no
    pattern, whatever brackets it has. Handled are nn.Linear, nn.Conv2d without groups, Hugging
    Face's Conv1D, and their subclasses that inherit ``forward``. A layer changes its class and
    nothing else: its parameters, hooks, mode and place stay, so that ties and optimizer states do
    too. A layer that is sketched already takes the new estimator.

    Raises TypeError for what is not an Estimator, ValueError for a pattern that names no layer (a
    misspelling would otherwise train the plain layer, silently). Nothing is changed where it
    raises.

    What is saved: the part of X that is not kept, unless another operation holds the same X (tanh
    and ReLU hold their output; a frozen convolution its input). ``sketchvar bench memory``
    measures what is really saved.

    >>> from sketchvar.estimators import CountSketch
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
    >>> sketch_linears(model, CountSketch(rate=0.1), exclude="3")
    2 layers sketched, 1 not
      0: CountSketch(rate=0.1, balanced=True)
      2: CountSketch(rate=0.1, balanced=True)
      3: not sketched, in exclude
    """
    chosen = dict(estimator) if isinstance(estimator, Mapping) else {"*": estimator}
    for pattern, each in chosen.items():
        if not isinstance(each, Estimator):
            raise TypeError(
                f"sketch_linears needs an Estimator for {pattern!r}, got {each!r}; pass one, as in"
                " CountSketch(0.1)"
            )
    included, excluded = patterns(include, "*"), patterns(exclude)
    layers = {name: module for name, module in model.named_modules() if owns_matrix(module)}
    named = [
        *((include and included) or ()),
        *excluded,
        *(chosen if isinstance(estimator, Mapping) else ()),
    ]
    for pattern in named:
        if not select(pattern, layers):
            raise ValueError(
                f"{pattern!r} matches no layer of the model; its layers are {', '.join(layers)}"
            )
    given: dict[str, Estimator] = {}
    for pattern, each in sorted(chosen.items(), key=lambda item: item[0] not in layers):
        for name in select(pattern, layers):
            given.setdefault(name, each)
    inside = {name for pattern in included for name in select(pattern, layers)}
    outside = {name for pattern in excluded for name in select(pattern, layers)}
    done, skipped = {}, {}
    for name, layer in layers.items():
        if why := obstacle(model, name, layer):
            skipped[name] = why
        elif name not in inside:
            skipped[name] = "not in include"
        elif name in outside:
            skipped[name] = "in exclude"
        elif name not in given:
            skipped[name] = "no estimator was given for it"
        else:
            done[name] = given[name]
    for name, each in done.items():
        convert(layers[name], each)
    return Conversion(done, skipped)


def select(pattern: str, names: Collection[str]) -> list[str]:
    """The names that a pattern means: itself where it is one of them, else those that match it."""
    if pattern in names:
        return [pattern]
    return [name for name in names if fnmatchcase(name, pattern)]


def unsketch(model: nn.Module) -> list[str]:
    """Give every sketched layer of ``model`` its plain class back, in place; the names of the
    layers that changed.

    Raises ValueError for a layer whose class was changed by something else since it was sketched.
    """
    changed = []
    for name, layer in model.named_modules():
        if isinstance(layer, Sketched):
            layer.restore()
            changed.append(name)
    return changed


def convert(layer: nn.Module, estimator: Estimator) -> None:
    """Make one layer a sketched one, or give a sketched one another estimator."""
    if not isinstance(layer, Sketched):
        layer.__class__ = sketched_class(type(layer))  # type: ignore[arg-type]
    layer.sketch(estimator)  # type: ignore[operator]


def obstacle(model: nn.Module, name: str, layer: nn.Module) -> str | None:
    """Why a layer that owns a matrix cannot be sketched; None where it can."""
    kind = type(layer).__name__
    parts = name.split(".")
    parents = [model.get_submodule(".".join(parts[:i])) for i in range(len(parts) if name else 0)]
    if isinstance(layer, Sketched):
        return None
    if isinstance(layer, nn.MultiheadAttention):
        return "nn.MultiheadAttention multiplies by its in_proj_weight itself"
    if any(isinstance(p, nn.MultiheadAttention) for p in parents):
        return "nn.MultiheadAttention reads its weight and never calls it"
    if any(isinstance(getattr(p, "base_layer", None), nn.MultiheadAttention) for p in parents):
        return "an adapter of nn.MultiheadAttention, whose weight is read and which is never called"
    if "forward" in vars(layer):
        return (
            "its forward was replaced on the instance, as accelerate's hooks do (device_map,"
            " offload): nobody would call the sketched one; convert first"
        )
    for i, parent in enumerate(parents):
        if reads_weight(parent, ".".join(parts[i:])):
            return f"{type(parent).__name__} reads its weight itself and never calls it"
    if any(p.is_complex() for p in layer.parameters(recurse=False)):
        return "its weight is complex"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "its shape is not known before the first batch; run one, then convert"
    if is_parametrized(layer):
        return (
            "its weight is parametrized: torch made a class for it that a sketched one cannot"
            " replace"
        )
    if base_of(type(layer)) is None:
        near = isinstance(layer, nn.Linear | nn.Conv2d)
        return (
            f"{kind} has its own forward, which need not be the plain product"
            if near
            else f"it is {article(kind)}"
        )
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return f"its weight gradient is {layer.groups} products, one per group"
    return None


def owns_matrix(module: nn.Module) -> bool:
    lazy = nn.parameter.UninitializedParameter
    own = list(module.parameters(recurse=False))
    return any(isinstance(p, lazy) or p.ndim > 1 for p in own) or is_parametrized(module)


def patterns(given: Patterns, *default: str) -> tuple[str, ...]:
    if given is None:
        return default
    return (given,) if isinstance(given, str) else tuple(given)


def article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
