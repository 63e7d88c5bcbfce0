from .probe import Layer, Probe
from .units import count_labels, not_padding

__all__ = [
    "Layer",
    "Probe",
    "count_labels",
    "not_padding",
]
