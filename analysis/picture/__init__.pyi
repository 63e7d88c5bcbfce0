from .contract import Facet, by_run, picture, together
from .fold import draw_blocks, is_deep, shorten
from .series import Series, draw_series, list_series, merge_series, take

__all__ = [
    "Facet",
    "Series",
    "by_run",
    "draw_blocks",
    "draw_series",
    "is_deep",
    "list_series",
    "merge_series",
    "picture",
    "shorten",
    "take",
    "together",
]
