"""What a build adds to the files: the commit it is made of. It refuses notebooks that show something."""

import json
import runpy
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE_OF = "handclip_lib/made_of.json"


class BuildHook(BuildHookInterface):
    """Called by hatchling for a wheel and for an sdist; an sdist hands on to its wheels what it is made of."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Look at the notebooks, and write the commit into what is built; not into a checkout's own environment."""
        root = Path(self.root)
        for notebook in sorted((root / "notebooks").glob("*.ipynb")):
            cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            if any(cell.get("outputs") for cell in cells):
                raise ValueError(f"{notebook} holds what its cells showed, perhaps photographs of people: make strip")
        if version == "editable":
            return
        made_of = runpy.run_path(str(root / "handclip_lib" / "version.py"))["commit_of_library"]()
        if made_of is not None:
            file = Path(mkdtemp()) / "made_of.json"
            file.write_text(json.dumps(made_of))
            build_data["force_include"][str(file)] = MADE_OF

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written beside the checkout."""
        for file, name in build_data["force_include"].items():
            if name == MADE_OF:
                shutil.rmtree(Path(file).parent)
