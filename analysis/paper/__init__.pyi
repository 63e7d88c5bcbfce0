from . import figures, probed_figures, trained_figures, variance

__all__ = ["figures", "probed_figures", "trained_figures", "variance"]
