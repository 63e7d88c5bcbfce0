"""What gradient noise is made of: closed forms, redrawn minibatches, the noise scale
(``sketchvar.analysis.noise``).
"""

from sketchvar.analysis.noise import *  # noqa: F403
