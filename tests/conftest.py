"""Shapes and dtypes in annotations are checked while the tests run (jaxtyping with beartype)."""

from jaxtyping import install_import_hook

hook = install_import_hook("estimators", "beartype.beartype")
hook.__enter__()  # stays for the whole session: test modules import estimators after this file
