"""Probe: per-layer statistics of an unmodified model while it trains."""

import sys
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from torch import nn

from sketchvar.analysis import noise
from sketchvar.analysis.columns import document
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.noise.parameters import Gradient
from sketchvar.analysis.noise.table import COLUMNS, Batch
from sketchvar.analysis.probe.agreement import Disagreement
from sketchvar.analysis.probe.book import Book
from sketchvar.analysis.probe.frozen import frozen
from sketchvar.analysis.probe.log import Send
from sketchvar.analysis.probe.observer import Observer
from sketchvar.analysis.probe.options import Options
from sketchvar.analysis.probe.patterns import check_patterns
from sketchvar.analysis.probe.ranks import Ranks, unwrapped
from sketchvar.analysis.probe.reader import Reader
from sketchvar.analysis.probe.schedule import Budget, Every, Schedule, clock_of
from sketchvar.analysis.probe.units import Examples, Weights
from sketchvar.analysis.probe.voice import FORGOTTEN, OUTSIDE, Voice
from sketchvar.analysis.probe.watch import Watch
from sketchvar.analysis.probe.weighing import check_weigh, needed_statistics
from sketchvar.estimators.choice import Estimators, Rates, as_list


class Probe:
    """Measures the weight gradients of ``model`` in the training loop inside a ``with`` block.

        with Probe(model, estimators=["countsketch", "uniform-rows"], rates=[0.5, 0.1], every=10) as
        probe:
            for batch in loader:
                loss(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                probe.step()
        probe.rows()  # a DataFrame; probe.coverage() says what was not measured, and why

    Or one step, without a table: ``with Probe(model) as probe: loss(model, batch).backward()``,
    then ``probe.read()``.

    The model is unmodified: its loss and gradients are its own, but for the order in which a long
    sequence's weight gradient is summed (``FusedLinear``), which rounds differently; it can be
    saved, copied and pickled. Between measured steps nothing is attached. A Probe never stops
    training: what it cannot read is a line of ``coverage``, with the reason, and a warning.

    The gradient of a step is what has been added to ``.grad`` since it was last cleared, by all
    backward passes before ``step``: with accumulation their sum, with LBFGS or SAM, which clear and
    evaluate again, the last evaluation. A pass that an error ends does not count. Where something
    else than the layer's product adds to ``.grad`` or changes it (a penalty, a hook on the weight,
    another use of it), the product's own part is measured, and ``coverage`` says so.

    Examples are taken to be independent. BatchNorm in training mode ties them (``coverage`` says
    so; a layer right before one is measured to first order), and so do losses that compare
    examples, and examples that repeat, which no probe can see: ``noise.redraw`` has the truth.

    ``every``: measure steps 0, every, 2·every, ...; or how often from each step on, as in
    ``{0: 1, 100: 10, 1000: 100}``, dense early and sparse later. Or ``overhead=0.01``: as often as
    leaves training 1 % slower in the long run, by what measuring costs in this run (``Budget``).
    ``first`` is the number of the first step, where training goes on.
    ``layers``: names or patterns of the layers to measure, as in ``"encoder.*.query"``.
    ``estimators`` and ``rates``: spellings or ``Estimator`` objects, see ``choices``.
    ``examples``: which rows are one example. The dimension of a layer's input that counts examples;
    or, for packed sequences, an integer tensor with the example of every row, negative for padding;
    or a function of the model's arguments that gives one. Layers whose rows are laid out otherwise
    are measured where that is plain (flattened, or one row for each example), else reported.
    ``by_example=False`` leaves the per-example norms out (minibatch variance by row only).
    ``scaler``: the GradScaler, where the loss is scaled; what is measured is divided by its scale.
    ``group``: the ranks over which gradients are averaged; known by itself where ``model`` is
    wrapped by DDP or FSDP2.
    ``step``, ``read`` and ``measure`` are then called by all ranks alike, and raise or warn on all
    of them where they are not. Closed forms that need X and Y are computed by one rank for each
    layer, which X and Y go to; ``weights`` are taken to be of a mean over the tokens of all ranks.
    ``pairs`` names layers whose X and Y stay in their ``Moments``, for draws; all others keep row
    norms only, unless an estimator's closed form needs X and Y (rounding, centring): then those of
    all layers stay until ``step``.
    ``population``: how many examples there are to draw batches from, without replacement; no end
    of them unless given. ``exact_errors``: standard errors take one product more, of ⟨g_s, G⟩,
    where norms alone make do with ‖g_s‖², which is too little for α, the signal and
    feature projections, and for the ratio of layers where a row is an example; for gradients of one
    backward pass.
    ``weights``: where the loss is a mean over tokens and examples have different numbers of them,
    those numbers, or a function of the model's arguments that gives them, as ``count_labels`` is:
    the minibatch variance by example then takes their form (``noise.by_example``), with one product
    more.
    ``metric``: the optimizer, for numbers in the metric of the linear progress of its step, P =
    1/(√v̂ + ε) for Adam: ``metric_variance``, ``metric_minibatch`` and ``metric_ratio``. Or a
    function of a parameter that gives weights in its shape: ``noise.weigh_update(optimizer)`` is
    P². It is asked before the optimizer's step; what has no state yet is NaN, and ``coverage``
    says so. Takes a product or two more for each layer.
    ``parameters``: measure the minibatch noise of every trained parameter, of biases, norms,
    embeddings and convolutions too: ``noise``, by example. False reads products alone.
    ``out``: a folder of this run alone; every measured step adds a Parquet file with its rows, and
    ``pandas.read_parquet`` of the folder is the table. Its name is the ``run`` of the rows unless
    that is given. With ``resume`` the folder's run goes on, from step ``first``. ``writer``: a
    TensorBoard writer, or anything with its ``add_scalar``. The first rank writes.
    ``log``: a function of numbers by name and of the step, as ``wandb.log``,
    ``mlflow.log_metrics``, ``accelerator.log`` and Fabric's ``log_dict`` are: a dozen numbers of
    every measured step, for each estimator the ratio of all layers together, of the median and of
    the worst layer, and without any, the noise scale (``docs/loggers.md``). ``log_layers``: names
    or patterns of layers whose own numbers are sent too. Where it raises, training goes on.

    Under torch.compile a measured step runs eagerly and all others compiled, whichever came first.
    Raises ValueError for a model without a weight that can be measured, unknown names, rates
    outside (0, 1], a folder in use; TypeError for what is no estimator.
    """

    def __init__(
        self,
        model: nn.Module,
        by_example: bool = True,
        pairs: Collection[str] = (),
        *,
        estimators: Estimators = (),
        rates: Rates = (),
        every: Every = 1,
        first: int = 0,
        examples: Examples = 0,
        scaler: Any = None,
        group: Any = None,
        run: str = "",
        out: Path | str | None = None,
        resume: bool = False,
        writer: Any = None,
        population: int | None = None,
        exact_errors: bool = False,
        weights: Weights | None = None,
        metric: Any = None,
        overhead: float | None = None,
        layers: str | Collection[str] = "*",
        log: Send | None = None,
        log_layers: str | Collection[str] = (),
        parameters: bool = True,
    ) -> None:
        self.options = o = Options(
            by_example, pairs, estimators, rates, every, first, examples, scaler, group, run, out,
            resume, writer, population, exact_errors, weights, metric, overhead, layers, log,
            log_layers, parameters,
        )  # fmt: skip
        self.ranks = Ranks.of(model, group)
        self.given, self.model, self.choices = model, unwrapped(model), o.choices
        exact = exact_errors or weights is not None
        whole = any(choice.needs_pair for choice in self.choices)
        several = self.ranks.size > 1
        self.observer = Observer(
            self.model, by_example, pairs, examples, scaler, whole, several, exact, weights,
            o.weigh, needed_statistics(o.choices), as_list(o.layers), parameters,
        )  # fmt: skip
        check_weigh(o.weigh, [watch.weight for watch in self.watched.values()])
        if unknown := set(pairs) - set(self.watched):
            raise ValueError(
                f"no trained layer called {min(unknown)!r}; known are {', '.join(self.watched)}"
            )
        self.number, device, self.voice = first, self.observer.device, Voice()
        self.book = Book(o, self.model, device, self.ranks.first, self.voice.say)
        self.schedule: Schedule = o.periods
        if o.overhead is not None:
            agree = partial(self.ranks.greatest, device=device)
            self.schedule = Budget(o.overhead, first, clock_of(device), agree)
        check_patterns("log_layers", as_list(o.log_layers), self.watched)
        self.reader = Reader(self.observer, self.ranks, self.choices, o.layers)
        self.entered = self.attached = False
        self.measured = 0  # steps
        self.averaged = -1  # the step that was last measured on batches of its own

    def __repr__(self) -> str:
        asked = f"{len(self.watched)} layers, {len(self.choices)} estimators at their rates"
        where = "inside" if self.entered else "outside"
        name = type(self.model).__name__
        return f"Probe({name}: {asked}; at step {self.number}, {where} its block)"

    @property
    def scale(self) -> noise.NoiseScale:
        """The noise scale of the model and of each kind of its parameters, by moving averages."""
        return self.book.scale

    @property
    def watched(self) -> dict[str, Watch]:
        """The weights that are trained, by the names of their layers."""
        return self.observer.watched

    def __enter__(self) -> "Probe":
        self.entered = True
        self.reader.begin()
        self.reader.agree(first=self.number, **self.options.asked, **self.options.measured)
        self._attend()
        return self

    def __del__(self) -> None:
        if getattr(self, "attached", False) and not sys.is_finalizing():
            warnings.warn(
                "a Probe was left attached, and is detached now; use it in a with block",
                stacklevel=2,
            )
            self.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self.attached and not self.observer.over:
            if (self.choices or self.book.log) and not self.measured:
                self.voice.say(FORGOTTEN)
            self.voice.explain(self.observer)  # it would be said after a step that never comes
        self.close()

    def close(self) -> None:
        """Leave the model as it was. The end of the block does it."""
        self._detach()
        self.entered = False

    def step(self) -> None:
        """The end of a training step, after its last backward pass and once per optimizer step: put
        what was measured into the table.

        Warns, once each, of layers that could not be read and of a variance that one example does
        not have.
        """
        if not self.entered:
            self.voice.say(OUTSIDE)
        self.voice.look_back(self.observer.places)
        if self.attached:
            self.observer.current()  # nothing may have been seen in this step
            try:
                self._take(self.read())
            except Disagreement as error:
                self.voice.say(f"the probe measures no more: {error}")
                self.close()
            except Exception as error:  # as of a full disk
                words = " ".join(str(error).split())
                self.voice.say(f"the probe could not read a step: {type(error).__name__}: {words}")
            self.observer.begin()
        if self.entered:  # else ranks disagree, or it is over: nobody asks the others
            self.schedule.end(self.number)
        self.number += 1
        if self.entered:
            self._attend()

    def measure(self, loss: noise.Loss, batches: Iterable[Any]) -> pd.DataFrame:
        """Measure batches beside the training, and put the means over them into the table, in place
        of what the training step itself would tell.

            if probe.attached:  # a step that is to be measured
                probe.measure(loss, itertools.islice(fresh, 4))

        ``loss(model, batch)`` is a scalar, as in ``noise.redraw``, before any scaling. The weights
        are not updated; gradients, buffers, generators and modes are what they were. Batches are
        fresh draws, of like size. ``ratio`` is one of means, and standard errors are over examples
        and batches: four to eight are worth their time. Returns the rows.

        On several processes each brings its part of as many batches. Raises ValueError without
        estimators or batches, and for a step that has been measured so; RuntimeError where a weight
        changes, Disagreement where ranks do not do the same.
        """
        if not self.choices:
            raise ValueError("measure() compares estimators: give estimators= and rates=")
        if self.averaged == self.number:
            raise ValueError(f"step {self.number} was measured already; call probe.step() first")
        self._detach()
        self.observer.attach()
        self.attached = True
        read, found, known = [], {}, []
        try:
            with frozen(self.model):
                for number, batch in enumerate(batches):
                    self.reader.agree(step=self.number, batch=number)
                    for parameter in self.model.parameters():
                        parameter.grad = None
                    value = loss(self.given, batch)
                    scaler = self.options.scaler
                    (value if scaler is None else scaler.scale(value)).backward()
                    self.observer.current()  # nothing may have been seen
                    found = self.read()
                    self.reader.count_not_finite()
                    read.append(self.reader.compare(found))
                    known.append(self.known)
                    self.observer.begin()
                self.reader.agree(step=self.number, batch="no more")
        finally:
            self._detach()
        if not read:
            raise ValueError("measure() was given no batches")
        self.measured += 1
        self.averaged = self.number
        self.book.note(self.number, known)
        return pd.DataFrame(self._tabulate(read, found), columns=COLUMNS)

    def expect(self, *args: Any, **kwargs: Any) -> None:
        """Say what the model would be called with, where nobody calls it itself: ``examples`` may
        depend on it.
        """
        self.observer.called(self.model, args, kwargs)

    def read(self) -> dict[str, Layer]:
        """Layer name -> what the last measured step told. The ones that cannot be read are
        explained by coverage(). Raises Disagreement where ranks do not do the same.
        """
        self.reader.agree(step=self.number)
        found = self.reader.read()
        self.voice.explain(self.observer, found)
        return found

    @property
    def gradients(self) -> dict[str, Gradient | str]:
        """What the last step that was read told of every parameter, or why it told nothing."""
        return self.reader.gradients

    @property
    def known(self) -> list[Gradient]:
        """Every parameter that the last step that was read told of."""
        return self.reader.known

    def noise(self) -> pd.DataFrame:
        """The minibatch noise of every trained parameter at the measured steps that ``step`` ended:
        all of ``noise.NOISE_COLUMNS``. Then, in each step, that of the sums over each kind of
        parameter, and over all, called ``noise.WHOLE``; ``scale`` has moving averages of them.

        ``run``, ``step``, ``parameter``; its ``kind`` and ``size``; ``examples``, ``batches``,
        ``population``; ``minibatch_example``, the variance of its gradient over minibatches;
        ``grad_sq`` = ‖G‖²; with standard errors, as those of ``rows``, and ``signal_stderr``.
        Empty where parameters are not read: by row.
        """
        return self.book.noises.rows()

    @document(COLUMNS)
    def rows(self) -> pd.DataFrame:
        """The table so far: a row per layer, measured step and choice of estimator and rate.

        The errors of one batch leave out an example at a time, and are a floor where tails are
        heavy. Those of ``variance`` and ``ratio`` need several batches (``measure``) where the
        closed form asks for more than norms summed by example (norm rows, rounding, centring,
        optimal rows), and where a weight was used several times. Each use draws for itself, so that
        their variances add; on several processes the form is that of one sketch of all rows.
        """
        return self.book.store.rows()

    def table(self, rate: float | None = None, step: int | None = None) -> pd.DataFrame:
        """The ratio of every layer (down) and estimator (across) at one rate and step, with bytes
        kept, noise scale and totals, as ``sketchvar figures`` prints it: see ``noise.widen``.
        """
        return noise.widen(self.rows(), rate, step)

    def plot(self, rate: float | None = None, step: int | None = None, **options: Any) -> Any:
        """Draw ``table`` at one ``rate`` and ``step`` (0.1 or the smallest rate and the last step,
        unless given): see ``plot.ratio_by_layer``, which takes ``rows`` and these ``options`` too.
        """
        from sketchvar.analysis.noise.figures import ratio_by_layer

        return ratio_by_layer(self.rows(), rate, step, **options)

    def coverage(self) -> pd.DataFrame:
        """A line per parameter: its name, module, share of the trained parameters, measured in the
        last measured step, the reason if not, the number of measured steps that were skipped
        because a gradient was not finite, and a note on what was measured where it takes one, as
        where it is no product's weight and only ``noise`` has it.
        """
        return self.reader.cover(self.book.equal)

    def _attend(self) -> None:
        """Be attached for the next step if it is to be measured, and only then."""
        if not self.schedule.is_due(self.number):
            self._detach()
        elif not self.attached:
            self.observer.attach()
            self.attached = True

    def _detach(self) -> None:
        if self.attached:
            self.observer.detach()
            self.attached = False

    def _take(self, found: dict[str, Layer]) -> None:
        """Put what a step told into the table."""
        self.measured += 1
        self.reader.count_not_finite()
        self.book.note(self.number, [self.known])
        if self.choices:
            self._tabulate([self.reader.compare(found)], found)
            self.observer.forget_pairs()
        else:
            self.book.tell(self.number, found.values())

    def _tabulate(
        self, batches: Sequence[Batch | None], found: Mapping[str, Layer]
    ) -> list[tuple[Any, ...]]:
        dtypes = [one.dtype for one in found.values()]
        return self.book.tabulate(self.number, batches, dtypes, self.coverage)
