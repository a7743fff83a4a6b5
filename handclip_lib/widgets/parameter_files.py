"""Files of parameters under `params/`: which a notebook has, what one says, and how a new one is written."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from handclip_lib.config import Parameters
from handclip_lib.data.places import project_root
from handclip_lib.errors import ConfigError
from handclip_lib.files import whole_file

BASE = "base.yml"
NAME = re.compile(r"[A-Za-z]\w*")
"""What a parameter may be called."""
DECIMAL = r"(?!.*[:x]|[-+]?0[0-9b])"
"""What begins with this is no number to us: YAML's own 010 is 8, 1:30 is 90, and 0x10 is 16."""
ALSO = {"joint_training": ("promptsg",)}  # folders of a notebook beside that of its name


class _Loader(yaml.SafeLoader):
    """YAML without dates and with decimal numbers alone; a name that stands twice is refused, for the first is lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands twice; leave out one", problem_mark=key.start_mark
                )
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(DECIMAL + pattern.pattern, re.VERBOSE) if tag.endswith((":int", ":float")) else pattern)
        for tag, pattern in known
        if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_mapping(file: Path) -> dict[str, Any]:
    """What a YAML file of names and values holds; empty for an empty file.

    Raises:
        ConfigError: It cannot be read, is not YAML, is no mapping, gives a name twice, or has one that no parameter
            can have.
    """
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a YAML file of parameters") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance({} if found is None else found, dict):
        raise ConfigError(f"{file} holds a {type(found).__name__}; lines of `name: value` are wanted")
    wrong = [name for name in found or {} if not is_name(name)]
    if wrong:
        raise ConfigError(f"{file}: {wrong[0]!r} is no name of a parameter (yes, no, on and off are truth values)")
    return found or {}


def is_name(name: object) -> bool:
    """Whether a parameter may be called so."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def parameter_files(notebook: str) -> list[Path]:
    """The files of a notebook, by folder and name.

    Args:
        notebook: Such as "02_prompt_learning".
    """
    name = notebook[3:]
    return [file for folder in (name, *ALSO.get(name, ())) for file in sorted(_params().joinpath(folder).glob("*.yml"))]


def read_parameters(file: Path) -> dict[str, Any]:
    """What a file says, over the base.yml beside it where there is one.

    Raises:
        ConfigError: As `read_mapping` does.
    """
    base = file.with_name(BASE)
    values: dict[str, Any] = {}
    for one in [base, file] if base.is_file() and base != file else [file]:
        values |= read_mapping(one)
    return values


def save_parameters(config: Parameters, name: str, *, overwrite: bool = False) -> Path:
    """Write all parameters to `params/<notebook>/<name>.yml`, with a header; it stands alone and over a base.yml.

    Args:
        config: The parameters.
        name: Letters, digits, dots, underscores and hyphens; `.yml` is added.
        overwrite: Replace a file of that name.

    Raises:
        ConfigError: The name is none, the file is there already, or it cannot be written.
    """
    stem = name.strip().removesuffix(".yml")
    if not re.fullmatch(r"\w[\w.-]*", stem):
        raise ConfigError(f"file name {name!r}: use letters, digits, dots, underscores and hyphens, and no folder")
    if f"{stem}.yml" == BASE:
        raise ConfigError(
            f"file name {name!r}: every other file of the folder is read over a {BASE}; give another name"
        )
    file = _params() / config.notebook[3:] / f"{stem}.yml"
    if file.exists() and not overwrite:
        raise ConfigError(f"{shown(file)} is there already; give another name, or tick overwrite")
    header = (
        f"# command:  handclip run {config.notebook[:2]} -f {shown(file)}\n"
        f"# saved:    {datetime.now(UTC).isoformat(timespec='seconds')}, from the parameter panel\n"
        "# minutes:  not measured yet\n# machine:  any\n# expected: not known yet\n"
    )
    values = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    try:
        with whole_file(file) as private:
            private.write_text(header + values, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror or error}); free space, or start JupyterLab from "
                          "a folder you may write to") from error  # fmt: skip
    return file


def shown(file: Path) -> str:
    """The path as a person types it from the project's folder."""
    root = project_root()
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def _params() -> Path:
    return project_root() / "params"
