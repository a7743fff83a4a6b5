"""A run by hand keeps what its cells showed, as a kernel's messages say it."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

from handclip_lib.runs.kept_cells import KeptCells, can_be_kept


class Stream(io.StringIO):
    """As ipykernel's, whose messages go out by a thread."""

    def __init__(self):
        super().__init__()
        self.hooks = []
        self.pub_thread = SimpleNamespace(schedule=lambda work: work())
        self.register_hook, self.unregister_hook = self.hooks.append, self.hooks.remove


class Shell:
    """A kernel's shell: cells are run by `cell`, their messages are sent by `say`."""

    def __init__(self, *ran: str):
        self.display_pub, self.displayhook = Stream(), Stream()
        self.history_manager = SimpleNamespace(input_hist_raw=["", *ran])
        self.parent = "guard"
        self.get_parent = lambda: {"header": {"msg_id": self.parent}}

    def say(self, kind: str, **content: object) -> None:
        message = {"header": {"msg_type": kind}, "parent_header": {"msg_id": self.parent}, "content": content}
        hooks = sys.stdout.hooks if kind == "stream" else self.display_pub.hooks
        assert [hook(message) for hook in hooks] == [message] * len(hooks), "it goes out as it is"


def ended(source: str, error: Exception | None = None) -> SimpleNamespace:
    return SimpleNamespace(info=SimpleNamespace(raw_cell=source), error_in_exec=error, error_before_exec=None)


def of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Stream())


def test_cells_stand_among_the_shipped_text_with_what_they_showed_last(tmp_path: Path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "study.toml").touch()
    monkeypatch.chdir(tmp_path)
    shipped = [
        v4.new_markdown_cell("# Title"), v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("start()", metadata={"tags": ["setup"]}), v4.new_markdown_cell("## Then"),
        v4.new_code_cell("show()"), v4.new_code_cell("never run"),
    ]  # fmt: skip
    nbformat.write(v4.new_notebook(cells=shipped), tmp_path / "notebooks" / "05_x.ipynb")
    of_a_kernel(monkeypatch)
    shell = Shell("a = 1", "# Parameters\na = 2", "start()")
    assert can_be_kept(shell)
    kept = KeptCells(shell)
    shell.say("stream", name="stdout", text="run x")
    kept.end_cell(ended("start()"))
    for number, (source, png) in enumerate((("show()", b"old"), ("my own", b"mine"), ("show()", b"new"))):
        shell.parent = f"cell {number}"
        shell.say("display_data", data={"image/png": png}, metadata={"image/png": {"alt": "x"}}, transient={})
        kept.end_cell(ended(source))
    shell.parent = "cell 3"
    shell.say("display_data", data={"text/plain": "1"}, metadata={}, transient={"display_id": "d"})
    shell.say("update_display_data", data={"text/plain": "2"}, metadata={}, transient={"display_id": "d"})
    kept.end_cell(ended("live()", ValueError("no")))
    kept.write(tmp_path / "executed.ipynb", "05_x")
    kept.stop()
    assert not any((shell.display_pub.hooks, shell.displayhook.hooks, sys.stdout.hooks, sys.stderr.hooks))
    cells = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
    assert [cell.source for cell in cells] == [
        "# Title", "a = 1", "# Parameters\na = 2", "start()", "my own", "## Then", "show()", "live()",
    ]  # fmt: skip
    tags = [cell.metadata.get("tags", []) for cell in cells]
    assert tags == [[], ["parameters"], ["injected-parameters"], ["setup"], [], [], [], []]
    assert cells[3].outputs[0].text == "run x"
    assert [out.data["image/png"] for out in cells[6].outputs] == ["bmV3"], "base64, of the newest time"
    assert cells[6].outputs[0].metadata["image/png"].alt == "x"
    live, error = cells[7].outputs
    assert (live.data["text/plain"], error.ename, "ValueError: no" in error.traceback[0]) == ("2", "ValueError", True)


def test_a_shell_without_such_messages_is_left_alone():
    assert not can_be_kept(SimpleNamespace(display_pub=object(), displayhook=object()))
