import importlib.util
from functools import cache
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "faults" / "matrix.py"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("matrix", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.rows = cache(module.rows)
    return module


def test_the_page_is_what_the_marks_of_the_tests_say(made):
    assert made.FILE.read_text(encoding="utf-8") == made.matrix(made.rows()), "run: python tests/faults/matrix.py"


def test_every_test_of_a_real_fault_has_a_row(made):
    """Those that kill processes and fill disks are what the matrix is for."""
    marked = {row[3] for row in made.rows()}
    faults = [
        f"faults/{file.name}::{line.removeprefix('def ').partition('(')[0]}"
        for file in SCRIPT.parent.glob("test_*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    ]
    assert [test for test in faults if test not in marked] == []


def test_an_unknown_kind_is_refused(made, tmp_path: Path):
    (tmp_path / "test_a.py").write_text("@pytest.mark.matrix('flood', 'start', 'wet')\ndef test_a(): ...\n")
    with pytest.raises(ValueError, match="flood: no kind of fault; add it to KINDS"):
        made.rows(tmp_path)
