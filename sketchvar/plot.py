"""The public pictures (``sketchvar.analysis.plot``): rows in, Figure out."""

from sketchvar.analysis.plot import *  # noqa: F403
