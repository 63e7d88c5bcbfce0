from .probe import Layer, Probe
from .units import not_padding

__all__ = [
    "Layer",
    "Probe",
    "not_padding",
]
