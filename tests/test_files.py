import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file


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


def test_a_sealed_file_tells_every_changed_byte_every_cut_and_every_hole(tmp_path):
    file = tmp_path / "a.safetensors"
    tensors = {"a": np.arange(1, 40, dtype=np.float32), "crc32": np.ones(3)}
    safetensors.numpy.save_file(tensors, file, UNSEALED | {"note": '"handclip_crc32":"00000000"'})
    seal(file)
    whole = file.read_bytes()
    assert is_sealed(file)
    assert safetensors.numpy.load_file(file)["a"].tolist() == tensors["a"].tolist()

    def taken(data: bytes) -> bool:
        file.write_bytes(data)
        try:
            return is_sealed(file)
        except ValueError:
            return False

    for place in range(len(whole)):
        assert not taken(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]), place
        assert not taken(whole[:place]), place
    for place in range(0, len(whole) - 16, 16):
        assert not taken(whole[:place] + bytes(16) + whole[place + 16 :]), place
    assert taken(whole)


def test_a_file_of_another_program_has_no_seal(tmp_path):
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "a.safetensors")
    assert not is_sealed(tmp_path / "a.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    assert not is_sealed(tmp_path / "empty")
