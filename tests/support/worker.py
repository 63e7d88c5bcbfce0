"""Work for a process that is started for it: without torch, which takes long to import."""

import os
import signal
import time


def look(item):
    """Tell which GPU is seen here; be killed where the item says so, each time or once."""
    kind, path = item
    if kind == "killed" or (kind == "once" and not path.exists()):
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")
