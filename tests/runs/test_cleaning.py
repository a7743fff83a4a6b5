import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from handclip_lib.cli import main
from handclip_lib.data.images import kept_pixels
from handclip_lib.errors import RunError
from handclip_lib.runs.listing import named_runs, removable, remove
from handclip_lib.runs.record import read_record, this_process, write_record
from handclip_lib.terminal import in_units

BLOCKS = 40_960  # bytes of a file here: whole blocks of any usual file system


@pytest.fixture
def runs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "reports" / "runs"


def a_run(runs: Path, name: str, status: str, days: float, **more) -> Path:
    moment = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    ended = {"started": moment, "finished": None if status == "running" else moment}
    write_record(runs / name, {"id": name, "status": status, "metrics": {}, "process": this_process()} | ended | more)
    (runs / name / "best.safetensors").write_bytes(os.urandom(BLOCKS))
    return runs / name


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(BLOCKS))
    os.utime(path, (time.time() - days * 86_400,) * 2)
    return path


def names(items) -> set[str]:
    return {item.paths[0].name for item in items}


def test_old_runs_without_a_result_go_and_no_other(runs: Path):
    for status in ("failed", "interrupted", "died", "succeeded", "running"):
        a_run(runs, f"old-{status}", status, 31)
        a_run(runs, f"new-{status}", status, 29)
    (runs / "damaged").mkdir()
    (runs / "damaged" / "run.json").write_text("{")
    assert names(removable(30)) == {"old-failed", "old-interrupted", "old-died"}
    assert names(removable(28)) == {
        f"{age}-{how}" for age in ("old", "new") for how in ("failed", "interrupted", "died")
    }
    freed, stays = remove(removable(30))
    assert stays == []
    assert freed >= 3 * BLOCKS
    assert {path.name for path in runs.glob("old-*")} == {"old-succeeded", "old-running"}
    assert list(runs.glob(".*")) == [], "no lock is left either"


def test_a_folder_goes_by_its_own_name_whatever_its_record_says(runs: Path):
    kept = a_run(runs, "kept", "succeeded", 31)
    for name, id_ in (("copy", "kept"), ("up", "../precious")):
        write_record(a_run(runs, name, "failed", 31), (read_record(runs / name) or {}) | {"id": id_})
    (runs.parent / "precious").mkdir()
    assert sorted(item.paths[0] for item in removable(30)) == [runs / "copy", runs / "up"]
    remove(removable(30))
    assert [path.exists() for path in (kept, runs.parent / "precious", runs / "copy")] == [True, True, False]


def test_a_run_that_was_running_when_its_process_went_has_died_and_goes(runs: Path):
    a_run(runs, "gone", "running", 31, process=this_process() | {"pid": 2**22 + 1})
    assert names(removable(30)) == {"gone"}


def test_cache_entries_that_were_used_lately_stay(runs: Path, tmp_path: Path):
    images, features = tmp_path / "cache" / "images", tmp_path / "cache" / "features"
    for name, days in (("old", 40), ("read", 40), ("new", 3)):
        for suffix in (".npy", ".json", ".lock"):
            aged(images / f"{name}{suffix}", days)
        aged(features / name / "00000000.npy", days)
        aged(features / name / "00000512.npy", days)
    now = time.time()
    os.utime(images / "read.npy", (now, now - 40 * 86_400))  # read now, written long ago
    os.utime(features / "read" / "00000512.npy", (now, now - 40 * 86_400))
    kept = [aged(tmp_path / "cache" / "clip" / "ViT-B-16.pt", 400), aged(tmp_path / "cache" / "drawn" / "a.jpg", 400)]
    found = removable(30)
    assert sorted(str(path.relative_to(tmp_path / "cache")) for item in found for path in item.paths) == [
        "features/old", "images/old.json", "images/old.npy"
    ]  # fmt: skip
    assert sum(item.size for item in found) >= 4 * BLOCKS
    remove(found)
    assert {path.name for path in images.iterdir()} == {
        f"{n}.{s}" for n in ("read", "new") for s in ("npy", "json", "lock")
    }
    assert {path.name for path in features.iterdir()} == {"read", "new"}
    assert all(path.is_file() for path in kept)


def test_the_image_cache_is_what_is_looked_for(runs: Path, tmp_path: Path):
    """The real cache writes what this finds."""

    import numpy as np

    kept_pixels(tmp_path / "cache" / "images", ["k"], (2, 2), lambda _: np.zeros((2, 2, 3), np.uint8), False)
    (item,) = removable(0)
    assert {path.suffix for path in item.paths} == {".npy", ".json"}
    assert remove([item])[1] == []
    assert list((tmp_path / "cache" / "images").iterdir()) == []


@pytest.mark.matrix("killed", "writing a file", "the private file goes a day later, with clean")
def test_half_written_files_go_after_a_day_from_runs_that_are_not_under_way(runs: Path, tmp_path: Path):
    done, busy = a_run(runs, "done", "succeeded", 2), a_run(runs, "busy", "running", 2)
    private = ".image.safetensors.0123abcd.safetensors"
    left = [
        aged(done / private, 2),
        aged(runs / "x" / ".executing.ipynb", 2),
        aged(tmp_path / "cache/images/.a.npy.0123abcd.npy", 2),
    ]
    stays = [
        aged(done / ".image.safetensors.0123abce.safetensors", 0.5), aged(busy / private, 2),
        aged(runs / ".busy.lock", 2),
        aged(done / ".gitignore", 9), aged(done / "image.safetensors.0123abcd.safetensors", 9),
    ]  # fmt: skip
    found = removable(30)
    assert {item.paths[0] for item in found} == set(left)
    remove(found)
    assert [path.exists() for path in left + stays] == [False] * 3 + [True] * 5


def test_a_run_that_succeeded_goes_only_by_its_name_and_its_users_are_named(runs: Path):
    a_run(runs, "prompts", "succeeded", 99)
    a_run(runs, "image", "succeeded", 99, inputs={"02_prompt_learning": "prompts"})
    a_run(runs, "busy", "running", 0)
    assert removable(0) == []
    (item,) = named_runs(["prompts"])
    assert item.why == "succeeded; used by image"
    with pytest.raises(RunError, match="'nothing' is no run"):
        named_runs(["prompts", "nothing"])
    with pytest.raises(RunError, match=r"'\.\./runs' is no run"):
        named_runs(["../runs"])
    with pytest.raises(RunError, match="busy is running"):
        named_runs(["busy"])
    remove([item])
    assert {path.name for path in runs.iterdir()} == {"image", "busy"}


@pytest.mark.matrix("two at once", "clean of a run that starts", "it stays")
def test_what_is_in_use_stays_and_is_not_counted(runs: Path):
    folder = a_run(runs, "old", "failed", 31)
    with FileLock(runs / ".old.lock"):
        assert remove(removable(30)) == (0, [f"{folder} is in use: {runs / '.old.lock'} is locked"])
    assert (folder / "best.safetensors").is_file()


def test_bytes_are_counted_that_come_free(runs: Path, tmp_path: Path):
    folder = a_run(runs, "old", "failed", 31)
    whole = removable(30)[0].size
    (tmp_path / "elsewhere").write_bytes(os.urandom(BLOCKS))
    os.link(tmp_path / "elsewhere", folder / "second_name")
    (folder / "pointer").symlink_to(tmp_path)
    assert removable(30)[0].size - whole < 8192, "another name keeps the bytes, and a link is not followed"
    remove(removable(30))
    assert (tmp_path / "elsewhere").stat().st_size == BLOCKS
    assert not folder.exists()


def test_the_command_asks_and_yes_does_not(runs: Path, monkeypatch, capsys):
    folder = a_run(runs, "old", "failed", 31)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["clean"]) == 0
    assert "nothing was removed" in capsys.readouterr().out

    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert main(["clean"]) == 0
    assert "--yes" in capsys.readouterr().out
    assert folder.is_dir()
    assert main(["clean", "--days", "32", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["clean", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "failed 31 days ago" in said
    assert "removed 1 of 1" in said
    assert not folder.exists()
    assert "old" not in (runs.parent / "index.html").read_text().split("<tbody>")[-1]
    assert main(["clean", "--days", "-1"]) == 2


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (1e13, "10000.0 GB")]
)
def test_bytes_in_units(size, text):
    assert in_units(size) == text
