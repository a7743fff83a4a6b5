"""The notebooks in an IPython shell of this process: what a kernel does with them, but nothing is imported anew."""

import atexit
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from handclip_lib.runs import run as running
from handclip_lib.widgets import panel

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {"drawn_subjects": 12, "drawn_images": 4, "draws": 2}
QUICK: dict[str, dict[str, Any]] = {
    "01_data_exploration": {"resolution": 48, "samples": 4},
    "02_prompt_learning": {"epochs": 3, "trial_epochs": 1, "n_ctx": 2},
    "03_image_finetune": {"epochs": 1, "n_identities": 4, "views": 1},
    "04_joint_training": {"epochs": 1, "n_identities": 4, "views": 1, "prompt_epochs": 1},
    "05_evaluation": {"top_k": 3},
    "06_analysis": {"sign_flips": 200},
}


class Shell:
    """A notebook's shell, and what its cells showed: `pictures` and `text`."""

    def __init__(self, shell: InteractiveShell):
        self.names: dict[str, Any] = shell.user_ns
        self.pictures: list[str] = []
        self.text = ""
        self._shell = shell

    def run(self, *cells: str) -> None:
        """Run cells; what one raises is raised here, after the library has heard of it."""
        for cell in cells:
            with capture_output() as shown:
                done = self._shell.run_cell(cell, store_history=True)
            about = [output.metadata.get("image/png") for output in shown.outputs]
            self.pictures += [picture["alt"] for picture in about if picture]
            tables = [output.data.get("text/html", "") for output in shown.outputs]
            self.text += "\n".join([shown.stdout, *tables])
            done.raise_error()

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return self.names["run"].folder

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says."""
        return json.loads((self.folder / "run.json").read_text())


@contextmanager
def shell_for(reports: Path) -> Iterator[Shell]:
    """A shell whose runs go to `reports`; there is one at a time, as in a kernel."""
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        with (
            patch.dict("os.environ", {"HANDCLIP_REPORTS": str(reports)}),
            patch.object(running, "_watched", None),
            patch.object(running, "DPI", 36),  # a twentieth of the pixels: no test of a notebook looks at one
            patch.object(panel, "DPI", 36),
        ):
            yield Shell(shell)
            if (run := running._watched) is not None:  # as a kernel does at its end
                atexit.unregister(run._at_exit)
                run._at_exit()
    finally:
        InteractiveShell.clear_instance()
        sys.modules["__main__"] = main


def run_notebook(name: str, reports: Path, **values: object) -> Shell:
    """Run a notebook to its end with these parameters, which stand where papermill puts them."""
    with shell_for(reports) as shell:
        shell.run(*cells_of(name, **values))
    assert shell.record["status"] == "succeeded"
    return shell


def run_quickly(name: str, reports: Path, **values: object) -> Shell:
    """`run_notebook` on a few drawn hands; `values` go before."""
    return run_notebook(name, reports, **({} if name == "06_analysis" else SMALL) | QUICK[name] | values)


def cells_of(name: str, **values: object) -> list[str]:
    """Its code cells: imports, parameters, papermill's cell of `values`, and the others."""
    imports, parameters, *rest = _sources(name)
    given = "# Parameters\n" + "\n".join(f"{key} = {value!r}" for key, value in values.items())
    return [imports, parameters, *([given] if values else []), *rest]


@cache
def _sources(name: str) -> list[str]:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]
