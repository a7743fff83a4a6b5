"""HandCLIP's library: everything the notebooks call."""

import os

from handclip_lib.version import __version__

__all__ = ["__version__"]

# before torch and numpy read them: a thread that waits for its share of the next product spins for some 20 µs, then
# sleeps. By default it spins for milliseconds, and takes the core from whoever works: five times the CPU seconds where
# other work goes on; where it sleeps at once, a small model trains at two thirds of the speed on a quiet machine
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # 2^16 cycles
