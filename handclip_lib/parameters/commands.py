"""Parameters as text: the command that runs a notebook with them, and the lines of its parameters cell."""

import json
import shlex
from typing import Any, get_origin

from handclip_lib.parameters.parts import Parameters


def changed(config: Parameters, since: Parameters | None = None) -> dict[str, Any]:
    """The values that differ, by name.

    Args:
        config: The parameters.
        since: What they are compared with: parameters of the same notebook, or by default its defaults.
    """
    before = type(config).model_construct() if since is None else since
    return {name: value for name, value in config.model_dump().items() if value != getattr(before, name)}


def papermill_command(config: Parameters) -> str:
    """How plain papermill runs the notebook with these parameters, from the project's folder."""
    return shlex.join(["papermill", f"notebooks/{config.notebook}.ipynb", "out.ipynb", *_words(config)])


def run_command(config: Parameters) -> str:
    """How `handclip run` does."""
    return shlex.join(["handclip", "run", config.notebook[:2], *_words(config)])


def parameter_lines(config: Parameters, since: Parameters) -> str:
    """What to write at the end of the parameters cell of a notebook whose cell gave `since`."""
    fields = type(config).model_fields
    lines = [
        f"{name}: {type(value).__name__} = {_literal(value)}  # {fields[name].description}"
        for name, value in changed(config, since).items()
    ]
    return "\n".join(lines)


def said(config: Parameters) -> str:
    """One sentence: which parameters are not at their defaults."""
    values = ", ".join(f"{name} = {_literal(value)}" for name, value in changed(config).items())
    return f"Parameters that differ from the defaults: {values}." if values else "All parameters are at their defaults."


def _words(config: Parameters) -> list[str]:
    """Free text is given raw: papermill would read 007 as a number."""
    fields = type(config).model_fields
    return [
        word
        for name, value in changed(config).items()
        for word in ("-r" if isinstance(value, str) and get_origin(fields[name].annotation) is None else "-p",
                     name, str(value))
    ]  # fmt: skip


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
