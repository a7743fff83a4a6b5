"""Files of parameters under `params/`: which a notebook has, what one says, and how a new one is written."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from handclip_lib.errors import ConfigError
from handclip_lib.files import whole_file
from handclip_lib.parameters.parts import Parameters
from handclip_lib.parameters.yaml import read_mapping
from handclip_lib.places import project_root

BASE = "base.yml"
ALSO = {"joint_training": ("promptsg",)}  # folders of a notebook beside that of its name


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
