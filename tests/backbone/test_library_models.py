"""The successors of CLIP embed as their own libraries' modules do: small models of the same classes, made here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from handclip_lib.backbone.convert import convert, describe
from handclip_lib.backbone.load import Backbone, check_weights, load_backbone
from handclip_lib.backbone.properties import Given
from handclip_lib.backbone.text_tower import LibraryText, prompt_text
from handclip_lib.errors import BackboneError, ConfigError
from handclip_lib.models.drift import layer_drift
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import BEST, save_clip
from handclip_lib.parameters.parts import ImageTraining, ReidHead
from handclip_lib.training.image import fit_image

for library in ("open_clip", "timm", "transformers"):
    pytest.importorskip(library)
_spec = importlib.util.spec_from_file_location("library_models", Path(__file__).parents[1] / "library_models.py")
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)
TEXTS = ["A photo of a left hand.", "palm"]
HALF = Given(mean_std="half")


def pixels(height: int = 32, width: int = 32, n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def normalised(images: np.ndarray, by) -> torch.Tensor:
    return torch.tensor((images / 255.0 - by[0]) / by[1]).permute(0, 3, 1, 2).float()


def alike(found: np.ndarray, wanted: torch.Tensor) -> None:
    expected = wanted.detach().numpy()
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def timms(name: str, folder: Path, **given) -> tuple:
    """A small model of timm, and its weights in a file."""
    model = small.randomised(small.of_timm().create_model(name, **given))
    return model, small.written(model, folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def open_clips(tmp_path_factory):
    """Makes a small model of open_clip, and its weights in a file."""
    folder = tmp_path_factory.mktemp("open_clip")
    library = small.of_open_clip(folder)

    def make(name: str) -> tuple:
        model = small.randomised(library.create_model(name))
        return model, small.written(model, folder / f"{name}.safetensors")

    return make


@pytest.mark.parametrize("name", small.OF_TIMM)
def test_timms_towers_embed_as_timm_does_by_timms_own_normalisation(tmp_path, name):
    model, file = timms(name, tmp_path)
    backbone = load_backbone(f"timm:{name}", file, "cpu")
    images = pixels()
    alike(backbone.encode_image(images), model(normalised(images, small.OF_TIMM[name])))
    lines = backbone.properties.lines()
    assert f"timm's {name}.own" in lines["mean"]
    assert lines["interpolation"] == f"bilinear (timm's {name}.own)"
    assert not backbone.reads_text
    with pytest.raises(BackboneError, match="timm has image towers alone"):
        check_weights(f"timm:{name}", str(file), texts=True)


@pytest.mark.parametrize("name", small.OF_OPEN_CLIP)
def test_open_clips_models_embed_images_and_texts_as_open_clip_does(open_clips, name):
    import open_clip

    model, file = open_clips(name)
    backbone = load_backbone(f"open_clip:{name}", file, "cpu", given=HALF)
    images = pixels()
    alike(backbone.encode_image(images), model.encode_image(normalised(images, small.HALF)))
    if name == "small-SigLIP2":
        with pytest.raises(
            BackboneError, match=r"tokens of nobody/siglip.*last, mostly padded, place, without a causal"
        ):
            backbone.encode_text(TEXTS)
        return
    alike(backbone.encode_text(TEXTS), model.encode_text(open_clip.tokenize(TEXTS, model.context_length)))


@pytest.mark.parametrize(
    ("name", "fast"), [("small-EVA02", True), ("small-PE-Core", True), ("small-MobileCLIP2", False)]
)
def test_learnt_tokens_enter_open_clips_text_towers_and_their_gradient_comes_back(open_clips, name, fast):
    model, file = open_clips(name)
    backbone = load_backbone(f"open_clip:{name}", file, "cpu", given=HALF)
    tokens, slots, rows = backbone.tokenize(TEXTS), torch.tensor([1, 1]), torch.tensor([1, 0])
    text = prompt_text(backbone.model, tokens, slots, 1)
    assert isinstance(text, LibraryText)
    assert text.is_fast == fast
    words = model.text.token_embedding.weight[tokens[rows, 1:2]].detach()
    alike(text.encode(rows, words).detach().numpy(), model.encode_text(tokens[rows]))
    learnt = [torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    features = [text.encode(rows, learnt[0]), text.encode_plainly(rows, learnt[1])]
    alike(features[0].detach().numpy(), features[1])
    for feature in features:
        feature.square().sum().backward()
    alike(learnt[0].grad.numpy(), learnt[1].grad)
    assert all(parameter.grad is None for parameter in backbone.model.text.parameters())


@pytest.mark.parametrize("kind", small.OF_HUGGING_FACE)
def test_folders_of_transformers_embed_as_transformers_does(tmp_path, kind):
    model = small.hugging_face_folder(kind, tmp_path)
    backbone = load_backbone(f"hf:{tmp_path}", None, "cpu")
    images = pixels()
    inputs = {"pixel_values": normalised(images, small.HALF)}
    if kind == "siglip2":
        from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

        patches = [convert_image_to_patches(one.numpy(), 16) for one in inputs["pixel_values"]]
        inputs = {"pixel_values": torch.tensor(np.stack(patches)), "pixel_attention_mask": torch.ones(3, 4),
                  "spatial_shapes": torch.tensor([[2, 2]] * 3)}  # fmt: skip
    features = model.get_image_features if hasattr(model, "get_image_features") else model
    alike(backbone.encode_image(images), features(**inputs).pooler_output)
    assert backbone.properties.lines()["mean"] == "0.5, 0.5, 0.5 (preprocessor_config.json)"
    assert check_weights(f"hf:{tmp_path}", "")[0]


def test_images_of_another_size_are_the_librarys_own_interpolation_or_refused(tmp_path):
    model, file = timms("small_dinov2", tmp_path)
    images = pixels(64, 48)
    backbone = load_backbone("timm:small_dinov2", file, "cpu", input_size=(64, 48))
    model.set_input_size((64, 48))
    alike(backbone.encode_image(images), model(normalised(images, small.IMAGENET)))
    (folder := tmp_path / "siglip").mkdir()
    model = small.hugging_face_folder("siglip", folder)
    backbone = load_backbone(f"hf:{folder}", None, "cpu", input_size=(64, 48))
    wanted = model.get_image_features(normalised(images, small.HALF), interpolate_pos_encoding=True).pooler_output
    alike(backbone.encode_image(images), wanted)
    for name, weights in (("timm:small_dinov2", str(file)), (f"hf:{folder}", "")):
        with pytest.raises(BackboneError, match=r"input_size=40x48.*multiples of 16"):
            check_weights(name, weights, (40, 48))


def trained(backbone: Backbone, folder: Path, last: int, stops: tuple[bool, ...]) -> ReidEncoder:
    """A fine-tune of two epochs, stopped after the first and gone on with, or in one go."""
    images, labels = pixels(n=8), np.repeat(np.arange(4), 2)
    batch = {"n_identities": 4, "n_images": 2, "views": 1, "interpolation": 1.0, "whitening": 0.0}
    options = ImageTraining(epochs=2, learning_rate=1e-3, select_by="loss", **batch)
    for stop in stops:
        encoder = ReidEncoder(backbone.copy(), 4, ReidHead(unfreeze_blocks=last))
        fit_image(encoder, images, labels, options, folder=folder, stop=lambda stop=stop: stop, progress=False)
    return encoder


@pytest.mark.parametrize(("kind", "last"), [("timm", 1), ("open_clip", 1), ("hf", -1), ("hf", 0)])
def test_a_fine_tune_moves_what_learns_goes_on_and_opens_again(tmp_path, open_clips, kind, last):
    if kind == "timm":
        name, file = "timm:small_dinov2", timms("small_dinov2", tmp_path)[1]
    elif kind == "open_clip":
        name, file = "open_clip:small-MobileCLIP2", open_clips("small-MobileCLIP2")[1]
    else:
        small.hugging_face_folder("siglip", tmp_path / "siglip")
        name, file = f"hf:{tmp_path / 'siglip'}", None
    backbone = load_backbone(name, file, "cpu", given=HALF)
    (tmp_path / "whole").mkdir()
    (tmp_path / "run").mkdir()
    before = {key: value.clone() for key, value in backbone.model.visual.state_dict().items()}
    encoder = trained(backbone, tmp_path / "run", last, (True, False))
    again = trained(backbone, tmp_path / "whole", last, (False,))
    now = encoder.visual.state_dict()
    assert all(torch.equal(value, again.visual.state_dict()[key]) for key, value in now.items())
    assert all(torch.equal(value, before[key]) for key, value in backbone.model.visual.state_dict().items())
    moved = {key for key, value in now.items() if not torch.equal(value, before[key])}
    assert moved
    learns = {key for key, value in encoder.visual.named_parameters() if value.requires_grad}
    assert (learns < set(dict(encoder.visual.named_parameters()))) == (last >= 0)
    assert moved <= learns | {key for key, _ in encoder.visual.named_buffers()}
    tuned = save_clip(_with(backbone, encoder), tmp_path / BEST)
    loaded = load_backbone(name, tmp_path / BEST, "cpu")
    assert loaded.fingerprint == tuned.fingerprint != backbone.fingerprint
    assert np.array_equal(loaded.encode_image(pixels()), tuned.encode_image(pixels()))
    drift = layer_drift(encoder.visual, backbone.model.visual).set_index("part")["drift"]
    assert (drift["input"] > 0) == (last == -1)
    with pytest.raises(BackboneError, match=f"another library's model: name it, -p backbone {kind}:"):
        load_backbone("tiny", tmp_path / BEST, "cpu")


def _with(backbone: Backbone, encoder: ReidEncoder) -> Backbone:
    copy = backbone.copy()
    copy.model.visual.load_state_dict(encoder.visual.state_dict())
    return copy


def test_what_was_trained_opens_in_its_own_library(tmp_path):
    _, file = timms("small_dinov2", tmp_path)
    save_clip(load_backbone("timm:small_dinov2", file, "cpu", input_size=(64, 48)), tmp_path / BEST)
    theirs = small.of_timm().create_model("small_dinov2", img_size=(64, 48), checkpoint_path=str(tmp_path / BEST))
    images = pixels(64, 48)
    again = load_backbone("timm:small_dinov2", tmp_path / BEST, "cpu")
    assert again.resolution == (64, 48)
    alike(again.encode_image(images), theirs.eval()(normalised(images, small.IMAGENET)))
    (folder := tmp_path / "dinov2").mkdir()
    small.hugging_face_folder("dinov2", folder)
    with pytest.raises(BackboneError, match=r"has the names of hf:FOLDER \(dinov2, \w+\) already"):
        convert(f"hf:{folder}", tmp_path / "out", "open_clip")


def test_a_librarys_name_for_a_clip_of_its_own_shape_says_its_activation_and_takes_the_fast_path(tmp_path, monkeypatch):
    import open_clip

    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 16}
    cfg = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": small.CLIPS_TEXT}
    (tmp_path / "small-CLIP.json").write_text(json.dumps(cfg))
    open_clip.add_model_config(tmp_path)
    model = small.randomised(open_clip.create_model("small-CLIP"))
    file = small.written(model, tmp_path / "laion.safetensors")
    backbone = load_backbone("open_clip:small-CLIP", file, "cpu", given=HALF)
    alike(backbone.encode_image(pixels()), model.encode_image(normalised(pixels(), small.HALF)))
    assert backbone.properties.lines()["activation"] == "gelu (open_clip small-CLIP)"
    assert hasattr(backbone.model.visual, "transformer")
    assert check_weights("open_clip:small-CLIP", str(file), given=HALF, texts=True) == (True, 64)
    with pytest.raises(BackboneError, match=r"neither open_clip:small-CLIP nor a config.*-p mean_std clip, half"):
        load_backbone("open_clip:small-CLIP", file, "cpu")


def test_a_name_that_was_published_with_two_normalisations_is_asked_for(tmp_path):
    with pytest.raises(BackboneError, match=r"several means.*0\.48.*0\.5.*-p mean_std"):
        load_backbone("open_clip:ViT-L-14", tmp_path, "cpu")


def test_folders_in_the_hubs_layout_stand_for_a_name(tmp_path, open_clips):
    model, file = open_clips("small-PE-Core")
    config = json.loads((file.parent / "small-PE-Core.json").read_text())
    (ours := tmp_path / "pe").mkdir()
    small.written(model, ours / "open_clip_model.safetensors")
    images = {"mean": small.HALF[0], "std": small.HALF[1], "interpolation": "bilinear"}
    (ours / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": images}))
    backbone = load_backbone(f"open_clip:{ours}", None, "cpu")
    alike(backbone.encode_image(pixels()), model.encode_image(normalised(pixels(), small.HALF)))
    assert backbone.properties.lines()["interpolation"] == "bilinear (open_clip_config.json)"
    assert f"-p backbone open_clip:{ours}" in _refusal(lambda: load_backbone("tiny", ours, "cpu"))
    (theirs := tmp_path / "timm").mkdir()
    model, _ = timms("small_siglip", theirs)
    cfg = {"mean": small.NONE[0], "std": small.NONE[1], "input_size": [3, 32, 32], "interpolation": "bicubic"}
    (theirs / "config.json").write_text(json.dumps({"architecture": "small_siglip", "pretrained_cfg": cfg}))
    backbone = load_backbone(f"timm:{theirs}", None, "cpu")
    alike(backbone.encode_image(pixels()), model(normalised(pixels(), small.NONE)))
    assert f"-p backbone timm:{theirs}" in _refusal(lambda: load_backbone("tiny", theirs, "cpu"))


def _refusal(action) -> str:
    with pytest.raises(BackboneError) as refused:
        action()
    return str(refused.value)


def test_each_refusal_names_the_remedy(tmp_path, monkeypatch):
    _, file = timms("small_dinov2", tmp_path)
    cases = {
        ("timm:small_dinov", str(file)): "timm has no model of this name; near are small_dinov3, small_dinov2",
        ("open_clip:ViT-B-16-SIGLIP2", str(file)): "ViT-B-16-SigLIP2",
        ("timm:small_dinov2", ""): "nothing is downloaded: -p weights FILE",
        ("timm:small_dinov2.other", str(file)): "timm knows no such weights of it",
        ("timm:small_siglip", str(file)): "are not those of timm:small_siglip",
        (f"hf:{tmp_path / 'nowhere'}", ""): "there is no folder",
        ("open_clip:coca_ViT-B-32", str(file)): "third, multimodal tower",
    }
    for (name, weights), reason in cases.items():
        assert reason in _refusal(lambda name=name, weights=weights: load_backbone(name, weights or None, "cpu")), name
    assert "-p backbone open_clip:NAME or timm:NAME" in _refusal(lambda: load_backbone("tiny", file, "cpu"))
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'handclip[timm]'" in _refusal(lambda: load_backbone("timm:small_dinov2", file, "cpu"))


def test_a_file_for_other_patches_is_refused_where_timm_would_stretch_it(tmp_path):
    model = small.randomised(small.of_timm().create_model("small_dinov2", patch_size=8))
    file = small.written(model, tmp_path / "eight.safetensors")
    assert "patch_embed.proj.weight is (32, 3, 8, 8)" in _refusal(
        lambda: load_backbone("timm:small_dinov2", file, "cpu")
    )
    model = small.randomised(small.of_timm().create_model("small_dinov2", img_size=128))
    file = small.written(model, tmp_path / "large.safetensors")
    assert "pos_embed is (1, 65, 32)" in _refusal(lambda: load_backbone("timm:small_dinov2", file, "cpu"))


def test_no_code_of_a_folder_or_file_is_run(tmp_path):
    (folder := tmp_path / "dinov2").mkdir()
    small.hugging_face_folder("dinov2", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    assert "Python code of its own" in _refusal(lambda: load_backbone(f"hf:{folder}", None, "cpu"))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": subprocess.Popen}, folder / "pytorch_model.bin")
    assert "Python objects" in _refusal(lambda: load_backbone(f"hf:{folder}", None, "cpu"))


def test_what_the_librarys_towers_do_not_do_is_refused(tmp_path):
    _, file = timms("small_dinov2", tmp_path)
    backbone = load_backbone("timm:small_dinov2", file, "cpu")
    with pytest.raises(ConfigError, match="another library's modules are left alone"):
        ReidEncoder(backbone, 4, ReidHead(recompute=True))
    with pytest.raises(ConfigError, match="after this tower's blocks comes at most a norm; give 1 to 2, or -1"):
        ReidEncoder(backbone, 4, ReidHead(unfreeze_blocks=0))
    with pytest.raises(ConfigError, match="this image tower has 2; give 0 to 2"):
        ReidEncoder(backbone, 4, ReidHead(unfreeze_blocks=3))
    told = describe(str(file), named="timm:small_dinov2")
    assert "yes, by the library's own modules" in told
    assert "no: prompts need a text tower with CLIP's tokens, and timm has image towers alone" in told


def test_a_classifier_is_left_out_and_a_clips_projection_is_kept(tmp_path):
    model, file = timms("small_siglip", tmp_path, num_classes=7)
    backbone = load_backbone("timm:small_siglip", file, "cpu")
    assert backbone.embedding_dim == 32
    assert "the classifier (head) was left out" in backbone.source
    alike(backbone.encode_image(pixels()), model.forward_head(model.forward_features(normalised(pixels(), small.HALF)),
                                                              pre_logits=True))  # fmt: skip
    _, file = timms("small_eva02_clip", tmp_path)
    assert load_backbone("timm:small_eva02_clip", file, "cpu").embedding_dim == 24
