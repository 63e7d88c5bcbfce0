"""The probe inside other people's training loops, Hugging Face's Trainer and Lightning's: the plain
loop's numbers.
"""

import importlib
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.options import check
from sketchvar.analysis.probe.units import not_padding

OPTIONS = {"estimators": ["uniform-rows"], "rates": [0.5]}
NUMBERS = [
    "step",
    "variance",
    "minibatch_row",
    "minibatch_example",
    "ratio",
    "grad_sq",
    "examples",
    "rows",
    "metric_variance",
    "metric_minibatch",
]


def by_hand(model, losses, accumulated, **options):
    """The rows of a plain loop over the losses of micro-batches, each a function of the model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    with Probe(model, metric=optimizer, **OPTIONS, **options) as probe:
        for step in range(0, len(losses), accumulated):
            for loss in losses[step : step + accumulated]:
                loss(model).backward()
            optimizer.step()
            optimizer.zero_grad()
            probe.step()
    return probe.rows()


def assert_equal(rows, expected):
    assert len(rows) == len(expected) > 0 and list(rows["layer"]) == list(expected["layer"])
    found, wanted = (torch.tensor(table[NUMBERS].to_numpy(float)) for table in (rows, expected))
    assert rows["metric_ratio"].notna().any()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"rate": 0.1}, TypeError, "no option 'rate'; did you mean rates?"),
        ({"scaler": None}, TypeError, "no option 'scaler'"),
        ({"estimators": ["uniform-row"], "rates": [0.1]}, ValueError, "uniform-row"),
        ({"rates": [0.1]}, ValueError, "needs estimators="),
        ({"every": 0}, ValueError, "every must be 1 or more"),
        ({"by_example": 3}, TypeError, "by_example is True or False"),
        ({"metric": "variance"}, TypeError, "metric= is the optimizer.*'variance'"),
    ],
)
@pytest.mark.parametrize("kind", ["trainer", "lightning"])
def test_a_callback_checks_its_options_when_it_is_made(kind, given, error, match):
    """Not hours later, when training begins."""
    module = "transformers" if kind == "trainer" else "lightning.pytorch"
    pytest.importorskip(module, reason=f"{module} is not installed")
    callback = importlib.import_module(f"sketchvar.analysis.probe.{kind}").ProbeCallback
    with pytest.raises(error, match=match):
        callback(**given)


def test_a_callback_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "0000.parquet").touch()
    given = OPTIONS | {"out": tmp_path}
    with pytest.raises(ValueError, match=str(tmp_path)):
        check(given)
    check(given | {"resume": True})
    check(OPTIONS | {"out": tmp_path / "new"})


@pytest.mark.parametrize("accumulated", [1, 2])
def test_hugging_face_trainer(tmp_path, accumulated):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip(
        "accelerate", reason="accelerate is not installed, and transformers' Trainer needs it"
    )
    from sketchvar.analysis.probe.trainer import ProbeCallback

    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
    )

    def model():
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config)

    torch.manual_seed(1)
    tokens, lengths = torch.randint(40, (24, 9)), torch.randint(3, 10, (24, 1))
    mask = torch.arange(9) < lengths
    labels = torch.where(mask, tokens, -100).index_fill(
        1, torch.tensor([0]), -100
    )  # nothing predicts the first
    data = {"input_ids": tokens, "attention_mask": mask.long(), "labels": labels}
    callback = ProbeCallback(every=2, examples=not_padding, metric="progress", **OPTIONS)
    trainer = transformers.Trainer(
        model(),
        transformers.TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_train_epochs=1,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            max_grad_norm=0,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            gradient_accumulation_steps=accumulated,
            train_sampling_strategy="sequential",
            save_strategy="no",
        ),
        train_dataset=[{k: v[i] for k, v in data.items()} for i in range(24)],
        callbacks=[callback],
    )
    trainer.train()
    assert trainer.state.global_step == callback.probe.number == 6 // accumulated
    assert not any("forward" in vars(m) for m in trainer.model.modules())
    assert callback.probe.coverage()["measured"].all()

    def loss(i):
        size = 4 * accumulated
        items = (labels[i // size * size :][:size] != -100).sum()
        batch = {k: v[i : i + 4] for k, v in data.items()}
        return lambda m: m(**batch, num_items_in_batch=items).loss

    losses = [loss(i) for i in range(0, 24, 4)]
    assert_equal(
        callback.probe.rows(), by_hand(model(), losses, accumulated, every=2, examples=not_padding)
    )


@pytest.mark.parametrize("accumulated", [1, 2])
def test_lightning_trainer(tmp_path, accumulated):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from sketchvar.analysis.probe.lightning import ProbeCallback

    class Regression(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

        def training_step(self, batch, index):
            rows, target, _ = batch  # does not call the module itself
            return F.mse_loss(self.net(rows).squeeze(1), target)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0)

    torch.manual_seed(1)
    rows, targets, which = (
        torch.randn(24, 3),
        torch.randn(24),
        torch.arange(24) // 2,
    )  # two rows are an example
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(rows, targets, which), batch_size=6
    )
    callback = ProbeCallback(every=2, examples=lambda batch: batch[2], metric="progress", **OPTIONS)
    model = Regression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data loaders
        trainer = lightning.Trainer(
            max_epochs=2,
            accumulate_grad_batches=accumulated,
            accelerator="cpu",
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, loader)
    assert callback.probe.number == trainer.global_step == 8 // accumulated
    assert not any("forward" in vars(m) for m in model.modules())
    assert set(callback.probe.rows()["examples"]) == {3 * accumulated}

    def loss(i):
        return lambda m: (
            F.mse_loss(m.net(rows[i : i + 6]).squeeze(1), targets[i : i + 6]) / accumulated
        )

    losses = [loss(i) for i in range(0, 24, 6)] * 2
    assert_equal(
        callback.probe.rows(),
        by_hand(Regression(), losses, accumulated, every=2, examples=torch.arange(6) // 2),
    )
