from .draws import Audit, audit
from .part import Part, judge
from .run import Auditing, load

__all__ = [
    "Audit",
    "Auditing",
    "Part",
    "audit",
    "judge",
    "load",
]
