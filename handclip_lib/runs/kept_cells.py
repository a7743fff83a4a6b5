"""What the cells of a run by hand showed, kept as `executed.ipynb`, as the launcher keeps it of papermill.

JupyterLab and papermill write the notebook when and where they like, and a kernel is not told. So its own messages are
read on their way out, and the text between the cells is taken from the notebook that is shipped.
"""

import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.jsonutil import json_default
from nbformat import NotebookNode, v4

from handclip_lib.files import write_text
from handclip_lib.parameters.guard import INJECTED
from handclip_lib.places import project_root

SHOWN = ("display_data", "execute_result", "stream")


class KeptCells:
    """The cells of one run, in the order they were run, and what each showed: the newest time it was run.

    The first is the guard cell, in the midst of which the run begins; what stood before it shows nothing.
    """

    def __init__(self, shell: Any):
        self._shell = shell
        *self._before, guard = _typed(shell)
        self._sources, self._outputs = {_parent_of(shell): guard}, dict[str, list[NotebookNode]]()
        self._displays: dict[str, NotebookNode] = {}
        for part in (shell.display_pub, shell.displayhook):
            part.register_hook(self._note)
        for stream in _streams():  # what they say goes out by a thread, whose hooks are its own
            stream.pub_thread.schedule(partial(stream.register_hook, self._note))

    def end_cell(self, result: Any) -> None:
        """Note the source of the cell that has ended, and its error."""
        cell = _parent_of(self._shell)
        self._sources[cell] = result.info.raw_cell or ""
        if error := result.error_in_exec or result.error_before_exec:
            told = traceback.format_exception(error)
            said = v4.new_output("error", ename=type(error).__name__, evalue=str(error), traceback=["".join(told)])
            self._outputs.setdefault(cell, []).append(said)

    def write(self, path: Path, notebook: str) -> None:
        """Write the cells among the text of the shipped notebook of this name."""
        for stream in _streams():
            stream.flush()
        cells = [v4.new_code_cell(source) for source in self._before]
        cells += [v4.new_code_cell(text, outputs=self._outputs.get(cell, [])) for cell, text in self._sources.items()]
        newest = {cell.source.strip(): cell for cell in cells}
        ran = [cell for cell in cells if newest[cell.source.strip()] is cell and cell.source.strip()]
        file = project_root() / "notebooks" / f"{notebook}.ipynb"
        shipped = nbformat.read(file, as_version=4).cells if file.is_file() else []
        write_text(path, nbformat.writes(v4.new_notebook(cells=_among(ran, shipped))))

    def stop(self) -> None:
        """Read no more messages."""
        for part in (self._shell.display_pub, self._shell.displayhook):
            part.unregister_hook(self._note)
        for stream in _streams():
            stream.pub_thread.schedule(partial(stream.unregister_hook, self._note))

    def _note(self, message: dict[str, Any]) -> dict[str, Any]:
        """Look at a message on its way out, and hand it on as it is."""
        kind = message["header"]["msg_type"]
        content = json.loads(json.dumps(message["content"], default=json_default))  # as it goes out: bytes as base64
        outputs = self._outputs.setdefault(message["parent_header"].get("msg_id", ""), [])
        display = (content.get("transient") or {}).get("display_id", "")
        if kind == "clear_output":
            outputs.clear()
        elif kind == "update_display_data" and display in self._displays:
            self._displays[display].update(data=content["data"], metadata=content["metadata"])
        elif kind in SHOWN:
            outputs.append(v4.output_from_msg(message | {"content": content}))
            if display:
                self._displays[display] = outputs[-1]
        return message


def can_be_kept(shell: Any) -> bool:
    """Whether a shell is one of a notebook, whose messages can be read."""
    parts = (shell.display_pub, shell.displayhook, *_streams())
    return len(parts) == 4 and all(hasattr(part, "register_hook") for part in parts)


def _among(ran: list[NotebookNode], shipped: list[NotebookNode]) -> list[NotebookNode]:
    """Cells that were run in the places of the shipped ones of the same code; others follow the one run before."""
    places = {cell.source.strip(): place for place, cell in enumerate(shipped) if cell.cell_type == "code"}
    at: dict[int, list[NotebookNode]] = {}
    here = 0
    for cell in ran:
        here = places.get(cell.source.strip(), here)
        if cell.source.strip() in places:
            cell.metadata = shipped[here].metadata
        elif cell.source.startswith(INJECTED):
            cell.metadata.tags = ["injected-parameters"]
        at.setdefault(here, []).append(cell)
    if not shipped:
        return ran
    text = [[cell] if cell.cell_type == "markdown" else [] for cell in shipped]
    return [cell for place, before in enumerate(text) for cell in (*before, *at.get(place, ()))]


def _typed(shell: Any) -> list[str]:
    """Code of the cells a kernel has run, the present one last."""
    return list(shell.history_manager.input_hist_raw[1:])


def _parent_of(shell: Any) -> str:
    """Which request, as its messages say, the present cell is run for."""
    return str(shell.get_parent().get("header", {}).get("msg_id", ""))


def _streams() -> list[Any]:
    return [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "pub_thread")]
