"""ProbeCallback: the probe in a Lightning Trainer."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sketchvar.analysis.probe.options import check, continued
from sketchvar.analysis.probe.probe import Probe
from sketchvar.analysis.probe.ranks import world


class ProbeCallback(Callback):
    """Measures while ``Trainer(callbacks=[ProbeCallback(estimators=..., rates=..., every=10)])``
    trains.

    Sends its numbers (see ``Probe``'s ``log``) to the trainer's loggers; not with ``log=None``.

    Takes what ``Probe`` takes, but for the model, scaler, group and first step, which the trainer
    knows, and raises at once what ``Probe`` would; functions given as ``examples`` and ``weights``
    are called with the batch, and ``metric="progress"`` or ``"update"`` is that of the trainer's
    first optimizer. ``probe`` is the Probe from the beginning of training on:
    ``callback.probe.rows()``, ``callback.probe.coverage()``.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("log", self.send)
        check(options)
        for name in ("examples", "weights"):
            if callable(given := options.get(name)):
                options[name] = self.of_batch(given)
        self.options = options
        self.probe: Probe | None = None
        self.batch: Any = None
        self.updates = 0
        self.trainer: Trainer | None = None

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Give the numbers of a ``step`` to all loggers of the trainer."""
        assert self.trainer is not None
        for logger in self.trainer.loggers:
            logger.log_metrics(numbers, step)

    def of_batch(self, given: Callable[[Any], Any]) -> Callable[..., Any]:
        """What is ``given`` as a function of the batch, for any arguments of the model."""
        return lambda *args, **kwargs: given(self.batch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.updates = trainer, trainer.global_step
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.probe = Probe(
            pl_module,
            scaler=scaler,
            group=world(),
            **continued(self.options, self.probe, self.updates, trainer.optimizers[0]),
        ).__enter__()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert self.probe is not None
        self.batch = batch
        self.probe.expect()  # a training step need not call the module itself

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.probe is not None
        if trainer.global_step > self.updates:  # else its gradients are accumulated
            self.probe.step()
        self.updates = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.probe is not None
        self.probe.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self.probe is not None:
            self.probe.close()
