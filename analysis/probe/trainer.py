"""ProbeCallback: the probe in a Hugging Face Trainer."""

from typing import Any

from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sketchvar.analysis.probe.options import check, continued
from sketchvar.analysis.probe.probe import Probe
from sketchvar.analysis.probe.ranks import world


class ProbeCallback(TrainerCallback):
    """Measures while ``Trainer(..., callbacks=[ProbeCallback(estimators=..., rates=...,
    every=10)])`` trains.

    Made with a ``trainer``, it sends its numbers (see ``Probe``'s ``log``) through that one's own
    logs, so that they are in its history and wherever ``report_to`` says:

        trainer.add_callback(ProbeCallback(trainer, estimators=["countsketch"], rates=[0.1]))

    Takes what ``Probe`` takes, but for the model, scaler, group and first step, which the trainer
    knows, and raises at once what ``Probe`` would; ``metric="progress"`` or ``"update"`` is that of
    the trainer's optimizer. ``probe`` is the Probe from the beginning of
    training on: ``callback.probe.rows()``, ``callback.probe.coverage()``.
    """

    def __init__(self, trainer: Trainer | None = None, **options: Any) -> None:
        if trainer is not None:
            options.setdefault("log", self.send)
        check(options)
        self.trainer = trainer
        self.options = options
        self.probe: Probe | None = None

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers as the trainer logs its loss; its own log of this step still comes."""
        assert self.trainer is not None
        due = self.trainer.control.should_log
        self.trainer.log(numbers)
        self.trainer.control.should_log = due

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
