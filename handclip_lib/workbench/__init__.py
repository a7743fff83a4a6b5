"""Runs, reports and the command line around the notebooks."""

from handclip_lib.workbench.runs import Run, start

__all__ = ["Run", "start"]
