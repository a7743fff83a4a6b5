"""What a backbone may be called: a short name, or another library's model."""

from difflib import get_close_matches
from typing import Literal, get_args

from pydantic_core import PydanticCustomError

BackboneName = Literal[
    "tiny", "vitb16", "vitb32", "vitl14", "vitl14_336", "rn50", "rn101", "rn50x4", "rn50x16", "rn50x64"
]  # fmt: skip
LIBRARIES = ("open_clip", "timm", "hf")
"""Libraries whose own models embed, as `open_clip:NAME`, `timm:NAME` or `hf:FOLDER` in a backbone's place."""


def of_library(backbone: str) -> tuple[str, str] | None:
    """Library and name of a backbone that is another library's model; None of CLIPs of its own shape."""
    library, _, name = backbone.partition(":")
    return (library, name) if library in LIBRARIES and name else None


def folder_of(backbone: str) -> str:
    """The folder that a library's backbone names; "" of one that is known by its name."""
    library, name = of_library(backbone) or ("", "")
    return name if library == "hf" or "/" in name or name.startswith(("~", ".")) else ""


def known_backbone(name: str) -> str:
    """The name, of a parameter; pydantic's error where nothing is called so."""
    known = get_args(BackboneName)
    if name not in known and of_library(name) is None:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        others = "or another library's model: open_clip:NAME, timm:NAME, hf:FOLDER"
        raise PydanticCustomError("unknown", f"{hint}choose from {', '.join(known)}; {others}")  # type: ignore[arg-type]
    return name
