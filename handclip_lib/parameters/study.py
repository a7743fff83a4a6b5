"""`study.toml`: what a study is called, and the parameters that `handclip run` and `handclip sweep` begin with."""

import tomllib
from dataclasses import dataclass, field
from typing import Any

from handclip_lib.errors import ConfigError
from handclip_lib.files import read_regular
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import nearest
from handclip_lib.places import STUDY, project

KEYS: dict[str, tuple[type, str]] = {"name": (str, "text"), "parameters": (dict, "a table of names and values")}
MOST = 100_000  # characters


@dataclass(frozen=True)
class Study:
    """The content of a `study.toml`."""

    name: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


def read_study() -> Study | None:
    """The study this works in; None outside every study.

    Raises:
        ConfigError: All faults at once: its file cannot be read, or has a key or a parameter that there is not. Values
            are checked with those of the run.
    """
    here = project()
    if here is None or not (here / STUDY).is_file():
        return None
    file = here / STUDY
    try:
        found = tomllib.loads(read_regular(file, MOST))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    known = {name for model in NOTEBOOKS.values() for name in model.model_fields}
    faults = [
        f"{key}: " + ("write it below the line [parameters]" if key in known else f"no such key; {nearest(key, KEYS)}")
        for key in found
        if key not in KEYS
    ]
    for key, (kind, words) in KEYS.items():
        if not isinstance(found.get(key, kind()), kind):
            faults.append(f"{key}={found.pop(key)!r}: {words} is wanted")
    unknown = [name for name in found.get("parameters", {}) if name not in known]
    faults += [f"parameters: {name}: no notebook has such a parameter; {nearest(name, known)}" for name in unknown]
    if faults:
        raise ConfigError("\n  ".join([f"{file} is wrong:", *faults]))
    return Study(**found)


def study_parameters(notebook: str) -> dict[str, Any]:
    """What the study sets of the parameters of a notebook, such as "05_evaluation"; it may set others' too."""
    study = read_study()
    fields = NOTEBOOKS[notebook].model_fields
    return {name: value for name, value in study.parameters.items() if name in fields} if study else {}
