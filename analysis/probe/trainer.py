"""ProbeCallback: the probe in a Hugging Face Trainer."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sketchvar.analysis.probe.options import check, continued
from sketchvar.analysis.probe.probe import Probe
from sketchvar.analysis.probe.ranks import world


class ProbeCallback(TrainerCallback):
    """Measures while ``Trainer(..., callbacks=[ProbeCallback(estimators=..., rates=...,
    every=10)])`` trains.

    Takes what ``Probe`` takes, but for the model, scaler, group and first step, which the trainer
    knows, and raises at once what ``Probe`` would; ``metric="progress"`` or ``"update"`` is that of
    the trainer's optimizer. ``probe`` is the Probe from the beginning of
    training on: ``callback.probe.rows()``, ``callback.probe.coverage()``.
    """

    def __init__(self, **options: Any) -> None:
        check(options)
        self.options = options
        self.probe: Probe | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.probe is not None:
            self.probe.close()  # training broke off
        model, scaler = kwargs["model"], getattr(kwargs["optimizer"], "scaler", None)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])  # Accelerate's
        self.probe = Probe(
            model,
            scaler=scaler,
            group=world(),
            **continued(self.options, self.probe, state.global_step, optimizer),
        ).__enter__()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.probe is not None
        self.probe.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.probe is not None
        self.probe.close()
