"""The errors a user can mend. Each message names the value, the place and the remedy."""

from handclip_lib.terminal import visible


class HandClipError(ValueError):
    """Something the user can put right; shown without a traceback in notebooks and on the command line.

    A message names files and values of others, so its text never drives a terminal.
    """

    def __str__(self) -> str:
        return visible(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """What IPython (and so papermill) prints in place of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(HandClipError):
    """A parameter is unknown, of the wrong type, or out of bounds."""


class DataError(HandClipError):
    """A data set, an image or a split cannot be used as it is."""


class BackboneError(HandClipError):
    """CLIP weights are missing, damaged or of another shape."""


class OtherModelError(BackboneError):
    """Weights are sound, and those of a model that is not of CLIP's own shape."""


class EvaluationError(HandClipError):
    """The arrays handed to an evaluation cannot give a defensible number."""


class RunError(HandClipError):
    """A run cannot be found, claimed, used or reported."""


class WriteError(HandClipError):
    """A file or a folder cannot be written."""


class TrainingError(HandClipError):
    """A training cannot start, go on, or be resumed as it is."""


def reason_of(error: Exception) -> str:
    """The first line of what a library's error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
