"""Shapes and dtypes in annotations are checked while the tests run (jaxtyping with beartype)."""

import torch
from jaxtyping import install_import_hook

hook = install_import_hook("estimators", "beartype.beartype")
torch.set_num_threads(1)  # matrices are small here, and the tests run beside each other
hook.__enter__()  # stays for the whole session: test modules import estimators after this file
