"""Parameters out of a notebook's cells, a file or typed text, every fault refused at once; and back, as text."""

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.parts import Parameters, nearest

P = TypeVar("P", bound=BaseModel)
Values = Parameters | Mapping[str, Any]
"""Checked parameters, or those of a record."""
INJECTED = "# Parameters"
"""What papermill's own cell begins with."""
PATHS = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
"""What papermill's --inject-paths adds."""
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""As YAML has it, in small letters, in capitals or with one capital."""
SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip
"""What has names of its own."""


def resolve(model: type[P], namespace: Mapping[str, Any]) -> P:
    """Take a notebook's parameters out of its namespace, convert them, and refuse every fault at once.

    Papermill itself only warns of an unknown parameter and computes with the default, and leaves `true` and, in a
    file, `1e-3` as text; here the first stops the run and the others become what the parameter wants.

    In a notebook, what counts is the newest run of its parameters cell and of the cell papermill adds below it: every
    name they assign is held to the model, and a value that only an older edition of the cell gave is the default again.

    Args:
        namespace: The notebook's `globals()`, or a plain mapping of names to values.

    Raises:
        ConfigError: All faults, one line each: name and value, what is wrong, what to do.
    """
    held, outdated = _held(set(model.model_fields), namespace)
    unknown = sorted(held - set(model.model_fields), key=str)
    faults = [f"{name}: no such parameter; {nearest(str(name), model.model_fields)}" for name in unknown]
    values: dict[str, Any] = {}
    for name in model.model_fields:
        if name in namespace and name not in outdated:
            values[name], fault = _convert(model, name, namespace[name])
            faults += [fault] if fault else []
    try:
        config = model(**values)
        faults += getattr(config, "faults", list)()
    except ValidationError as error:
        known = {fault.split("=", 1)[0] for fault in faults}
        faults += [_refused(model, e) for e in error.errors() if str(e["loc"][0]) not in known]
    if faults:
        raise refusal(faults)
    return config


def refusal(faults: Sequence[str], error: ConfigError | None = None) -> ConfigError:
    """One refusal of all faults: those that `resolve` raised, and these."""
    lines = [*(line.strip() for line in str(error or "").splitlines()[1:]), *faults]
    count = "1 parameter is" if len(lines) == 1 else f"{len(lines)} parameters are"
    return ConfigError(f"{count} wrong:\n" + "\n".join(f"  {line}" for line in lines))


def as_papermill(value: str) -> Any:
    """What papermill makes of a value typed after `-p`: a truth value, None, a number or text."""
    if value in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[value]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _held(fields: set[str], namespace: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Names that are held to the model, and parameters whose value is of an older edition of the parameters cell.

    A kernel knows no tags, so the parameters cell is told by what it assigns: the newest with at least half as many
    parameters as any. Where there is none, as in a plain script, only what looks like a misspelt parameter is held.
    """
    if "__name__" not in namespace:
        return set(namespace), set()
    history = namespace.get("In")
    sources = [str(source) for source in history] if isinstance(history, list) else []
    cells = [_assigned(source) for source in sources]
    added = [source.lstrip().startswith(INJECTED) for source in sources]
    counts = [len(names & fields) for names in cells]
    own = [n for n, count in enumerate(counts) if count and not added[n]] or [n for n, c in enumerate(counts) if c]
    if not own:
        literal = bool | int | float | str | list | dict | None
        plain = (name for name, value in namespace.items() if name not in fields and isinstance(value, literal))
        return {name for name in plain if get_close_matches(name, fields, 1, 0.7)}, set()
    newest = max(n for n in own if 2 * counts[n] >= max(counts[m] for m in own))
    injected = max((n for n in range(newest, len(cells)) if added[n]), default=newest)
    # a cell half of whose parameters the newest gives again was an edition of it; one of other parameters still counts
    older = [cells[n] for n in range(newest) if added[n] or 2 * len(cells[n] & cells[newest] & fields) >= counts[n]]
    outdated = set[str]().union(*older) & fields
    return (cells[newest] | cells[injected]) - PATHS, outdated.difference(*cells[newest:])


def _assigned(source: str) -> set[str]:
    """Names that a cell assigns, however it does; not what it imports or defines."""
    try:
        waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return set()
    names = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "run_cell_magic":  # what %%time becomes
            names = names.union(*(_assigned(str(getattr(cell, "value", ""))) for cell in node.args[-1:]))
        if not isinstance(node, SCOPES):
            waiting += ast.iter_child_nodes(node)
    return names


def _convert(model: type[BaseModel], name: str, value: Any) -> tuple[Any, str | None]:
    """Convert what papermill and YAML make of typed text; return the value and a fault or None."""
    wanted = model.model_fields[name].annotation
    given = f"{name}={value!r}"
    if value is None:
        return value, f"{given}: no parameter is empty; leave it out for its default"
    if isinstance(value, list | dict | tuple):
        return value, f"{given}: one value is wanted; several are a sweep: handclip sweep"
    is_text = wanted is str or str in get_args(wanted)
    if is_text and isinstance(value, PurePath):  # of who writes one into the parameters cell
        return str(value), None
    if is_text and not isinstance(value, str):
        return value, (
            f"{given}: text is wanted, and papermill reads what looks like a number or a truth value as one; "
            f"give it raw: -r {name} TEXT (so 007 stays 007), or in quotes in a file or a cell"
        )
    if wanted is bool and isinstance(value, str) and value in (value.lower(), value.capitalize(), value.upper()):
        value = TRUTH.get(value.lower(), value)
    if wanted is bool and not isinstance(value, bool):
        return value, f"{given}: a truth value is wanted: true or false"
    if wanted in (int, float) and isinstance(value, bool):
        return value, f"{given}: a number is wanted"
    if wanted in (int, float) and isinstance(value, str):
        value = as_papermill(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            kind = "a whole number" if wanted is int else "a number"
            return value, f"{given}: {kind} is wanted, such as {model.model_fields[name].default!r}"
    if wanted is int and isinstance(value, float) and value.is_integer():  # 1e2, and what a panel's control holds
        value = int(value)
    return value, None


def _refused(model: type[BaseModel], error: Any) -> str:
    """One line for one of pydantic's findings."""
    name = str(error["loc"][0])
    given = f"{name}={error['input']!r}"
    if error["type"] == "literal_error":
        choices = [str(choice) for choice in model.model_fields[name].annotation.__args__]  # type: ignore[union-attr]
        near = get_close_matches(str(error["input"]), choices, 1)
        return f"{given}: {f'did you mean {near[0]}? ' if near else ''}choose from {', '.join(choices)}"
    if error["type"] == "unknown":  # its message has the choices
        return f"{given}: {error['msg']}"
    return f"{given}: {error['msg'][0].lower()}{error['msg'][1:]} ({model.model_fields[name].description})"


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
