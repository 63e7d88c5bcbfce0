from .probe import Layer, Probe
from .rank_noise import RankNoise
from .units import count_labels, not_padding

__all__ = [
    "Layer",
    "Probe",
    "RankNoise",
    "count_labels",
    "not_padding",
]
