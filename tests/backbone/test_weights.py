import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handclip_lib.backbone.fitting import build_model
from handclip_lib.backbone.load import load_backbone
from handclip_lib.backbone.naming import named
from handclip_lib.backbone.openai_clip import ClipShape, build_clip
from handclip_lib.backbone.properties import openais
from handclip_lib.backbone.weights import Weights, fingerprint, read_weights
from handclip_lib.errors import BackboneError


def _same(model: torch.nn.Module, stored: dict[str, torch.Tensor]) -> None:
    loaded = model.state_dict()
    assert loaded.keys() == stored.keys()
    for name, tensor in stored.items():
        assert loaded[name].dtype in (torch.float32, torch.int64)
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype)), name


@pytest.mark.parametrize("kind", ["jit", "state_dict", "safetensors"])
@pytest.mark.parametrize("tower", ["SMALL_VIT", "SMALL_RESNET"])
def test_every_format_loads_to_the_bit_in_float32(checkpoints, tmp_path, kind, tower):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    shape = getattr(checkpoints, tower)
    stored = checkpoints.write_checkpoint(path, shape, kind)
    assert any(tensor.dtype == torch.float16 for tensor in stored.values()) == (kind == "jit")
    model, found, _ = build_model(read_weights(path))
    assert found == shape
    _same(model, stored)


def test_the_model_computes_what_openai_clips_own_computes(checkpoints, tmp_path):
    path = tmp_path / "weights.pt"
    for shape in (checkpoints.SMALL_VIT, checkpoints.SMALL_RESNET):
        checkpoints.write_checkpoint(path, shape, seed=3)
        theirs, (ours, _, _) = checkpoints.random_clip(shape, seed=3), build_model(read_weights(path))
        images = torch.randn(2, 3, shape.resolution, shape.resolution)
        text = torch.randint(1, 40000, (2, 77))
        with torch.inference_mode():
            for expected, got in zip(theirs(images, text), ours(images, text), strict=True):
                torch.testing.assert_close(got, expected)


def _said(state, path: Path, **stated) -> Weights:
    return Weights(path, dict(state), "openai", (), openais("this test") | stated)


def test_narrow_towers_get_one_head(tmp_path):
    shape = ClipShape(16, 24, 2, 48, 8, 32, text_layers=1, context_length=20, vocab_size=100)
    state = {name: torch.randn(tensor.shape) for name, tensor in build_clip(shape).state_dict().items()}
    model, found, _ = build_model(_said(state, tmp_path / "narrow.pt"))
    assert found == shape
    assert model.visual.transformer.resblocks[0].attn.num_heads == 1
    assert model.encode_text(torch.ones(1, 20, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize("wrap", [{}, {"state_dict": None}, {"model": None, "epoch": 3}])
def test_wrappers_and_module_prefixes_are_taken_off(checkpoints, tmp_path, wrap):
    path = tmp_path / "weights.pt"
    stored = checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT)
    prefixed = {f"module.{name}": tensor for name, tensor in stored.items()}
    torch.save({key: value or prefixed for key, value in wrap.items()} or prefixed, path)
    model, _, _ = build_model(read_weights(path))
    _same(model, stored)


def test_a_model_does_not_change_with_its_file(checkpoints, tmp_path):
    path = tmp_path / "weights.safetensors"
    stored = checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT, "safetensors")
    model, _, _ = build_model(read_weights(path))
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    _same(model, stored)


class _Code:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def _damage(path: Path, fault: str, checkpoints) -> None:
    if fault == "folder":
        path.mkdir()
    elif fault in ("cut jit", "cut state_dict", "rotten jit"):
        checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT, fault.split()[1])
        whole = bytearray(path.read_bytes())
        if fault == "rotten jit":
            whole[10_000:20_000] = b"\xff" * 10_000
        path.write_bytes(whole if fault == "rotten jit" else whole[: len(whole) // 2])
    elif fault == "pickle with code":
        path.write_bytes(pickle.dumps(_Code()))
    elif fault == "saved with code":
        torch.save({"state_dict": {}, "extra": _Code()}, path)
    elif fault == "foreign zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "no weights")
    elif fault == "list":
        torch.save([torch.zeros(3)], path)
    elif fault != "absent":
        contents = {
            "empty": b"", "web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "noise": np.random.default_rng(0).bytes(5000),
        }  # fmt: skip
        path.write_bytes(contents[fault])


FAULTS = {
    "absent": "no weights at", "folder": "a folder with 0 files", "empty": "is empty", "web page": "web page",
    "lfs": "git lfs pull", "noise": "damaged or no weights", "cut jit": "cut short", "cut state_dict": "cut short",
    "rotten jit": "damaged|no CLIP", "pickle with code": "could run code|damaged or no weights",
    "saved with code": "could run code", "foreign zip": "damaged or no weights", "list": "holds a list",
}  # fmt: skip


@pytest.mark.parametrize(("fault", "says"), FAULTS.items())
def test_a_bad_file_is_refused_and_nothing_in_it_runs(checkpoints, tmp_path, monkeypatch, fault, says):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    _damage(path, fault, checkpoints)
    with pytest.raises(BackboneError, match=says) as failed:
        load_backbone("vitb16", weights=path, device="cpu")
    assert str(path) in str(failed.value)
    assert not Path("executed").exists()


def test_a_cut_safetensors_file_is_refused(checkpoints, tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT, "safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BackboneError, match="damaged"):
        read_weights(path)


def _without(prefix):
    return lambda state: {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("visual."), "no image encoder"),
        (_without("token_embedding"), "half a text encoder"),
        (_without("visual.conv1"), r"lacks visual\.conv1\.weight"),
        (_without("transformer.resblocks"), r"lacks transformer\.resblocks"),
        (_without("ln_final"), r"2 missing: ln_final\.weight, ln_final\.bias"),
        (lambda state: state | {"visual.head.weight": torch.zeros(2)}, r"1 unknown: visual\.head\.weight"),
        (
            lambda state: state | {"visual.ln_post.bias": torch.zeros(7)},
            r"visual\.ln_post\.bias is \(7,\) where \(64,\) is needed",
        ),
        (lambda state: state | {"visual.positional_embedding": torch.zeros(8, 64)}, "not square: 7 cells"),
        (lambda state: state | {"positional_embedding": torch.zeros(3)}, "sizes that make no CLIP"),
        (lambda state: {"vision_model.x": torch.zeros(1)}, "no image encoder of a CLIP.*vision_model.x"),
    ],
)
def test_tensors_that_make_no_clip_are_named(checkpoints, tmp_path, change, says):
    path = tmp_path / "weights.pt"
    state = change(checkpoints.random_clip(checkpoints.SMALL_VIT).state_dict())
    with pytest.raises(BackboneError, match=says):
        build_model(replace(_said({}, path), state=named(state, path).state))


def test_the_fingerprint_follows_content_only(checkpoints, tmp_path):
    one, again, other = (checkpoints.random_clip(checkpoints.SMALL_VIT, seed) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(again) != fingerprint(other)
    assert len(fingerprint(one)) == 16
    with torch.no_grad():
        again.visual.proj[3, 3] += 1e-3
    assert fingerprint(one) != fingerprint(again)
