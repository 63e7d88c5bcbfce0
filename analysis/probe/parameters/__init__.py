"""Every parameter of a model by example, beside its products; start with traced.py."""
