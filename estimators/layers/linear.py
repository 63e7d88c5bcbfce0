"""Layers that take their weight gradient from an Estimator: SketchedLinear, SketchedConv2d, and any
layer like them.
"""

import sys
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.layers.forms import Conv1DForm, Form, LinearForm, conv2d_form
from sketchvar.estimators.layers.opaque import number
from sketchvar.estimators.layers.predicted import (
    counted,
    row_scores,
    scored,
    updated,
    with_scores,
)
from sketchvar.estimators.layers.product import product
from sketchvar.estimators.layers.samples import Samples, find_samples, learn_samples
from sketchvar.estimators.norms import row_sq

COMPILED_SCORES = (
    "ScoredRows learns its scores in backward, which a compiled graph cannot; compile the model"
    " without these layers (torch.compiler.disable) or give them another estimator"
)


class Sketched(nn.Module):
    """Mixed into a plain layer's class: output, input gradient and bias gradient are the plain
    layer's; the weight gradient is ``estimate(self.estimator, X, Y, seed)``, one seed per call from
    torch's default generator.

    With ``ScoredRows`` (or ``Then(ScoredRows(...), ...)``, or ``RowBits`` with scores) the scores
    given are the first ones, per position; the layer goes on with a running mean of ‖yᵢ‖² per
    position, a buffer that state_dict does not have, and shares nothing with its siblings, whose
    scores are others. Within ``tell_samples`` it remembers every sample of the dataset, too.

    Parameters, buffers, hooks and state_dict are the plain layer's. In eval mode, without
    gradients, with a frozen weight, or where the estimator would keep no less than the input, it
    runs the plain layer.
    """

    plain: ClassVar[type[nn.Module]]  # the class that unsketch gives back
    estimator: Estimator
    position_sq: Tensor  # running mean of ‖y‖² per position, where the estimator is ScoredRows
    sample_sq: Tensor  # that of each sample, over its batch's, where samples are told
    _learned: bool
    _handle: int  # the estimator's number in compiled graphs, and the equal one that has it
    _numbered: Estimator

    def sketch(self, estimator: Estimator) -> None:
        """Use this estimator from the next forward on. Raises TypeError for anything that is not an
        Estimator.
        """
        if not isinstance(estimator, Estimator):
            raise TypeError(
                f"a sketched layer needs an Estimator, got {type(estimator).__name__}; pass one, as"
                " in CountSketch(0.1)"
            )
        start = scored(estimator)
        if estimator.traits.oracle and start is None:
            raise ValueError(
                f"{type(estimator).__name__} was told about the rows of Y in advance, which a layer"
                " cannot be; use NormRows, or another estimator that needs X only"
            )
        self.forget_scores()
        if start is not None:
            given = start.scores
            scores = torch.ones(1) if given is None or not given.numel() else given
            weight: Any = self.weight
            self.register_buffer(
                "position_sq", scores.to(weight.device, torch.float32).square(), persistent=False
            )
            self._learned = False
        self.estimator = estimator
        self._handle, self._numbered = number(estimator)

    def restore(self) -> None:
        """Become the plain layer again. Raises ValueError where something else has changed the
        class since.
        """
        if type(self) is not sketched_class(self.plain):  # type: ignore[arg-type]
            raise ValueError(
                f"cannot unsketch a layer that has become a {type(self).__name__}; undo first what"
                " changed its class (a parametrization, fully_shard)"
            )
        self.forget_scores()
        del self.estimator, self._handle, self._numbered
        self.__class__ = self.plain  # type: ignore[assignment]

    def estimated(self, form: Form, x: Tensor) -> Tensor:
        weight: Any = self.weight
        bias: Any = self.bias
        if not self.training:
            return form.run(x, weight, bias)
        estimator, observe = self.estimator, None
        if "position_sq" in self._buffers:
            if torch.compiler.is_compiling():
                raise NotImplementedError(COMPILED_SCORES)
            n = form.size(x, weight)[0]
            length = form.positions(x, n)
            samples = find_samples(n // max(length, 1))
            scores = row_scores(self.position_sq, n, length)
            if samples is not None:
                known = self.remember(samples)[samples.index.to(scores.device)]
                scores = scores * known.sqrt().repeat_interleave(length)
            estimator = with_scores(estimator, scores)
            observe = partial(self.observe, length, samples)
        return product(self, form, estimator, self._handle, x, weight, bias, observe)

    def remember(self, samples: Samples) -> Tensor:
        """What is known of each sample of the dataset, at first nothing. Raises ValueError where it
        is another dataset than before.
        """
        if "sample_sq" not in self._buffers:
            ones = self.position_sq.new_ones(samples.size)
            self.register_buffer("sample_sq", ones, persistent=False)
        if len(self.sample_sq) != samples.size:
            raise ValueError(
                f"the layer knows a dataset of {len(self.sample_sq)} samples and was told of one of"
                f" {samples.size}; give it its estimator again, as in layer.sketch(layer.estimator)"
            )
        return self.sample_sq

    def observe(self, length: int, samples: Samples | None, y: Tensor) -> None:
        """Learn from Y (n × q) of ``length`` positions; called in backward where the scores are
        predicted.
        """
        if "position_sq" in self._buffers:  # it may have been unsketched since
            self.position_sq = updated(self.position_sq, self._learned, y, length)
            self._learned = True
        if samples is not None and "sample_sq" in self._buffers:
            rows = row_sq(y).float()
            counts = counted(y.shape[0], length, rows)
            self.sample_sq = learn_samples(
                self.sample_sq, samples.index, *(t.reshape(-1, length) for t in (rows, counts))
            )

    def forget_scores(self) -> None:
        for name in ("position_sq", "sample_sq"):
            self._buffers.pop(name, None)
            self._non_persistent_buffers_set.discard(name)
        self.__dict__.pop("_learned", None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, estimator={self.estimator}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._handle, self._numbered = number(self.estimator)  # they differ between processes

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (
            blank,
            (self.plain,),
            self.__dict__,
        )  # the class itself may have been made here: name what it is made of


class SketchedLinear(Sketched, nn.Linear):
    """``nn.Linear`` whose weight gradient (q × p) comes from ``estimator``: one seed per call from
    torch's default generator. Output, input gradient and bias gradient are the plain layer's.

    Made of ``in_features`` p, ``out_features`` q and the options of ``nn.Linear``, or by
    ``sketch_linears`` from the layers of a model. In eval mode, without gradients or with a frozen
    weight it is the plain layer. Raises TypeError for what is no Estimator, ValueError for one that
    was told of Y, which a layer cannot know.

    >>> from sketchvar.estimators import StochasticRounding
    >>> layer = SketchedLinear(8, 2, StochasticRounding(bits=2))
    >>> layer(torch.ones(5, 8)).sum().backward()
    >>> layer.weight.grad.shape
    torch.Size([2, 8])
    """

    plain = nn.Linear

    def __init__(
        self, in_features: int, out_features: int, estimator: Estimator, **options: Any
    ) -> None:
        super().__init__(in_features, out_features, **options)
        self.sketch(estimator)

    def forward(self, input: Tensor) -> Tensor:
        return self.estimated(LinearForm(), input)


class SketchedConv1D(Sketched):
    """Hugging Face's ``Conv1D`` with a sketched weight gradient; only ever made by
    ``sketched_class``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.estimated(Conv1DForm(), x)


class SketchedConv2d(Sketched, nn.Conv2d):
    """``nn.Conv2d`` without groups, whose weight gradient comes from ``estimator``: X has a row for
    each patch, of channels × kernel height × kernel width features.

    ``sizes`` and ``options`` are those of ``nn.Conv2d``. Else it is as ``SketchedLinear``, and
    raises the same.
    """

    plain = nn.Conv2d

    def __init__(self, *sizes: Any, estimator: Estimator, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.sketch(estimator)

    def forward(self, input: Tensor) -> Tensor:
        form, x = conv2d_form(self, input)
        return self.estimated(form, x)


@cache
def sketched_class(plain: type[nn.Module]) -> type[Sketched]:
    """The sketched class for a plain layer's class: one that runs its base's own forward (see
    ``base_of``).
    """
    for known in (SketchedLinear, SketchedConv2d):
        if plain is known.plain:
            return known
    base = base_of(plain)
    if base is None:
        raise TypeError(
            f"no sketched layer for {plain.__name__}; nn.Linear, nn.Conv2d and Conv1D have one"
        )
    bases: tuple[type, ...] = (SketchedConv1D, plain)
    if base in (nn.Linear, nn.Conv2d):
        bases = (SketchedLinear if base is nn.Linear else SketchedConv2d, plain)
    return type(
        "Sketched" + plain.__name__, bases, {"plain": plain, "__doc__": SketchedLinear.__doc__}
    )


def base_of(plain: type[nn.Module]) -> type[nn.Module] | None:
    """Which of nn.Linear, nn.Conv2d and Hugging Face's Conv1D this class is, by inheriting its
    forward; else None.
    """
    library = sys.modules.get(
        "transformers.pytorch_utils"
    )  # nobody has a Conv1D who has not imported it
    bases = (nn.Linear, nn.Conv2d) + ((library.Conv1D,) if library else ())
    for base in bases:
        if issubclass(plain, base) and plain.forward is base.forward:
            return base
    return None


def blank(plain: type[nn.Module]) -> Sketched:
    """An uninitialised sketched layer, for pickle and deepcopy to fill."""
    kind = sketched_class(plain)  # type: ignore[arg-type]
    return kind.__new__(kind)
