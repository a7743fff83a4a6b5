"""Keys of files' bytes: right whatever the record on disk says, and quick where it knows."""

import os
from hashlib import blake2b
from pathlib import Path

import pytest

from handclip_lib.data import content
from handclip_lib.data.content import content_keys, data_files
from handclip_lib.places import HD_IDENTITIES

NAMES = ("a.jpg", "b/c.jpg")


def plain(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def settled(monkeypatch):
    """Files rest at once, so that the record is believed."""
    monkeypatch.setattr(content, "SETTLED_NS", -(10**15))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files whose bytes were read."""
    opened: list[str] = []
    without_waiting = content._without_waiting
    monkeypatch.setattr(
        content, "_without_waiting", lambda name, flags: opened.append(Path(name).name) or without_waiting(name, flags)
    )
    return opened


def test_a_key_is_of_the_bytes_alone_in_the_order_given(root):
    (root / "twin.png").write_bytes(b"a.jpg")
    assert content_keys(root, ["b/c.jpg", "twin.png", "a.jpg"]) == (plain(b"b/c.jpg"), plain(b"a.jpg"), plain(b"a.jpg"))


def test_many_files_have_their_own_keys(root):
    names = [f"{number}.bin" for number in range(200)]
    for name in names:
        (root / name).write_bytes(name.encode())
    assert content_keys(root, names) == tuple(plain(name.encode()) for name in names)


def test_what_rests_is_read_once(root, settled, reads):
    first = content_keys(root, NAMES)
    assert content_keys(root, NAMES) == first
    assert sorted(reads) == ["a.jpg", "c.jpg"]


def test_what_was_touched_just_now_is_read_again(root, reads):
    content_keys(root, NAMES)
    content_keys(root, NAMES)
    assert len(reads) == 4


def test_other_bytes_of_equal_size_and_date_are_noticed(root, settled):
    content_keys(root, NAMES)
    before = (root / "a.jpg").stat()
    (root / "a.jpg").write_bytes(b"b.jpg")
    os.utime(root / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_keys(root, NAMES)[0] == plain(b"b.jpg")


def test_another_file_moved_into_the_place_is_noticed(root, settled):
    content_keys(root, NAMES)
    (root / "new").write_bytes(b"new")
    (root / "new").replace(root / "a.jpg")
    assert content_keys(root, NAMES)[0] == plain(b"new")


def test_links_are_followed(root, settled, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jpg").write_bytes(b"one")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert content_keys(root, ["link/x.jpg"]) == (plain(b"one"),)
    (tmp_path / "elsewhere" / "x.jpg").write_bytes(b"two")
    assert content_keys(root, ["link/x.jpg"]) == (plain(b"two"),)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"00\n{"])
def test_a_damaged_record_is_not_believed(root, settled, tmp_path, damage):
    right = content_keys(root, NAMES)
    record = next((tmp_path / "cache" / "content").glob("*.json"))
    record.write_bytes(damage)
    assert content_keys(root, NAMES) == right
    assert record.read_bytes() != damage


def test_a_digest_changed_in_the_record_is_not_believed(root, settled, tmp_path):
    right = content_keys(root, NAMES)
    record = next((tmp_path / "cache" / "content").glob("*.json"))
    record.write_text(record.read_text().replace(right[0], right[1]))
    assert content_keys(root, NAMES) == right


def test_files_that_cannot_be_read_have_a_key_that_says_so(root):
    os.mkfifo(root / "pipe.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    odd = ["gone.jpg", "a.jpg/x.jpg", "b", "pipe.jpg", "loop.jpg", "n\0ul"]
    found = content_keys(root, odd)
    assert found[:2] == ("absent", "absent")
    assert found[2] == "unreadable: Is a directory"
    assert found[3] == "unreadable: it is no file"
    assert all(key.startswith("unreadable: ") for key in found[4:])


def test_without_a_cache_folder_the_keys_are_right(root, settled, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "file"))
    assert content_keys(root, NAMES) == tuple(plain(name.encode()) for name in NAMES)


def test_paths_left_out_of_one_call_stay_in_the_record(root, settled, reads):
    for paths in (NAMES[:1], NAMES[1:], NAMES):
        content_keys(root, paths)
    assert len(reads) == 2


@pytest.mark.parametrize("dataset", ["11k", "hd", "folder"])
def test_what_a_system_puts_into_a_folder_by_itself_is_no_part_of_a_data_set(tmp_path, dataset):
    folder = tmp_path / {"11k": "Hands", "hd": HD_IDENTITIES, "folder": "007"}[dataset]
    folder.mkdir(parents=True)
    (folder / "1_1.jpg").touch()
    before = data_files(dataset, tmp_path)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).touch()
    assert data_files(dataset, tmp_path) == before
    (folder / "1_2.jpg").touch()
    assert data_files(dataset, tmp_path) != before
