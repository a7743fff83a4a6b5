import json
import os
import stat
import subprocess

import numpy as np
import pytest
import safetensors.numpy

from handclip_lib.files import SHARED, UNSEALED, begin_file, is_sealed, seal, umask, whole_file


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


def mode(path) -> str:
    return stat.filemode(path.stat().st_mode)


@pytest.fixture
def ordinary_umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("shared", "file", "folder"),
    [(None, "-rw-------", "drwx------"), ("0", "-rw-------", "drwx------"), ("1", "-rw-r-----", "drwxr-x---")],
)
def test_what_is_written_is_its_owners_alone_unless_a_group_shares_it(
    tmp_path, monkeypatch, ordinary_umask, shared, file, folder
):
    monkeypatch.delenv(SHARED, raising=False)
    if shared:
        monkeypatch.setenv(SHARED, shared)
    for name in ("text", "weights.safetensors", "log"):
        path = tmp_path / "new" / "deep" / name
        if name == "log":
            begin_file(path)
        else:
            with whole_file(path) as private:
                assert mode(private) == file, "from the first byte"
                if name == "text":
                    private.write_text("x")
                else:  # makes a file of its own, which only its owner reads
                    safetensors.numpy.save_file({"a": np.zeros(2)}, private)
        assert mode(path) == file
    assert mode(tmp_path / "new") == mode(tmp_path / "new" / "deep") == folder
    assert subprocess.check_output(["sh", "-c", "umask"], text=True, umask=umask()).strip() == (
        "0027" if shared == "1" else "0077"
    )


def test_a_file_that_is_there_keeps_what_its_owner_chose_until_it_is_written_anew(tmp_path):
    path = tmp_path / "log"
    path.write_text("before")
    path.chmod(0o640)
    assert begin_file(path) == 0o640
    assert path.read_text() == "before"


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


def test_facts_are_written_in_one_order(tmp_path):
    facts = {name: json.dumps({"of": name, "sign": "d′"}) for name in "zyxwvutsrq"}
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors", facts | UNSEALED)
    seal(tmp_path / "a.safetensors")
    header = (tmp_path / "a.safetensors").read_bytes()
    places = [header.index(f'"{name}":'.encode()) for name in sorted(facts)]
    assert places == sorted(places) and is_sealed(tmp_path / "a.safetensors")


def test_a_file_of_another_program_has_no_seal(tmp_path):
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "a.safetensors")
    assert not is_sealed(tmp_path / "a.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    assert not is_sealed(tmp_path / "empty")
