"""OpenAI's nine files as openai-clip names them, read in its source: importing it takes seconds, for torchvision."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from handclip_lib.errors import BackboneError
from handclip_lib.files import sha256_of


class Published(NamedTuple):
    """One of OpenAI's nine: its file's name in the download folder, where it is, and its SHA-256, a part of that."""

    file: str
    address: str
    checksum: str


@cache
def addresses() -> dict[str, str]:
    """Where each file is, by the name of its architecture, such as "ViT-B/16"; as openai-clip's `_MODELS` has it."""
    spec = find_spec("clip")
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError("openai-clip is not installed; run: pip install openai-clip==1.0.1")
    source = Path(spec.submodule_search_locations[0], "clip.py").read_text(encoding="utf-8")
    values = {
        ast.unparse(node.targets[0]): node.value for node in ast.parse(source).body if isinstance(node, ast.Assign)
    }
    return ast.literal_eval(values["_MODELS"])


def published(architecture: str) -> Published:
    """Of a name that `clip.available_models()` lists: `"ViT-B/16"`, whose file is `"ViT-B-16.pt"`."""
    address = addresses()[architecture]
    checksum, file = address.split("/")[-2:]
    return Published(file, address, checksum)


def published_as(file: Path) -> str:
    """OpenAI's name of the architecture whose published file this is, by its SHA-256; "" where it is none."""
    checksums = {address.split("/")[-2]: name for name, address in addresses().items()}
    return checksums.get(sha256_of(file), "")
