"""The parameters of each notebook: name, type, bounds, help; and the guard that refuses all faults at once."""

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handclip_lib.errors import ConfigError

Dataset = Literal["drawn", "11k", "hd", "folder"]
Aspect = Literal["dorsal_r", "dorsal_l", "palmar_r", "palmar_l", "all"]
Protocol = Literal["auto", "standard", "hd", "proportional", "given"]
Fit = Literal["stretch", "crop", "pad"]
BackboneName = Literal[
    "tiny", "vitb16", "vitb32", "vitl14", "vitl14_336", "rn50", "rn101", "rn50x4", "rn50x16", "rn50x64"
]  # fmt: skip


class Parameters(BaseModel):
    """What every notebook asks: which photographs, which protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: ClassVar[str]

    dataset: Dataset = Field("drawn", description="drawn, 11k, hd or folder")
    data_root: str = Field("", description="folder of the photographs; unused for drawn hands")
    aspect: Aspect = Field("dorsal_r", description="dorsal_r, dorsal_l, palmar_r, palmar_l or all")
    protocol: Protocol = Field("auto", description="auto, standard, hd, proportional or given")
    draws: int = Field(10, ge=1, le=100, description="query/gallery draws")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of every draw")
    fit: Fit = Field("stretch", description="stretch, crop or pad a photograph to the square the model sees")
    drawn_subjects: int = Field(140, ge=4, le=5000, description="subjects to draw")
    drawn_images: int = Field(5, ge=1, le=100, description="photographs a drawn subject and aspect")

    def faults(self) -> list[str]:
        """Faults that lie in a combination of values, each with its remedy."""
        if self.dataset != "drawn" and not self.data_root:
            return [f"data_root='': dataset={self.dataset!r} needs the folder of its photographs: -p data_root FOLDER"]
        return []


class DataExploration(Parameters):
    """Parameters of notebook 01."""

    notebook: ClassVar[str] = "01_data_exploration"

    resolution: int = Field(224, ge=32, le=1024, description="side in pixels of the square the model sees")
    samples: int = Field(12, ge=2, le=60, description="photographs shown at once")


class Evaluation(Parameters):
    """Parameters of notebook 05."""

    notebook: ClassVar[str] = "05_evaluation"

    backbone: BackboneName = Field("tiny", description="tiny, or one of OpenAI's nine models by short name")
    weights: str = Field("", description="file of CLIP weights; empty for the published ones")
    download_root: str = Field("", description="folder that holds or receives OpenAI's files; empty for the cache")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    batch_size: int = Field(32, ge=1, le=4096, description="images encoded at once")
    burst: int = Field(
        0, ge=0, le=1000, description="leave out queries within this many captures of their gallery image"
    )
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples of the identities for an interval")
    top_k: int = Field(8, ge=1, le=20, description="gallery images shown for a query")


NOTEBOOKS: dict[str, type[Parameters]] = {model.notebook: model for model in (DataExploration, Evaluation)}

P = TypeVar("P", bound=BaseModel)


def resolve(model: type[P], namespace: Mapping[str, Any]) -> P:
    """Take a notebook's parameters out of its namespace, convert them, and refuse every fault at once.

    Papermill itself only warns of an unknown parameter and computes with the default, and its `-f` turns `1e-3` into
    text; here the first stops the run and the second becomes a number.

    Args:
        model: The notebook's parameters.
        namespace: Its `globals()`, or a plain mapping of names to values.

    Raises:
        ConfigError: All faults, one line each: name and value, what is wrong, what to do.
    """
    faults = [_unknown(name, model) for name in sorted(_assigned(namespace) - set(model.model_fields))]
    values: dict[str, Any] = {}
    for name in model.model_fields:
        if name in namespace:
            value, fault = _convert(model, name, namespace[name])
            values[name] = value
            faults += [fault] if fault else []
    try:
        config = model(**values)
        faults += config.faults() if isinstance(config, Parameters) else []
    except ValidationError as error:
        known = {fault.split("=", 1)[0] for fault in faults}
        faults += [_refused(model, e) for e in error.errors() if str(e["loc"][0]) not in known]
    if faults:
        count = "1 parameter is" if len(faults) == 1 else f"{len(faults)} parameters are"
        raise ConfigError(f"{count} wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
    return config


def _assigned(namespace: Mapping[str, Any]) -> set[str]:
    """Names given as parameters: by papermill's injected cell and the annotated cell, or all literals of a mapping."""
    if "In" not in namespace:
        return {name for name, value in namespace.items() if not name.startswith("_") and _is_literal(value)}
    names: set[str] = set()
    for source in namespace["In"]:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        if source.startswith("# Parameters"):
            names |= {t.id for s in body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)}
        elif body and all(isinstance(statement, ast.AnnAssign) for statement in body):
            names |= {s.target.id for s in body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
    return names


def _is_literal(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict)


def _unknown(name: str, model: type[BaseModel]) -> str:
    near = get_close_matches(name, model.model_fields, 1, 0.5)
    remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(model.model_fields)}"
    return f"{name}: no such parameter; {remedy}"


def _convert(model: type[BaseModel], name: str, value: Any) -> tuple[Any, str | None]:
    """Convert what papermill makes of typed text; return the value and a fault or None."""
    wanted = model.model_fields[name].annotation
    given = f"{name}={value!r}"
    if wanted is str and not isinstance(value, str):
        return value, (
            f"{given}: text is wanted, and papermill reads what looks like a number, a truth value or a list as one; "
            f"give it raw: -r {name} TEXT (so 007 stays 007)"
        )
    if wanted is bool and not isinstance(value, bool):
        return value, f"{given}: a truth value is wanted: true or false"
    if wanted in (int, float) and isinstance(value, bool):
        return value, f"{given}: a number is wanted"
    if wanted in (int, float) and isinstance(value, str):
        try:
            return wanted(value.strip()), None
        except ValueError:
            kind = "a whole number" if wanted is int else "a number"
            return value, f"{given}: {kind} is wanted, such as {model.model_fields[name].default!r}"
    return value, None


def _refused(model: type[BaseModel], error: Any) -> str:
    """One line for one of pydantic's findings."""
    name = str(error["loc"][0])
    given = f"{name}={error['input']!r}"
    if error["type"] == "literal_error":
        choices = [str(choice) for choice in model.model_fields[name].annotation.__args__]  # type: ignore[union-attr]
        near = get_close_matches(str(error["input"]), choices, 1)
        return f"{given}: {f'did you mean {near[0]}? ' if near else ''}choose from {', '.join(choices)}"
    return f"{given}: {error['msg'][0].lower()}{error['msg'][1:]} ({model.model_fields[name].description})"
