"""Where the files of published data sets are, and what is skipped without them."""

import os
from pathlib import Path

import pytest

DATASETS = Path(os.environ.get("SKETCHVAR_DATASETS", "absent"))


needs_cifar = pytest.mark.skipif(
    not (DATASETS / "vision").is_dir(), reason="SKETCHVAR_DATASETS holds no vision/"
)
