"""The start page lists the notebooks in order, and each notebook leads to the next."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("[0-9][0-9]_*.ipynb"))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)#]+)\)", text)


def test_the_start_page_links_every_notebook_in_order_by_its_title():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [link for link in links(page) if link.endswith(".ipynb")] == NOTEBOOKS
    for name in NOTEBOOKS:
        title = nbformat.read(FOLDER / name, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        assert f"[{title}]({name})" in page
    assert [link for link in links(page) if not (FOLDER / link).exists()] == []


def test_each_notebook_leads_to_the_next_and_the_last_back():
    for name, following in zip(NOTEBOOKS, [*NOTEBOOKS[1:], "README.md"], strict=True):
        last = nbformat.read(FOLDER / name, as_version=4).cells[-1]
        assert (last.cell_type, last.id) == ("markdown", f"{name[:2]}-90")
        assert last.source.startswith("**Next.** ")
        assert links(last.source) == [following]


def test_each_notebook_shows_its_parameters_after_the_guard():
    for name in NOTEBOOKS:
        code = [cell.source for cell in nbformat.read(FOLDER / name, as_version=4).cells if cell.cell_type == "code"]
        guard = next(place for place, source in enumerate(code) if source.startswith("config, run = start("))
        assert code[guard + 1] == "parameter_panel(config)"


def test_the_kernel_python3_is_this_environments_whatever_kernels_the_user_has(tmp_path: Path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    code = (
        "from jupyter_client.manager import KernelManager as K; print(K(kernel_name='python3').format_kernel_cmd()[0])"
    )
    own = {"JUPYTER_DATA_DIR": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True)
    assert done.stdout.strip() == sys.executable
    own["JUPYTER_PREFER_ENV_PATH"] = "0"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True)
    assert done.stdout.strip() == "false", "that is what the Makefile's setting is for"
