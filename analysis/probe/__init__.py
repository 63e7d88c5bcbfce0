"""Per-layer statistics of an unmodified model while it trains; start with probe.py."""

from analysis.probe.layer import Layer
from analysis.probe.probe import Probe
from analysis.probe.units import not_padding

__all__ = ["Layer", "Probe", "not_padding"]
