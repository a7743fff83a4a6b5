import importlib.util
import os
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(os.environ.get("HANDCLIP_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def _needed(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real data are not here: {path} (set HANDCLIP_TEST_DATA to the folder that holds them)")
    return path


@pytest.fixture(scope="session")
def hands11k_sample() -> Path:
    """A small sample of 11k Hands: Hands/*.jpg and HandInfo.csv, right hands only, 240×180."""
    return _needed("hands11k_sample")


@pytest.fixture(scope="session")
def hands11k_fullres() -> Path:
    """A few 11k Hands photographs as published, 1600×1200."""
    return _needed("hands11k_fullres")


@pytest.fixture(scope="session")
def hands11k_metadata() -> Path:
    """The complete HandInfo.csv of 11k Hands, 11,076 rows."""
    return _needed("hands11k_HandInfo.csv")


@pytest.fixture(scope="session")
def hands11k(hands11k_metadata: Path, tmp_path_factory: pytest.TempPathFactory):
    """The table of all 11k Hands, whose photographs are empty files that are removed once it is read."""
    from handclip_lib.data.labels import read_hands11k

    root = tmp_path_factory.mktemp("hands11k")
    (root / "HandInfo.csv").symlink_to(hands11k_metadata)
    (root / "Hands").mkdir()
    for name in re.findall(r"Hand_[0-9]+\.jpg", hands11k_metadata.read_text(encoding="utf-8")):
        (root / "Hands" / name).touch()
    table = read_hands11k(root)
    shutil.rmtree(root / "Hands")
    return table


@pytest.fixture(scope="session")
def clipfh_versions() -> Path:
    """CLIP-FH's settings by version: what its reports and logs say."""
    return _needed("published/clipfh_versions.csv")


@pytest.hookimpl(tryfirst=True)  # before -m leaves any out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: at the end, both workers share what is short (with --no-loadscope-reorder)."""
    long = {item.path for item in items if any(item.iter_markers(name) for name in ("slow", "fault", "browser"))}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory):
    """Tests never read or fill the user's cache; all workers share one, so that hands are drawn once."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    os.environ["HANDCLIP_CACHE"] = str(cache)


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of reports of the test's own; it is not made."""
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports"


@pytest.fixture(scope="session")
def saved_runs():
    """tests/saved_runs.py: `small_split`, `features_of`, and `evaluated(folder)`, an evaluation kept on disk."""
    spec = importlib.util.spec_from_file_location("saved_runs", Path(__file__).with_name("saved_runs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checkpoints() -> ModuleType:
    """tests/clip_checkpoints.py: shapes and `write_checkpoint(path, shape, kind)`."""
    spec = importlib.util.spec_from_file_location("clip_checkpoints", Path(__file__).with_name("clip_checkpoints.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
