"""Survey: which weights of a model are under observation, and which of its modules have them."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.patterns import check_patterns, is_named
from sketchvar.analysis.probe.watch import Watch
from sketchvar.estimators.layers.convert import obstacle


class Survey:
    """``layers`` are patterns of their names. Raises ValueError where there is nothing to watch,
    and for a pattern that names nothing.
    """

    def __init__(self, model: nn.Module, layers: Collection[str]) -> None:
        self.model, self.layers = model, layers
        self.left_out: dict[tuple[nn.Module, str], str] = {}  # the layers that it does not name
        self.modules: list[nn.Module] = []
        self.kinds: dict[nn.Module, Kind] = {}
        self.norms: dict[nn.Module, str] = {}  # those over the batch
        self.places: dict[tuple[nn.Module, str, int | None], Watch] = {}
        self.look()
        check_patterns("layers", layers, [*self.watched, *self.left_out.values()])
        if not self.watched:
            raise ValueError(
                f"{type(model).__name__} has no linear layer whose weight requires a gradient:"
                " nothing to probe; nn.Linear, nn.Conv2d, nn.MultiheadAttention and Hugging Face's"
                f" Conv1D can be measured{why_none(model)}"
            )

    @property
    def watched(self) -> dict[str, Watch]:
        """The weights that are trained, by the names of their layers."""
        return {watch.name: watch for watch in self.places.values() if is_trained(watch.weight)}

    def look(self) -> bool:
        """Look for weights; returns whether modules have come or gone."""
        modules = list(self.model.modules())
        if modules == self.modules:
            return False
        self.modules = modules
        owners = Counter(id(p) for m in modules for p in m._parameters.values() if p is not None)
        before, self.places = self.places, {}
        self.kinds, self.norms, self.left_out = {}, {}, {}
        for name, module in self.model.named_modules():
            kind = kind_of(module)
            if isinstance(module, _BatchNorm) and "forward" not in vars(module):
                self.norms[module] = name
            if not isinstance(kind, Kind):
                continue
            self.kinds[module] = kind
            for layer, (owner, key) in kind.weights(name, module).items():
                if not is_named(layer, self.layers):
                    self.left_out[owner, key] = layer
                    continue
                known = before.get((owner, key, None))
                tied = owners[id(owner._parameters[key])] > 1
                if known is None or (known.name, known.tied) != (layer, tied):
                    fit = obstacle(self.model, layer, owner) is None if key == "weight" else False
                    known = Watch(layer, owner, key, tied, fit)
                self.places[known.place] = known
        for place, watch in before.items():
            if watch.part is not None and (*place[:2], None) in self.places:
                self.places[place] = watch
        return True


def is_trained(weight: Any) -> bool:
    """Whether it is a parameter that will have a gradient."""
    return isinstance(weight, nn.Parameter) and weight.requires_grad


def has_weight(kind: Kind, module: nn.Module) -> bool:
    """Whether a module of this kind has a weight that is trained, for its products to be seen."""
    return any(
        is_trained(owner._parameters.get(key)) for owner, key in kind.weights("", module).values()
    )


def owner_of(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a class has its forward from."""
    return next(each for each in kind.__mro__ if "forward" in vars(each))


def why_none(model: nn.Module) -> str:
    """What is wrong with the layers of a model none of which can be measured."""
    reasons = {
        name: kind
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
        and isinstance(kind := kind_of(module), str)
    }
    return "".join(f"; {name or 'it'}: {reason}" for name, reason in list(reasons.items())[:1])
