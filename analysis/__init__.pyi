from .noise.layer import Layer
from .probe.probe import Probe
from .study.study import Study, run

__all__ = [
    "Layer",
    "Probe",
    "Study",
    "run",
]
