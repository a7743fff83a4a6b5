import hashlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from handclip_lib import doctor
from handclip_lib.cli import main
from handclip_lib.doctor import Finding, examine


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def found(section: str, name: str) -> Finding:
    return next(finding for finding in examine().findings if (finding.section, finding.name) == (section, name))


def test_a_sound_machine_is_told_so_and_nothing_is_made(folders: Path, capsys):
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sound"] is True
    assert {finding["section"] for finding in said["findings"]} == {
        "Software", "Machine", "Folders", "CLIP weights", "Data", "Optional", "Notebooks"
    }  # fmt: skip
    assert "on drawn hands with backbone tiny" in said["works"][0]
    assert all(finding["remedy"] for finding in said["findings"] if finding["state"] != "ok")
    torch = next(finding for finding in said["findings"] if finding["name"] == "torch")
    assert torch["value"] == importlib.metadata.version("torch")
    assert list(folders.iterdir()) == []


def test_a_person_reads_it_and_it_ends_with_what_will_not_work(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "What will work" in said
    assert "Without a network: backbone vitb16, vitb32" in said.split("What will not")[1]


def test_weights_are_right_damaged_or_away(folders: Path, monkeypatch):
    (folders / "cache" / "clip").mkdir(parents=True)
    published = {"vitb16": ("ViT-B-16.pt", hashlib.sha256(b"weights").hexdigest()), "rn50": ("RN50.pt", "0" * 64)}
    monkeypatch.setattr(doctor, "_published", lambda: published | {"rn101": ("RN101.pt", "1" * 64)})
    for file, _ in published.values():
        (folders / "cache" / "clip" / file).write_bytes(b"weights")
    diagnosis = examine()
    values = {finding.name: finding for finding in diagnosis.findings if finding.section == "CLIP weights"}
    assert [values[name].state for name in ("vitb16", "rn50", "rn101")] == ["ok", "note", "note"]
    assert "checksum right" in values["vitb16"].value
    assert "is damaged" in values["rn50"].value
    assert "Without a network too: backbone vitb16." in diagnosis.works
    assert any("rn101" in text and "rn50," not in text for text in diagnosis.fails)
    assert diagnosis.sound


def test_the_nine_published_files_have_checksums():
    published = doctor._published()
    assert len(published) == 9
    assert published["vitl14_336"][0] == "ViT-L-14-336px.pt"
    assert {len(checksum) for _, checksum in published.values()} == {64}


def test_a_missing_package_is_broken_and_a_missing_extra_is_not(monkeypatch):
    version, spec = importlib.metadata.version, importlib.util.find_spec

    def without_papermill(name):
        if name == "papermill":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else spec(name))
    assert found("Optional", "numba").state == "note"
    assert "'handclip[fast]'" in found("Optional", "numba").remedy
    assert examine().sound
    monkeypatch.setattr(importlib.metadata, "version", without_papermill)
    assert found("Software", "papermill").state == "broken"
    assert main(["doctor"]) == 1
    assert "Anything, before this is mended: papermill: not installed" in examine().fails[0]


def test_a_version_that_is_too_old_is_broken(monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "psutil" else version(name))
    assert found("Software", "psutil").value == "1.0, and >=7 is wanted"
    assert not examine().sound


def test_a_folder_that_is_a_file_is_broken_and_little_space_is_not(folders: Path, monkeypatch):
    (folders / "reports").write_text("")
    assert found("Folders", "reports").state == "broken"
    assert "HANDCLIP_REPORTS" in found("Folders", "reports").remedy
    monkeypatch.setattr(doctor, "LITTLE_SPACE", 1 << 60)
    assert found("Folders", "cache").state == "note"
    assert any("little space" in text for text in examine().fails)


@pytest.mark.parametrize(
    ("started", "words"),
    [
        (sys.executable, f"runs this Python, {sys.executable}"),
        ("python3", f"runs this Python, {sys.executable}"),  # Jupyter takes its own for these names
        ("{there}", "runs another Python, {there}, and this is " + sys.executable),
        ("nowhere/python", "runs another Python, nowhere/python"),
        ("", "kernel.json is damaged"),
    ],
)
def test_a_kernel_of_another_environment_is_another_python_though_both_link_to_one_file(
    started: str, words: str, folders: Path, monkeypatch
):
    there = folders / "other" / "bin" / "python"
    there.parent.mkdir(parents=True)
    there.symlink_to(Path(sys.executable).resolve())
    kernel = folders / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(folders / "jupyter"))
    argv = [started.format(there=there), "-m", "ipykernel_launcher"] if started else []
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    (finding,) = [found for found in doctor._notebooks() if found.name == "kernel python3"]
    assert words.format(there=there) in finding.value
    assert (finding.state == "ok") == ("this Python" in words)
    (kernel / "kernel.json").write_text("{")
    (finding,) = [found for found in doctor._notebooks() if found.name == "kernel python3"]
    assert (finding.state, "damaged" in finding.value) == ("broken", True)


def test_data_that_the_environment_names(folders: Path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_TEST_DATA", str(folders / "nowhere"))
    assert found("Data", "HANDCLIP_TEST_DATA").state == "note"
    monkeypatch.setenv("HANDCLIP_TEST_DATA", str(folders))
    assert found("Data", "HANDCLIP_TEST_DATA").state == "ok"


@pytest.mark.parametrize("usable", [True, False])
def test_a_gpu_is_named_and_one_that_fails_is_no_gpu(usable, monkeypatch):
    facts = types.SimpleNamespace(name="Card 9", total_memory=24_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: facts)

    def ones(count, device):
        if not usable:
            raise RuntimeError("no kernel image is available for execution on the device\nmore")
        return torch.zeros(count)

    monkeypatch.setattr(torch, "ones", ones)
    finding = found("Machine", "GPU")
    assert finding.value.startswith("Card 9, 24.0 GB, CUDA of torch")
    assert finding.state == ("ok" if usable else "note")
    assert ("no kernel image" in finding.value) == (not usable)
    diagnosis = examine()
    assert any("Training OpenAI's models, on Card 9" in text for text in diagnosis.works) == usable
    assert any("reasonable time" in text for text in diagnosis.fails) == (not usable)


def test_it_tells_even_of_a_torch_that_cannot_be_imported():
    code = "import sys; sys.modules['torch'] = None; from handclip_lib.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "import of torch halted" in done.stdout.split("What will not")[1]
    assert "kernel python3" in done.stdout
