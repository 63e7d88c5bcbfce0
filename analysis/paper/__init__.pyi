from . import averaging, memory, probed, throughput, trained, variance

__all__ = ["averaging", "memory", "probed", "throughput", "trained", "variance"]
