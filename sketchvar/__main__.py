"""python -m sketchvar ...: the command line (installed as ``sketchvar``)."""

import sys

from sketchvar.analysis.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
