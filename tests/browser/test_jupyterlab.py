"""`make lab` in a browser: notebooks run to their end, and panels answer to the keyboard and the mouse."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
TOKEN = "of-the-tests"
SMALL = {"drawn_subjects": 12, "drawn_images": 4, "draws": 2}  # as others draw them
TRAINED = SMALL | {"epochs": 1, "n_identities": 4, "views": 1}
QUICK = {
    "01_data_exploration": SMALL | {"resolution": 48, "samples": 4},
    "02_prompt_learning": SMALL | {"epochs": 3, "trial_epochs": 100, "n_ctx": 2},
    "03_image_finetune": TRAINED,
    "04_joint_training": TRAINED | {"prompt_epochs": 1},
    "05_evaluation": SMALL | {"top_k": 3},
    "06_analysis": {},
}


@dataclass
class Lab:
    """A JupyterLab as `make lab` starts it."""

    page: object
    url: str
    folder: Path
    faults: list[str]
    expect: Callable

    def open(self, path: str) -> None:
        """A file, in a workspace of its own."""
        name = re.sub(r"\W", "", path)
        self.page.goto(f"{self.url}/lab/workspaces/{name}/tree/{path}?token={TOKEN}")

    def run_all(self, notebook: str) -> dict:
        """Open a notebook, run all its cells from the menu, and wait until they are done; the run's record."""
        self.open(f"notebooks/{notebook}.ipynb")
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
        self.page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.ready")
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.get_by_text("[*]:").first.wait_for()
        patience = time.monotonic() + 120
        while (record := self.record(notebook))["status"] == "running" and time.monotonic() < patience:
            self.page.wait_for_timeout(200)
        assert record["status"] == "succeeded", record["error"]
        self.page.get_by_text(re.compile("^finished[:,] ")).wait_for()  # ", but" it may not have learnt
        return record

    def record(self, notebook: str) -> dict:
        """The record of the notebook's run, once there is one."""
        found = list(self.folder.glob(f"reports/runs/{notebook}-*/run.json"))
        return json.loads(found[0].read_text()) if found else {"status": "running"}

    def has_run(self, *notebooks: str) -> None:
        """Run those that no test before has run."""
        for notebook in notebooks:
            if self.record(notebook)["status"] != "succeeded":
                self.run_all(notebook)

    def press(self, *keys: str) -> None:
        """Keys, one after the other, wherever the focus is."""
        for key in keys:
            self.page.keyboard.press(key)

    def changes(self, figure, *keys: str) -> None:
        """Press keys and wait until the figure is another one."""
        before = figure.get_attribute("src")
        self.press(*keys)
        self.expect(figure).not_to_have_attribute("src", before, timeout=30_000)

    def show(self, start: str) -> None:
        """Scroll to the cell whose source starts so: JupyterLab renders only what is near the window."""
        self.page.evaluate(
            """async start => {
                const notebook = window.jupyterapp.shell.currentWidget.content
                const place = notebook.widgets.findIndex(c => c.model.sharedModel.getSource().startsWith(start))
                await notebook.scrollToItem(place, 'start')
            }""",
            start,
        )


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def lab_command() -> list[str]:
    """What `make lab` runs, with this Python's environment in place of the one it would make."""
    bin_folder = Path(sys.executable).parent
    # git's filter, `strip`, is of the checkout, which a test leaves alone
    words = ["make", "-n", "lab", "STAMP=installed", "-o", "installed", "-o", "strip", f"BIN={bin_folder}"]
    outside_make = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(words, cwd=ROOT, env=outside_make, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout.replace("\\\n", " "))


def quick_copy(notebook: str, folder: Path) -> None:
    """The notebook with small values at the end of its parameters cell."""
    copy = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    (cell,) = [cell for cell in copy.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source += "".join(f"\n{name}: int = {value}" for name, value in QUICK[notebook].items())
    nbformat.write(copy, folder / f"{notebook}.ipynb")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A server in a project of small notebooks, where the user's own kernel "python3" is a broken one."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "params", folder / "params")
    shutil.copy(ROOT / "notebooks" / "README.md", folder / "notebooks")
    for notebook in QUICK:
        quick_copy(notebook, folder / "notebooks")
    broken = folder / "user" / "kernels" / "python3"
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "broken", "language": "python"}))
    port = free_port()
    words = [
        *lab_command(), "--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--allow-root",
        f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser",
    ]  # fmt: skip
    own = {
        name: str(folder / name.rsplit("_", 2)[-2].lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    }
    own |= {"JUPYTER_DATA_DIR": str(folder / "user"), "HANDCLIP_REPORTS": str(folder / "reports")}
    own |= {"PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["env", *words], cwd=folder, env=os.environ | own, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, folder / "log")
            yield url, folder
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    patience = time.monotonic() + 240  # JupyterLab starts slowly beside other tests
    while time.monotonic() < patience:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def lab(browser, server, expect) -> Iterator[Lab]:
    url, folder = server
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    yield Lab(page, url, folder, faults, expect)
    context.close()


def test_it_opens_on_the_start_page_whose_links_lead_to_the_notebooks(lab: Lab):
    lab.page.goto(f"{lab.url}/?token={TOKEN}")
    page = lab.page.locator(".jp-MarkdownViewer")
    page.get_by_role("heading", name="The notebooks").wait_for(timeout=60_000)
    page.get_by_role("link", name="05 · Evaluation").click()
    lab.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
    assert lab.page.url.endswith("/notebooks/05_evaluation.ipynb")
    assert lab.faults == []


def test_01_runs_and_its_parameters_become_a_command_by_keyboard_alone(lab: Lab):
    record = lab.run_all("01_data_exploration")
    assert record["parameters"]["drawn_subjects"] == SMALL["drawn_subjects"]
    lab.show("parameter_panel")
    lab.page.get_by_role("button", name="data exploration").focus()
    lab.press("Space")
    control = lab.page.get_by_label("resolution", exact=True)
    control.wait_for()
    lab.press("Tab", "Tab", "Tab", "Tab")  # past the two buttons after it, and past seed
    assert control.evaluate("e => e === document.activeElement")
    lab.press("ArrowUp")
    lab.page.get_by_text("Changed here: resolution.").wait_for()
    lab.page.get_by_role("button", name="as a command").focus()
    lab.press("Space")
    command = lab.page.get_by_label("handclip run", exact=True)
    assert command.input_value().startswith("handclip run 01 ")
    assert "-p resolution 49" in command.input_value()
    assert lab.page.get_by_label("lines to paste", exact=True).input_value().startswith("resolution: int = 49")
    copy = lab.page.get_by_role("button", name="copy: handclip run")
    copy.focus()
    lab.press("Space")
    lab.expect(copy).to_have_text("copied")
    assert copy.evaluate("e => e === document.activeElement"), "the focus stays where it was"
    lab.page.context.grant_permissions(["clipboard-read"])
    assert lab.page.evaluate("navigator.clipboard.readText()") == command.input_value()
    assert lab.faults == []


def test_02_trains_behind_a_button_with_progress_and_is_cancelled(lab: Lab):
    lab.run_all("02_prompt_learning")
    lab.show("train = partial(")
    figure = lab.page.get_by_alt_text(re.compile("^Learning curves of a short training"))
    first = figure.get_attribute("src")
    lab.page.get_by_role("spinbutton", name="temperature").fill("0.5")
    lab.press("Tab")
    lab.page.get_by_text("-p temperature 0.5").wait_for()
    start, cancel = (lab.page.get_by_role("button", name=name, exact=True) for name in ("train", "cancel"))
    assert cancel.is_disabled()
    start.click()
    lab.page.get_by_text(re.compile(r"^epoch [1-9]\d* of 100$")).wait_for()
    assert start.is_disabled()
    cancel.click()
    lab.page.get_by_text("cancelled", exact=True).wait_for()
    assert figure.get_attribute("src") != first
    assert "temperature: 0.5" in figure.get_attribute("alt")
    assert start.is_enabled()
    assert lab.faults == []


def test_05_runs_and_a_slider_and_a_list_change_the_figure_by_keyboard(lab: Lab):
    lab.run_all("05_evaluation")
    lab.show("threshold_explorer")
    figure = lab.page.get_by_alt_text(re.compile("^Distribution of the scores of pairs"))
    panel = lab.page.locator(".jp-Cell", has=figure)
    panel.get_by_role("slider").focus()
    lab.changes(figure, "ArrowRight")
    panel.get_by_label("model", exact=True).focus()
    # a closed list's arrow keys are JupyterLab's own: https://github.com/jupyter-widgets/ipywidgets/issues/3912
    lab.changes(figure, "Space", "ArrowDown", "Enter")
    assert "model: trivial baseline: pixels" in figure.get_attribute("alt")
    assert lab.faults == []


@pytest.mark.parametrize("notebook", ["03_image_finetune", "04_joint_training"])
def test_03_and_04_train_and_the_next_query_is_shown_by_keyboard(lab: Lab, notebook: str):
    record = lab.run_all(notebook)
    assert record["parameters"]["epochs"] == TRAINED["epochs"]
    lab.show("retrieval_browser")
    figure = lab.page.get_by_alt_text(re.compile("^A query and its 8 best gallery images"))
    panel = lab.page.locator(".jp-Cell", has=figure)
    panel.get_by_role("slider").nth(1).focus()
    lab.changes(figure, "ArrowRight")
    assert "query number: 2" in figure.get_attribute("alt")
    assert lab.faults == []


def test_06_compares_the_runs_of_the_others_and_another_is_chosen_by_keyboard(lab: Lab):
    lab.has_run("05_evaluation", "03_image_finetune")
    record = lab.run_all("06_analysis")
    assert record["metrics"]["runs"] >= 2
    lab.show("run_comparer")
    figure = lab.page.get_by_alt_text(re.compile("^CMC of two runs"))
    panel = lab.page.locator(".jp-Cell", has=figure)
    panel.get_by_label("run", exact=True).focus()
    lab.changes(figure, "Space", "ArrowDown", "Enter")
    assert lab.faults == []
