"""Runs, reports and the command line around the notebooks."""

from handclip_lib.runs.run import Run, start

__all__ = ["Run", "start"]
