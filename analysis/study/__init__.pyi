from .study import Study, layers_at, run

__all__ = [
    "Study",
    "layers_at",
    "run",
]
