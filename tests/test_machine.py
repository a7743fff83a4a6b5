import ctypes
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from handclip_lib import machine

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine of 16 cores and 64 GiB; called with the lines of /proc/self/cgroup and files of a tree of groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "total available")(64 * GIB, 48 * GIB))
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    def make(lines: str, files: dict[str, object]) -> None:
        (tmp_path / "own").write_text(lines)
        for name, content in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")

    return make


def test_without_control_groups_it_is_the_machine(groups):
    assert (machine.cores(), machine.total_memory(), machine.free_memory()) == (16, 64 * GIB, 48 * GIB)


def test_a_container_of_version_2_sees_its_own_limits_at_the_root(groups):
    groups("0::/\n", {"cpu.max": "150000 100000", "memory.max": 4 * GIB, "memory.current": 3 * GIB,
                      "memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 7"})  # fmt: skip
    assert machine.cores() == 2, "one and a half, as two threads use them"
    assert machine.total_memory() == 4 * GIB
    assert machine.free_memory() == 2 * GIB, "the cache of files is given back"


def test_the_tightest_group_above_counts(groups):
    job = "system.slice/slurm/job_7"
    groups(f"0::/{job}/step_0/task_0\n", {
        f"{job}/step_0/task_0/memory.max": "max", f"{job}/step_0/task_0/memory.current": 5,
        f"{job}/memory.max": 8 * GIB, f"{job}/memory.current": GIB, f"{job}/cpu.max": "400000 100000",
        "system.slice/memory.max": 32 * GIB, "system.slice/memory.current": 31 * GIB,
        "system.slice/cpu.max": "max 100000",
    })  # fmt: skip
    assert (machine.cores(), machine.total_memory(), machine.free_memory()) == (4, 8 * GIB, GIB)


@pytest.mark.parametrize("place", ["memory/docker/abc", "memory"], ids=["as it is named", "mounted as the root"])
def test_control_groups_of_version_1(groups, place: str):
    lines = "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
    groups(lines, {
        f"{place}/memory.limit_in_bytes": 2 * GIB, f"{place}/memory.usage_in_bytes": GIB,
        f"{place}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}",
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": 300000, "cpu,cpuacct/docker/abc/cpu.cfs_period_us": 100000,
    })  # fmt: skip
    assert (machine.cores(), machine.total_memory(), machine.free_memory()) == (3, 2 * GIB, GIB * 3 // 2)


def test_no_limit_of_version_1_is_none(groups):
    groups("4:cpu:/\n9:memory:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000,
                                     "memory/memory.limit_in_bytes": 2**63 - 4096,
                                     "memory/memory.usage_in_bytes": GIB})  # fmt: skip
    assert (machine.cores(), machine.total_memory(), machine.free_memory()) == (16, 64 * GIB, 48 * GIB)


def test_a_group_that_is_full_has_nothing_free(groups):
    groups("0::/a\n", {"a/memory.max": GIB, "a/memory.current": GIB + 4096})
    assert machine.free_memory() == 0


@pytest.mark.parametrize(("given", "wanted"), [("3", 3), ("64", 16), ("", 16), ("many", 16), ("0", 1)])
def test_slurm_lends_fewer_cores_and_never_more(groups, monkeypatch: pytest.MonkeyPatch, given: str, wanted: int):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert machine.cores() == wanted


def test_nothing_else_counts_cores_or_memory():
    """One home: everything that starts threads or processes, or asks what is free, asks here."""
    library = Path(machine.__file__).parent
    words = ("cpu_count", "virtual_memory", "sched_getaffinity")
    asking = {file.name for file in library.rglob("*.py") for word in words if word in file.read_text()}
    assert asking == {"machine.py"}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator is not glibc's")
def test_what_is_freed_is_kept_while_that_is_asked_for_and_given_back_at_the_end():
    """In a process of its own: what others have freed would be taken first."""
    told = """
import psutil
from handclip_lib import machine

def more(than):
    bytearray(64 * 2**20)
    return (psutil.Process().memory_info().rss - than) // 2**20

before = psutil.Process().memory_info().rss
print(more(before) < 8)
with machine.kept_memory():
    print(more(before) > 56)
print(more(before) < 8)
"""
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3


def test_small_products_are_made_by_one_thread_and_large_ones_by_those_there_were():
    def threads() -> set[int]:
        return {one["num_threads"] for one in machine._blas().info()}

    with machine._blas().limit(limits=2):
        with machine.products(machine.SMALL - 1):
            assert threads() == {1}
        with machine.products(machine.SMALL):
            assert threads() == {2}
        with machine.workers():
            assert threads() == {1}
        assert threads() == {2}


@pytest.mark.parametrize(("given", "wanted"), [("", "1000"), ("300000", "300000")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(given: str, wanted: str):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    told = "import handclip_lib, os, sys; print(os.environ['GOMP_SPINCOUNT'], {'numpy', 'torch'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True,
        env=environment | ({"GOMP_SPINCOUNT": given} if given else {}),
    )  # fmt: skip
    assert done.stdout == f"{wanted} set()\n", "said before they are loaded, which read it then"
