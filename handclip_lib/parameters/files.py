"""Files of parameters and sweeps: YAML read with limits, so that none takes all memory, time or stack; and written."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from handclip_lib.errors import ConfigError
from handclip_lib.files import whole_file
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import project, project_root

BASE = "base.yml"
ALSO = {"joint_training": ("promptsg", "handid")}  # folders of a notebook beside that of its name
MOST = 500_000  # characters, with every alias written out
MOST_VALUES = 50_000  # a list of 1000 points with twenty parameters has fewer
DEEPEST = 20  # levels of lists and mappings
LONGEST_NUMBER = 40  # characters
NAME = re.compile(r"[A-Za-z]\w*")
"""What a parameter may be called."""
DECIMAL = r"(?!.*[:x]|[-+]?0[0-9b])"
"""What begins with this is no number to us: YAML's own 010 is 8, 1:30 is 90, and 0x10 is 16."""


def parameter_files(notebook: str) -> list[Path]:
    """The files of a notebook, such as "02_prompt_learning", by folder and name."""
    name = notebook[3:]
    folders = [project_root() / "params" / folder for folder in (name, *ALSO.get(name, ()))]
    return [file for folder in folders for file in sorted(folder.glob("*.yml"))]


def read_parameters(file: Path) -> dict[str, Any]:
    """What a file says, as `read_mapping` reads it, over the base.yml beside it where there is one."""
    base = file.with_name(BASE)
    return (read_mapping(base) if base.is_file() and base != file else {}) | read_mapping(file)


def save_parameters(config: Parameters, name: str, *, overwrite: bool = False) -> Path:
    """Write all parameters to `params/<notebook>/<name>.yml`, with a header; it stands alone and over a base.yml.

    A ConfigError where the name is none, or the file is there already.
    """
    stem = name.strip().removesuffix(".yml")
    if not re.fullmatch(r"\w[\w.-]*", stem):
        raise ConfigError(f"file name {name!r}: use letters, digits, dots, underscores and hyphens, and no folder")
    if f"{stem}.yml" == BASE:
        raise ConfigError(f"file name {name!r}: the others of its folder are read over a {BASE}; give another name")
    here = project()
    if here is None:
        raise ConfigError(f"{Path.cwd()} is in no project, whose params/ takes it; make one: handclip init FOLDER")
    file = here / "params" / config.notebook[3:] / f"{stem}.yml"
    if file.exists() and not overwrite:
        raise ConfigError(f"{shown(file)} is there already; give another name, or tick overwrite")
    header = (
        f"# command:  handclip run {config.notebook[:2]} -f {shown(file)}\n"
        f"# saved:    {datetime.now(UTC).isoformat(timespec='seconds')}, from the parameter panel\n"
        "# minutes:  not measured yet\n# machine:  any\n# expected: not known yet\n"
    )
    values = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    with whole_file(file, "free space, or start JupyterLab from a folder you may write to") as private:
        private.write_text(header + values, encoding="utf-8")
    return file


def shown(file: Path) -> str:
    """The path as a person types it from the project's folder."""
    root = project_root()
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


class _Loader(yaml.SafeLoader):
    """YAML without dates and with decimal numbers alone; a name that stands twice is refused, for one would be lost."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._level = 0
        self._extents: dict[int, tuple[int, int]] = {}  # characters and levels of each node, with aliases written out

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        self._level += 1
        self._check(self._level <= DEEPEST, f"more than {DEEPEST} levels", mark)
        node: Any = super().compose_node(parent, index)
        self._level -= 1
        if not alias:
            self._extents[id(node)] = self._extent(node, mark)
            self._check(len(self._extents) <= MOST_VALUES, f"more than {MOST_VALUES:,} values", mark)
        self._check(id(node) in self._extents, "an alias within what it stands for", mark)
        size, levels = self._extents[id(node)]
        self._check(size <= MOST, f"more than {MOST:,} characters with every alias written out", mark)
        self._check(levels <= DEEPEST, f"more than {DEEPEST} levels with every alias written out", mark)
        return node

    def _extent(self, node: yaml.Node, mark: yaml.Mark) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
            self._check(not number or len(node.value) <= LONGEST_NUMBER, "a number of too many digits", mark)
            return 1 + len(node.value), 1
        pairs = isinstance(node, yaml.MappingNode)
        below = [one for entry in node.value for one in entry] if pairs else node.value
        found = [self._extents[id(one)] for one in below]
        return 1 + sum(size for size, _ in found), 1 + max((levels for _, levels in found), default=0)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            twice = isinstance(key, yaml.ScalarNode) and key.value in seen
            self._check(not twice, f"{key.value} stands twice; leave out one", key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node

    @staticmethod
    def _check(right: bool, otherwise: str, mark: yaml.Mark) -> None:
        if not right:
            raise yaml.MarkedYAMLError(problem=otherwise, problem_mark=mark)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(DECIMAL + pattern.pattern, re.VERBOSE) if tag.endswith((":int", ":float")) else pattern)
        for tag, pattern in known
        if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_mapping(file: Path) -> dict[str, Any]:
    """What a YAML file of names and values holds; empty for an empty file; a ConfigError of any other."""
    try:
        with file.open("rb") as opened:  # a pipe may be named: `-f <(…)`
            content = opened.read(MOST + 1)
        if len(content) > MOST:
            raise ConfigError(f"{file} has more than {MOST:,} bytes; name a YAML file of parameters")
        found = yaml.load(content.decode("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a YAML file of parameters") from error
    except (UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} has a value that is not of the kind its tag says ({error})") from error
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise ConfigError(f"{file} holds a {type(found).__name__}; lines of `name: value` are wanted")
    if wrong := [name for name in found if not is_name(name)]:
        raise ConfigError(f"{file}: {wrong[0]!r} is no name of a parameter (yes, no, on and off are truth values)")
    return found


def is_name(name: object) -> bool:
    """Whether a parameter may be called so."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None
