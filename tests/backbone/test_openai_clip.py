import hashlib
import http.client
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import torch

from handclip_lib.backbone.load import SHAPES, load_backbone
from handclip_lib.backbone.openai_clip import NoRandomNumbers, build_clip, clip_package, infer_shape
from handclip_lib.backbone.published import addresses, published
from handclip_lib.errors import BackboneError, WriteError


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_classes_come_without_torchvision_the_rest_at_first_use_and_a_real_pkg_resources_is_left_alone():
    said = _run(
        "import sys; from handclip_lib.backbone.openai_clip import clip_package; clip = clip_package();"
        "light = 'torchvision' in sys.modules; names = clip.available_models();"
        "import clip as again; from clip.model import CLIP; same = again.model.CLIP is CLIP is clip.model.CLIP;"
        "print(light, 'pkg_resources' in sys.modules, len(names), same);"
        "[sys.modules.pop(name) for name in list(sys.modules) if 'clip' in name];"  # a second start, torch apart
        "import types; real = sys.modules['pkg_resources'] = types.ModuleType('pkg_resources');"
        "from handclip_lib.backbone.openai_clip import clip_package; clip_package().load;"
        "print(sys.modules['pkg_resources'] is real)"
    )
    assert said.split("\n") == ["False False 9 True", "True"]


def test_the_nine_names_and_their_files_are_openai_clips():
    theirs = clip_package().clip._MODELS
    assert addresses() == theirs
    assert sorted(shape.published for shape in SHAPES.values() if shape.published) == sorted(theirs)
    assert published("ViT-L/14@336px").file == "ViT-L-14-336px.pt"
    assert all(published(name).address == address for name, address in theirs.items())


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read_off_the_weights_as_build_model_reads_it(name: str):
    with torch.device("meta"):
        state = build_clip(SHAPES[name]).state_dict()
        theirs = clip_package().model.build_model(dict(state))
    assert infer_shape(state) == SHAPES[name]
    assert theirs.visual.input_resolution == SHAPES[name].resolution
    assert theirs.context_length == 77


@pytest.fixture
def served(tmp_path, checkpoints, monkeypatch):
    """A small model published as ViT-B/16, and a server that gives what `reply` holds."""
    source = tmp_path / "source.pt"
    weights = checkpoints.write_checkpoint(source, checkpoints.SMALL_VIT, "jit")
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(addresses(), "ViT-B/16", f"https://nowhere.test/{checksum}/ViT-B-16.pt")
    reply = {"bytes": source.read_bytes(), "fails": None, "calls": 0}

    class Response:
        def __init__(self):
            self.left = reply["bytes"]

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

        def info(self):
            return {"Content-Length": len(reply["bytes"])}

        def read(self, size):
            if reply["fails"] is not None and len(self.left) < len(reply["bytes"]) / 2:
                raise reply["fails"]
            part, self.left = self.left[:size], self.left[size:]
            return part

    def urlopen(address, timeout):
        reply["calls"] += 1
        if reply["bytes"] is None:
            raise urllib.error.URLError("no route to host")
        return Response()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    reply["weights"] = weights
    return reply


def test_a_published_model_is_downloaded_once_and_then_needs_no_network(served, tmp_path, capsys):
    folder = tmp_path / "clip"
    first = load_backbone("vitb16", device="cpu", download_root=folder, progress=False)
    served["bytes"] = None
    again = load_backbone("vitb16", device="cpu", download_root=folder)
    assert served["calls"] == 1
    assert first.fingerprint == again.fingerprint
    assert [path.name for path in folder.iterdir()] == ["ViT-B-16.pt"]
    assert capsys.readouterr().err == ""
    for name, stored in served["weights"].items():
        assert torch.equal(again.model.state_dict()[name], stored.float()), name


def test_progress_is_shown_when_asked_for(served, tmp_path, capsys):
    load_backbone("vitb16", device="cpu", download_root=tmp_path / "clip", progress=True)
    assert "%" in capsys.readouterr().err


def test_without_network_and_file_one_message_names_three_remedies(served, tmp_path):
    served["bytes"] = None
    folder = tmp_path / "clip"
    with pytest.raises(BackboneError) as failed:
        load_backbone("vitb16", device="cpu", download_root=folder)
    for words in ("no route to host", "weights=", "ViT-B-16.pt", str(folder), "backbone=tiny"):
        assert words in str(failed.value)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "failure",
    [TimeoutError("timed out"), http.client.IncompleteRead(b""), OSError(28, "No space left"), KeyboardInterrupt()],
)
def test_a_broken_download_leaves_nothing(served, tmp_path, failure):
    served["fails"] = failure
    with pytest.raises((BackboneError, KeyboardInterrupt), match=r"^$|could not be downloaded"):
        load_backbone("vitb16", device="cpu", download_root=tmp_path / "clip", progress=False)
    assert not list((tmp_path / "clip").iterdir())


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_network(served, tmp_path):
    (tmp_path / "clip").write_text("")
    with pytest.raises(WriteError, match=r"ViT-B-16\.pt cannot be written .*HANDCLIP_CACHE"):
        load_backbone("vitb16", device="cpu", download_root=tmp_path / "clip", progress=False)


def test_a_download_of_the_wrong_content_is_refused_and_removed(served, tmp_path):
    served["bytes"] = b"<html>proxy login</html>"
    with pytest.raises(BackboneError, match="SHA256"):
        load_backbone("vitb16", device="cpu", download_root=tmp_path / "clip", progress=False)
    assert not list((tmp_path / "clip").iterdir())


def test_a_damaged_file_in_the_folder_is_replaced_only_by_a_sound_one(served, tmp_path):
    file = tmp_path / "clip" / "ViT-B-16.pt"
    file.parent.mkdir()
    file.write_bytes(b"half")
    sound, served["bytes"] = served["bytes"], None
    with pytest.raises(BackboneError, match="damaged"):
        load_backbone("vitb16", device="cpu", download_root=file.parent)
    assert file.read_bytes() == b"half"
    served["bytes"] = sound
    load_backbone("vitb16", device="cpu", download_root=file.parent, progress=False)
    assert file.read_bytes() == sound


def test_numbers_that_are_drawn_until_they_are_near_0_end_whatever_the_memory_held():
    with NoRandomNumbers(zeros=True):
        kept = torch.nn.init.trunc_normal_(torch.full((4, 4), 1e9).requires_grad_(), std=0.2)
    assert not kept.any()


def test_something_else_that_is_called_clip_is_named(tmp_path, monkeypatch):
    (tmp_path / "clip.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackboneError, match=r"clip\.py stands in the place of openai-clip.*rename it"):
        clip_package.__wrapped__()
