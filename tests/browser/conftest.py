import shutil
from collections.abc import Iterator

import pytest

SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, which asks for nothing of its own accord."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")  # 1.5 s: only here
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def expect():
    """Playwright's assertion that waits."""
    return pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
