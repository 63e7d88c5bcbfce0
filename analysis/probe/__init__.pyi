from .probe import Probe
from .units import not_padding
from .watch import Layer

__all__ = [
    "Layer",
    "Probe",
    "not_padding",
]
