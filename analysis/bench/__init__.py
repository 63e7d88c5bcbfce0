"""Bench: what things cost in time and memory, as ratios inside one process."""
