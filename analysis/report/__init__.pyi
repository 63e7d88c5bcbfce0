from .page import report

__all__ = [
    "report",
]
