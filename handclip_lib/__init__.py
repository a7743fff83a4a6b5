"""HandCLIP's library: everything the notebooks call."""

from handclip_lib.version import __version__

__all__ = ["__version__"]
