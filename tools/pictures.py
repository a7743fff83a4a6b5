"""Pictures of a report and of a panel, for the pages that show them: `reports/reference/*.png`, at the sizes there.

`python -m tools.pictures` runs notebook 05 on drawn hands and 02 in a JupyterLab of its own; three minutes on two
cores. It needs Chromium, as the tests marked `browser` do.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "reports" / "reference"
FIRST_SCREEN, WIDE = ViewportSize(width=1280, height=920), ViewportSize(width=1400, height=900)
TRIAL = "train = partial("
"""How the cell of notebook 02 begins that makes the panel which trains."""


def main() -> None:
    """Make all three."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with TemporaryDirectory() as made, sync_playwright() as driver:
        folder = Path(made)
        os.environ["HANDCLIP_REPORTS"] = str(folder / "reports")
        handclip("run", "05")
        handclip("report", "latest", "--interactive")
        (report,) = (folder / "reports" / "runs").glob("05_*/report.html")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=FIRST_SCREEN)
        page.goto(report.as_uri())
        page.screenshot(path=PLACE / "report.png")
        page.set_viewport_size(WIDE)
        page.goto(report.with_name("report_interactive.html").as_uri())
        page.get_by_role("heading", name="Queries", exact=True).evaluate("e => scrollTo(0, e.offsetTop - 120)")
        page.wait_for_timeout(1000)
        page.screenshot(path=PLACE / "interactive.png")
        handclip("init", str(folder / "study"))
        with lab(folder / "study") as url:
            photograph_panel(page, url, report.parents[1])
            page.screenshot(path=PLACE / "panel.png")
        browser.close()


def handclip(*words: str) -> None:
    """Run a command of ours."""
    subprocess.run([sys.executable, "-m", "handclip_lib.cli", *words], cwd=ROOT, check=True)


@contextmanager
def lab(study: Path) -> Iterator[str]:
    """A JupyterLab in a study, in which nobody's settings count; the address of its notebook 02."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, settings = secrets.token_hex(8), ROOT / "notebooks" / ".lab"
    words = [
        "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}",
        "--expose-app-in-browser", f"--LabApp.app_settings_dir={settings}",
    ]  # fmt: skip
    own = {name: str(study / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    own |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "jupyter", *words], cwd=study, env=os.environ | own)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/02_prompt_learning.ipynb?token={token}"
    finally:
        process.terminate()
        process.wait(30)


def photograph_panel(page: Page, url: str, runs: Path) -> None:
    """Run notebook 02, open a group of its parameters, and give the panel that trains a view of its own below."""
    page.goto(url)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=90_000)
    page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.ready")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    while not any('"reached_the_end": true' in record.read_text() for record in runs.glob("02_*/run.json")):
        page.wait_for_timeout(1000)
    show(page, TRIAL)
    command(page, "notebook:create-output-view")
    command(page, "application:toggle-left-area")
    show(page, "parameter_panel(config)")
    group = page.get_by_role("button", name="prompt learning").first
    group.click()
    page.wait_for_timeout(1000)
    group.evaluate("e => e.scrollIntoView(true)")
    page.wait_for_timeout(2000)


def command(page: Page, name: str) -> Any:
    """One of JupyterLab's own."""
    return page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def show(page: Page, start: str) -> None:
    """Scroll the notebook to the cell whose source begins so, and make it the active one."""
    page.evaluate(
        """async start => {
            const shell = window.jupyterapp.shell
            const panel = [...shell.widgets('main')].find(w => w.content && w.content.widgets)
            const place = panel.content.widgets.findIndex(c => c.model.sharedModel.getSource().startsWith(start))
            shell.activateById(panel.id)
            panel.content.activeCellIndex = place
            await panel.content.scrollToItem(place, 'start')
        }""",
        start,
    )


if __name__ == "__main__":
    main()
