import os
import stat

import pytest

from handclip_lib.files import whole_file


def test_a_file_appears_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with whole_file(target) as private:
        private.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_leaves_what_was_there_and_nothing_half_written(tmp_path, fault):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(fault), whole_file(target) as private:
        private.write_text("half")
        raise fault
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "a") as private:
            private.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
