import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from handclip_lib.backbone.convert import convert, describe
from handclip_lib.backbone.load import load_backbone
from handclip_lib.backbone.properties import Given
from handclip_lib.cli import main
from handclip_lib.errors import BackboneError
from handclip_lib.models.trained import save_clip

TEXTS = ["A photo of a left hand.", "palm"]


def embedded(backbone) -> list[np.ndarray]:
    side = backbone.resolution
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    return [backbone.encode_image(images), backbone.encode_text(TEXTS)]


@pytest.fixture(params=["SMALL_VIT", "SMALL_RESNET"])
def file(request, checkpoints, tmp_path):
    checkpoints.write_checkpoint(tmp_path / "mine.pt", getattr(checkpoints, request.param), config=False)
    return tmp_path / "mine.pt"


@pytest.mark.parametrize("to", ["open_clip", "huggingface", "openai"])
def test_what_is_converted_comes_back_as_it_was(file, tmp_path, to):
    backbone = load_backbone(str(file), device="cpu", given=Given("quick_gelu", _heads(file), ""))
    if to == "huggingface" and not hasattr(backbone.model.visual, "transformer"):
        with pytest.raises(BackboneError, match=r"transformers has ViTs of square images alone.*--to open_clip"):
            convert(str(file), tmp_path / "out", to, Given("quick_gelu"))
        return
    out = convert(str(file), tmp_path / ("out.pt" if to == "openai" else "out"), to, Given("quick_gelu", _heads(file)))
    again = load_backbone(
        str(out), device="cpu", given=Given("quick_gelu", _heads(file)) if to == "openai" else Given()
    )
    assert (again.fingerprint, again.properties) == (backbone.fingerprint, backbone.properties)
    for found, wanted in zip(embedded(again), embedded(backbone), strict=True):
        np.testing.assert_array_equal(found, wanted)


def _heads(file) -> int:
    state = torch.load(file, weights_only=True)
    return 1 if "visual.proj" in state else 0


def test_openai_clip_takes_no_gelu(checkpoints, tmp_path):
    checkpoints.write_checkpoint(tmp_path / "g.pt", checkpoints.SMALL_VIT, config=False)
    with pytest.raises(BackboneError, match=r"openai-clip has QuickGELU.*--to open_clip"):
        convert(str(tmp_path / "g.pt"), tmp_path / "o.pt", "openai", Given("gelu", 1))


def test_open_clip_opens_what_is_written_and_embeds_the_same(checkpoints, tmp_path):
    library = pytest.importorskip("open_clip")
    checkpoints.write_checkpoint(tmp_path / "g.pt", checkpoints.SMALL_VIT, config=False)
    given = Given("gelu", 2, "half")
    convert(str(tmp_path / "g.pt"), tmp_path / "out", "open_clip", given)
    model, _, preprocess = library.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    assert list(preprocess.transforms[-1].mean) == [0.5, 0.5, 0.5]
    backbone = load_backbone(str(tmp_path / "g.pt"), device="cpu", given=given)
    with torch.inference_mode():
        theirs = model.eval().encode_text(backbone.tokenize(TEXTS)).numpy()
    np.testing.assert_allclose(backbone.encode_text(TEXTS), theirs, rtol=1e-4, atol=1e-5)


def test_transformers_opens_what_is_written_and_embeds_the_same(checkpoints, tmp_path):
    library = pytest.importorskip("transformers")
    checkpoints.write_checkpoint(tmp_path / "g.pt", checkpoints.SMALL_VIT, config=False)
    convert(str(tmp_path / "g.pt"), tmp_path / "out", "huggingface", Given("gelu", 2))
    model = library.CLIPModel.from_pretrained(tmp_path / "out").eval()
    backbone = load_backbone(str(tmp_path / "g.pt"), device="cpu", given=Given("gelu", 2))
    with torch.inference_mode():
        theirs = model.text_projection(model.text_model(backbone.tokenize(TEXTS)).pooler_output).numpy()
    np.testing.assert_allclose(backbone.encode_text(TEXTS), theirs, rtol=1e-4, atol=1e-5)


def test_the_command_says_what_a_file_is_and_converts_it(checkpoints, tmp_path, capsys):
    file = tmp_path / "b32.pt"
    checkpoints.write_checkpoint(file, replace(checkpoints.SMALL_VIT, vision_width=384), config=False)
    assert main(["weights", str(file)]) == 2
    assert "-p activation gelu, or -p activation quick_gelu" in capsys.readouterr().err
    assert main(["weights", str(file), "-p", "activation", "gelu"]) == 0
    said = capsys.readouterr().out
    for line in ("gelu (parameter)", "6 (width / 64", "notebooks 02, 04", "MB in float32", "another)"):
        assert line in said
    assert (
        main(["weights", "convert", str(file), str(tmp_path / "out"), "--to", "open_clip", "-p", "activation", "gelu"])
        == 0
    )
    assert (
        json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]["width"] == 384
    )
    assert "gelu (the file's own header)" in describe(str(tmp_path / "out"))
    assert main(["weights", "convert", str(file)]) == 2


def test_weights_without_clips_texts_are_told_as_such(checkpoints, tmp_path):
    """An image tower alone, and a CLIP with another tokenizer's vocabulary."""
    checkpoints.write_checkpoint(tmp_path / "other.pt", replace(checkpoints.SMALL_VIT, vocab_size=1000))
    alone = checkpoints.write_checkpoint(tmp_path / "alone.pt", checkpoints.SMALL_VIT)
    torch.save({name: value for name, value in alone.items() if name.startswith("visual.")}, tmp_path / "alone.pt")
    told = {file: describe(str(tmp_path / file)) for file in ("other.pt", "alone.pt")}
    assert "02, 04  no: prompts need a text tower with CLIP's tokens, and its own has 1,000 tokens" in told["other.pt"]
    assert "02, 04  no: prompts need a text tower with CLIP's tokens, and it has no text tower" in told["alone.pt"]
    assert all("05, 03  yes, by the fast path" in said for said in told.values())


@pytest.fixture(params=[pytest.param("SMALL_VIT", marks=pytest.mark.slow), "SMALL_RESNET"])
def tall(request, checkpoints, tmp_path):
    """A GELU ViT with a normalisation of its own, and a ResNet, both of images twice as high as wide."""
    vit = request.param == "SMALL_VIT"
    shape = replace(getattr(checkpoints, request.param), vision_layers=1 if vit else (1, 1, 1, 1))
    checkpoints.write_checkpoint(tmp_path / "b.pt", shape, config=False)
    given = Given("gelu", 2, "half") if vit else Given("quick_gelu")
    size = (64, 32) if vit else (128, 64)
    return save_clip(load_backbone("tiny", tmp_path / "b.pt", "cpu", None, size, given), tmp_path / "best.safetensors")


def test_onnx_runtime_embeds_photographs_as_we_do(tall, tmp_path, monkeypatch):
    """Of what a training leaves: no parameter says anything more, and the number of photographs is free.

    The ResNet stands for a tower that is too large for one file: its weights lie beside it.
    """
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    large = not hasattr(tall.model.visual, "transformer")
    if large:
        monkeypatch.setattr("handclip_lib.backbone.convert.LARGEST_ONNX", 0)
    folder = convert(str(tmp_path / "best.safetensors"), tmp_path / "out", "onnx")
    files = ["image.onnx", "image.onnx.data"] if large else ["image.onnx"]
    assert sorted(file.name for file in folder.iterdir()) == files
    session = runtime.InferenceSession(folder / "image.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 3):
        pixels = np.random.default_rng(n).integers(0, 256, (n, *tall.resolution, 3), np.uint8)
        (found,) = session.run(["embedding"], {"pixels": pixels})
        wanted = tall.encode_image(pixels)
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)
    facts = {entry.key: entry.value for entry in onnx.load(folder / "image.onnx").metadata_props}
    assert facts["fingerprint"] == tall.fingerprint
    assert json.loads(facts["properties"])["interpolation"] == "bicubic"


def test_onnx_without_its_libraries_names_the_extra(checkpoints, tmp_path, monkeypatch, capsys):
    checkpoints.write_checkpoint(tmp_path / "b.pt", checkpoints.SMALL_VIT)
    monkeypatch.setattr("handclip_lib.backbone.convert.ONNX_NEEDS", ("onnx", "no_such_library"))
    assert main(["weights", "convert", str(tmp_path / "b.pt"), str(tmp_path / "out"), "--to", "onnx"]) == 2
    assert "--to onnx needs no_such_library: pip install 'handclip[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
