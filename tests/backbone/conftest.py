import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def checkpoints() -> ModuleType:
    """tests/clip_checkpoints.py: shapes and `write_checkpoint(path, shape, kind)`."""
    spec = importlib.util.spec_from_file_location("clip_checkpoints", Path(__file__).parents[1] / "clip_checkpoints.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
