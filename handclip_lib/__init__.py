"""HandCLIP's library: everything the notebooks call."""

import os

from handclip_lib.version import __version__

__all__ = ["__version__"]

# before torch and numpy read them: a thread that waits for its share of the next product sleeps. By default it spins,
# and takes the core from whoever works: five times the CPU seconds where other work goes on, for the same numbers
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # the least it takes: 2^4 cycles
