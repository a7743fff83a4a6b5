"""Parameters as text: the command that runs a notebook with them, and the lines of its parameters cell."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, get_origin

from handclip_lib.parameters.parts import Parameters

Values = Parameters | Mapping[str, Any]
"""Checked parameters, or those of a record."""


def changed(values: Values, since: Values | None = None) -> dict[str, Any]:
    """The values that differ from others, or those of checked parameters from their defaults; what is new is none."""
    if since is None and isinstance(values, Parameters):
        since = defaults(type(values))
    ours, before = (given.model_dump() if isinstance(given, Parameters) else given or {} for given in (values, since))
    return {name: value for name, value in ours.items() if before.get(name, value) != value}


def defaults(model: type[Parameters]) -> dict[str, Any]:
    """Default of each parameter."""
    return {name: field.default for name, field in model.model_fields.items()}


def papermill_command(config: Parameters) -> str:
    """How plain papermill runs the notebook with these parameters, from the project's folder."""
    return shlex.join(["papermill", f"notebooks/{config.notebook}.ipynb", "out.ipynb", *_words(config)])


def run_command(config: Parameters) -> str:
    """How `handclip run` does."""
    return shlex.join(["handclip", "run", config.notebook[:2], *_words(config)])


def parameter_lines(config: Parameters, since: Parameters) -> str:
    """What to write at the end of the parameters cell of a notebook whose cell gave `since`."""
    return "\n".join(_line(type(config), name, value) for name, value in changed(config, since).items())


def parameters_cell(model: type[Parameters]) -> str:
    """The parameters cell of a notebook: every parameter at its default, described for papermill's help."""
    return "\n".join(_line(model, name, field.default) for name, field in model.model_fields.items())


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


def _line(model: type[Parameters], name: str, value: Any) -> str:
    return f"{name}: {type(value).__name__} = {_literal(value)}  # {model.model_fields[name].description}"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
