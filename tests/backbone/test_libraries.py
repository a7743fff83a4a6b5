"""Weights of other libraries, embedded here and by the library's own modules; random, and none is downloaded."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from handclip_lib.backbone.configs import _open_clip
from handclip_lib.backbone.load import Backbone, check_weights, load_backbone
from handclip_lib.backbone.naming import named
from handclip_lib.backbone.openai_clip import ClipShape, clip_package, clip_tokenizer
from handclip_lib.backbone.properties import NORMALISATIONS, Given
from handclip_lib.backbone.text_tower import PromptText
from handclip_lib.errors import BackboneError
from handclip_lib.losses import supervised_contrastive
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import Prompts, ReidHead

TEXTS = ["A photo of a left hand.", "palm"]
VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 16}
RESNET = {"image_size": 64, "width": 16, "layers": [1, 2, 1, 1]}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Away from the values a library begins with, at which half of it would not be tested."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 and "logit" not in name:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
        elif "embedding" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)


def normalised(images: np.ndarray, by: str = "clip") -> torch.Tensor:
    mean, std = NORMALISATIONS[by]
    return torch.tensor((images / 255.0 - mean) / std).permute(0, 3, 1, 2).float()


def alike(found: np.ndarray, wanted: torch.Tensor) -> None:
    expected = wanted.detach().numpy()
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def tokens() -> torch.Tensor:
    return clip_package().tokenize(TEXTS)


def fast_text(backbone: Backbone) -> np.ndarray:
    """By the fast path of prompts, with the embeddings of two words in the place of learnt tokens."""
    ids, slots = backbone.tokenize(TEXTS), torch.tensor([1, 1])
    context = backbone.model.token_embedding.weight[ids[:, 1:2]]
    return PromptText(backbone.model, ids, slots, 1).encode(torch.arange(2), context).detach().numpy()


def open_clip_model(vision: dict, *, quick_gelu: bool, custom_text: bool = False):
    library = pytest.importorskip("open_clip")
    made = library.CustomTextCLIP if custom_text else library.CLIP
    torch.manual_seed(0)
    return randomised(made(32, vision, TEXT, quick_gelu=quick_gelu))


def open_clip_config(vision: dict, *, quick_gelu: bool, by: str = "clip", **more) -> dict:
    mean, std = NORMALISATIONS[by]
    model = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick_gelu} | more
    return {"model_cfg": model, "preprocess_cfg": {"mean": mean, "std": std, "interpolation": "bicubic"}}


@pytest.mark.parametrize(
    ("vision", "quick_gelu", "custom_text"),
    [
        (VIT, False, True), (VIT, True, False), (VIT | {"mlp_ratio": 3.25}, False, False),
        (VIT | {"image_size": (64, 32)}, True, True), (RESNET, False, False), (RESNET, True, True),
    ],
)  # fmt: skip
def test_open_clips_folder_embeds_as_open_clip_does(tmp_path, vision, quick_gelu, custom_text):
    model = open_clip_model(vision, quick_gelu=quick_gelu, custom_text=custom_text)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    by = "half" if custom_text else "clip"
    config = open_clip_config(vision, quick_gelu=quick_gelu, by=by)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    backbone = load_backbone("tiny", tmp_path, "cpu")
    height, width = vision["image_size"] if isinstance(vision["image_size"], tuple) else [vision["image_size"]] * 2
    images = pixels(height, width)
    alike(backbone.encode_image(images), model.encode_image(normalised(images, by)))
    for texts in (backbone.encode_text(TEXTS), fast_text(backbone)):
        alike(texts, model.encode_text(tokens()))
    lines = backbone.properties.lines()
    assert lines["activation"] == f"{'quick_gelu' if quick_gelu else 'gelu'} (open_clip_config.json)"
    assert lines["heads"] == f"{8 if vision is RESNET else 4} (open_clip_config.json)"


def test_a_side_that_is_interpolated_is_open_clips_own_interpolation(tmp_path):
    transform = pytest.importorskip("open_clip.model")
    square, portrait = (open_clip_model(VIT | {"image_size": s}, quick_gelu=False) for s in (64, (256, 128)))
    torch.save(square.state_dict(), tmp_path / "b.pt")
    (tmp_path / "b.json").write_text(json.dumps(open_clip_config(VIT | {"image_size": 64}, quick_gelu=False)))
    state = dict(square.state_dict())
    transform.resize_pos_embed(state, portrait, interpolation="bicubic", antialias=True)
    portrait.load_state_dict(state)
    images = pixels(256, 128)
    backbone = load_backbone("tiny", tmp_path / "b.pt", "cpu", input_size=(256, 128))
    alike(backbone.encode_image(images), portrait.encode_image(normalised(images)))


def test_laions_state_dict_is_refused_alone_and_right_with_either_remedy(tmp_path):
    """True width and heads of a ViT-B/32, one layer each: without a config nothing says that it is GELU."""
    vision = {"image_size": 64, "patch_size": 32, "width": 768, "layers": 1}
    model, file, images = open_clip_model(vision, quick_gelu=False), tmp_path / "laion_b32.pt", pixels(64, 64)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, file)
    with pytest.raises(
        BackboneError, match=r"GELU or QuickGELU.*-p activation gelu.*open_clip_config\.json"
    ) as refused:
        load_backbone("tiny", file, "cpu")
    assert str(file) in str(refused.value)
    given = load_backbone("tiny", file, "cpu", given=Given("gelu"))
    assert given.properties.lines()["activation"] == "gelu (parameter)"
    assert "nothing beside the file says another" in given.properties.lines()["mean"]
    wrong = load_backbone("tiny", file, "cpu", given=Given("quick_gelu"))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(vision, quick_gelu=False)))
    beside = load_backbone("tiny", file, "cpu")
    for backbone in (given, beside):
        alike(backbone.encode_image(images), model.encode_image(normalised(images)))
        alike(backbone.encode_text(TEXTS), model.encode_text(tokens()))
    assert given.fingerprint == beside.fingerprint != wrong.fingerprint, "cached features of one are none of the other"
    assert np.abs(wrong.encode_image(images) - beside.encode_image(images)).max() > 1e-3


def hugging_face(kind: str, act: str = "gelu", heads: int = 2):
    library = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "hidden_act": act}
    vision = sizes | {"num_attention_heads": heads, "image_size": 32, "patch_size": 16, "projection_dim": 32}
    torch.manual_seed(0)
    if kind == "CLIPModel":
        text = sizes | {"num_attention_heads": 4}
        config = library.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
        return randomised(library.CLIPModel(config))
    return randomised(getattr(library, kind)(library.CLIPVisionConfig(**vision)))


@pytest.mark.parametrize(
    ("kind", "act", "shard"),
    [
        ("CLIPModel", "gelu", "100KB"), ("CLIPModel", "quick_gelu", "50GB"), ("CLIPVisionModel", "gelu", "50GB"),
        ("CLIPVisionModelWithProjection", "quick_gelu", "100KB"),
    ],
)  # fmt: skip
def test_what_save_pretrained_writes_embeds_as_transformers_does(tmp_path, kind, act, shard):
    model = hugging_face(kind, act)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    from transformers import CLIPImageProcessor

    CLIPImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() == (shard != "50GB")
    images = pixels(32, 32)
    for place in (tmp_path, index if index.exists() else tmp_path / "model.safetensors"):
        backbone = load_backbone("tiny", place, "cpu")
        with torch.inference_mode():
            if kind == "CLIPModel":
                seen = model.visual_projection(model.vision_model(normalised(images, "half")).pooler_output)
                read = model.text_projection(model.text_model(tokens().long()).pooler_output)
                alike(backbone.encode_text(TEXTS), read)
                alike(fast_text(backbone), read)
            else:
                out = model(normalised(images, "half"))
                seen = out.pooler_output if kind == "CLIPVisionModel" else out.image_embeds
                assert not backbone.reads_text
        alike(backbone.encode_image(images), seen)
    assert backbone.properties.sources["mean"] == "preprocessor_config.json"


def test_a_shard_that_is_not_there_and_a_damaged_index_are_refused(tmp_path):
    hugging_face("CLIPModel").save_pretrained(tmp_path, max_shard_size="100KB")
    next(tmp_path.glob("model-00001*")).unlink()
    with pytest.raises(BackboneError, match=r"1 of its .* files are not beside it: model-00001"):
        load_backbone("tiny", tmp_path, "cpu")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    with pytest.raises(BackboneError, match="not beside it"):
        load_backbone("tiny", tmp_path, "cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip'"),
        ({"quantization_config": {"bits": 8}}, "quantized"),
        ({"vision_config": {"hidden_act": "swish"}}, "activations"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"text_config": {"eos_token_id": 1}}, "token 1"),
    ],
)
def test_a_config_that_describes_another_model_is_refused(checkpoints, tmp_path, change, says):
    checkpoints.write_checkpoint(tmp_path / "m.pt", checkpoints.SMALL_VIT, config=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"} | change))
    with pytest.raises(BackboneError, match=says) as refused:
        load_backbone("tiny", tmp_path / "m.pt", "cpu")
    assert "BackboneError" not in str(refused.value), "the reason itself, not its repr in another"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vit_base_patch16_clip_224", {"img_size": 32}),
        ("vit_base_patch16_clip_quickgelu_224", {"img_size": (64, 32)}),
        ("resnet50_clip", {}),
    ],
)
@pytest.mark.parametrize("classes", [32, 10])
def test_timms_image_towers_embed_as_timm_does(tmp_path, name, sizes, classes):
    timm = pytest.importorskip("timm")
    vit = name.startswith("vit")
    sizes = sizes | ({"embed_dim": 64, "depth": 2, "num_heads": 4} if vit else {})
    if not vit and classes == 10:
        pytest.skip("a ResNet's head is its pooling")
    torch.manual_seed(0)
    model = randomised(timm.create_model(name, num_classes=classes, **sizes))
    if classes == 32 and vit:
        torch.nn.init.zeros_(model.head.bias)  # as of a projection; of a classifier it is none
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    height, width = (
        (sizes["img_size"],) * 2 if vit and isinstance(sizes["img_size"], int) else sizes.get("img_size", (224, 224))
    )
    cfg = {"input_size": [3, height, width], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = {
        "architecture": name,
        "pretrained_cfg": cfg | {"interpolation": "bicubic"},
        "model_args": {"num_heads": 4},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = load_backbone("tiny", tmp_path, "cpu")
    images = pixels(height, width)
    with torch.inference_mode():
        given = normalised(images, "imagenet")
        wanted = model(given) if classes == 32 else model.forward_head(model.forward_features(given), pre_logits=True)
    alike(backbone.encode_image(images), wanted)
    assert ("classifier of 10 classes" in backbone.source) == (classes == 10)


def test_a_gelu_towers_gradients_are_open_clips(tmp_path):
    from handclip_lib.backbone.image_tower import ALL, frozen_part, learning_part

    model = open_clip_model(VIT, quick_gelu=False)
    torch.save(model.state_dict(), tmp_path / "b.pt")
    (tmp_path / "b.json").write_text(json.dumps(open_clip_config(VIT, quick_gelu=False)))
    backbone, images = load_backbone("tiny", tmp_path / "b.pt", "cpu"), normalised(pixels(32, 32))
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    (model.encode_image(images) * weight).sum().backward()
    visual = backbone.model.visual.requires_grad_()
    (learning_part(visual, frozen_part(visual, images, ALL), ALL) * weight).sum().backward()
    theirs = {name: p.grad for name, p in model.visual.named_parameters()}
    for name, parameter in visual.named_parameters():
        assert (parameter.grad - theirs[name]).norm() <= 2e-5 * theirs[name].norm() + 1e-5, name


def saved(path: Path, state: dict, checkpoints, shape: ClipShape) -> Path:
    torch.save(state, path)
    checkpoints.write_config(path.with_suffix(".json"), shape)
    return path


def test_wrappers_of_every_kind_are_taken_off_and_said(checkpoints, tmp_path):
    shape = checkpoints.SMALL_VIT
    state = checkpoints.random_clip(shape).state_dict()
    averaged = {name: value * 0.5 for name, value in state.items()}

    def under(prefix: str, of: dict = state) -> dict:
        return {f"{prefix}{name}": value for name, value in of.items()}

    plain = load_backbone("tiny", saved(tmp_path / "plain.pt", state, checkpoints, shape), "cpu").fingerprint
    half = load_backbone("tiny", saved(tmp_path / "half.pt", averaged, checkpoints, shape), "cpu").fingerprint
    extras = {"logit_bias": torch.zeros(1), "attn_mask": torch.zeros(77, 77), "logit_scale": state["logit_scale"][None]}
    cases = {
        "compiled": (under("_orig_mod.module."), plain, ""),
        "parallel and compiled": (under("module._orig_mod."), plain, ""),
        "deep": ({"model": under("module.")}, plain, ""),
        "in the middle": ({n.replace("visual.", "visual._orig_mod."): v for n, v in state.items()}, plain, ""),
        "Lightning's": (
            {"state_dict": under("model.") | {"loss.weight": torch.ones(1)}}, plain, "1 tensors outside model",
        ),
        "extras": (state | extras, plain, ""),
        "a head beside it": (state | {"classifier.weight": torch.ones(3)}, plain, "1 tensors beside the CLIP"),
        "CLIP-FH's": ({"clip_state_dict": state, "classifier": {"weight": torch.ones(3)}, "epoch": 3}, plain, ""),
        "both": ({"state_dict": state, "state_dict_ema": averaged}, half, "averaged weights, under state_dict_ema"),
        "both, by prefix": (under("net.") | under("net_ema.", averaged), half, "averaged weights, whose names begin"),
        "AveragedModel": (under("module.") | {"n_averaged": torch.tensor(3)}, plain, "AveragedModel"),
    }  # fmt: skip
    for number, (case, (content, wanted, said)) in enumerate(cases.items()):
        found = load_backbone("tiny", saved(tmp_path / f"{number}.pt", content, checkpoints, shape), "cpu")
        assert found.fingerprint == wanted, case
        assert said in found.source, case
    without = {name: value for name, value in state.items() if name != "logit_scale"}
    assert load_backbone("tiny", saved(tmp_path / "w.pt", without, checkpoints, shape), "cpu").reads_text
    with pytest.raises(BackboneError, match=r"several CLIPs \(a\., b\.\)"):
        load_backbone("tiny", saved(tmp_path / "two.pt", under("a.") | under("b."), checkpoints, shape), "cpu")


def test_clip_reids_file_is_its_image_tower_of_its_own_size(checkpoints, tmp_path):
    """256×128 at a patch of 16 has 16×8 places, which no tensor and no file beside it says."""
    shape, file = replace(checkpoints.SMALL_VIT, resolution=256), tmp_path / "ViT-B-16_60.pth"
    visual = checkpoints.random_clip(shape).visual
    visual.positional_embedding = torch.nn.Parameter(visual.positional_embedding[:129].clone())
    state = {f"image_encoder.{name}": value for name, value in visual.state_dict().items()}
    extra = ("classifier.weight", "bottleneck_proj.bias", "prompt_learner.cls_ctx", "text_encoder.ln_final.weight")
    torch.save(state | {name: torch.ones(3) for name in extra}, file)
    given = Given("quick_gelu", 1)
    with pytest.raises(BackboneError, match="not square: 128 cells"):
        load_backbone("tiny", file, "cpu", given=given)
    with pytest.raises(BackboneError, match="CLIP-ReID's own code has QuickGELU"):
        load_backbone("tiny", file, "cpu", input_size=(256, 128), given=Given("", 1))
    backbone, images = load_backbone("tiny", file, "cpu", input_size=(256, 128), given=given), pixels(256, 128)
    alike(backbone.encode_image(images), visual(normalised(images)))
    assert "without its 4 other tensors" in backbone.source
    with pytest.raises(BackboneError, match="has no text tower; it can embed images"):
        backbone.encode_text(TEXTS)


@pytest.mark.parametrize("width", [320, 1280])
def test_heads_that_differ_among_published_towers_are_asked_for(tmp_path, width):
    shape = ClipShape(32, 32, 1, width, 16, 64, text_layers=1)
    from handclip_lib.backbone.openai_clip import build_clip

    state = {name: torch.randn(value.shape) for name, value in build_clip(shape).state_dict().items()}
    torch.save(state, tmp_path / "h.pt")
    with pytest.raises(BackboneError, match=f"heads its image tower of width {width} has.*-p heads N"):
        load_backbone("tiny", tmp_path / "h.pt", "cpu", given=Given("gelu"))
    backbone = load_backbone("tiny", tmp_path / "h.pt", "cpu", given=Given("gelu", 16))
    assert backbone.model.visual.transformer.resblocks[0].attn.num_heads == 16
    with pytest.raises(BackboneError, match=f"do not divide a width of {width}"):
        load_backbone("tiny", tmp_path / "h.pt", "cpu", given=Given("gelu", 7))


def test_an_archive_says_its_activation_by_its_classes_and_openais_by_its_checksum(checkpoints, tmp_path, monkeypatch):
    file = tmp_path / "a.pt"
    checkpoints.write_checkpoint(file, replace(checkpoints.SMALL_VIT, vision_width=384), "jit", config=False)
    assert load_backbone("tiny", file, "cpu").properties.sources["activation"] == "the classes in the archive"
    monkeypatch.setattr("handclip_lib.backbone.weights.published_as", lambda _: "ViT-B/32")
    assert "OpenAI's ViT-B/32, by its SHA-256" in load_backbone("tiny", file, "cpu").properties.lines()["mean"]


def test_what_is_trained_from_weights_keeps_what_was_said_of_them(checkpoints, tmp_path):
    from handclip_lib.models.trained import save_clip

    checkpoints.write_checkpoint(tmp_path / "b.pt", checkpoints.SMALL_VIT, config=False)
    loaded = load_backbone("tiny", tmp_path / "b.pt", "cpu", given=Given("gelu", 2, "half"))
    saved = save_clip(loaded, tmp_path / "best.safetensors")
    again = load_backbone("tiny", tmp_path / "best.safetensors", "cpu")
    assert (again.properties, again.fingerprint) == (loaded.properties, saved.fingerprint)
    np.testing.assert_array_equal(again.encode_image(pixels(32, 32)), loaded.encode_image(pixels(32, 32)))
    assert again.properties.sources["heads"] == "the file's own header"


# --- each family of docs/weights.md, in each notebook: on tiny shapes, beside the library's own modules


def made(family: str, tmp_path: Path, checkpoints):
    """A library's model in training mode; how it sees, reads and embeds tokens; and the backbone of its file."""
    kind, _, more = family.partition(" ")
    if kind in ("openai", "clip_fh", "clip_reid"):
        shape = checkpoints.SMALL_RESNET if more == "rn50" else checkpoints.SMALL_VIT
        model = checkpoints.random_clip(shape).float()
        state = model.state_dict()
        if kind == "clip_fh":
            state = {"clip_state_dict": state, "classifier": {"weight": torch.ones(3)}, "epoch": 3}
        if kind == "clip_reid":
            state = {f"image_encoder.{name}": value for name, value in model.visual.state_dict().items()}
        file = saved(tmp_path / "b.pt", state, checkpoints, shape)
    elif kind == "open_clip":
        vision, quick = (RESNET if more == "rn50" else VIT), more == "quickgelu"
        model, file = open_clip_model(vision, quick_gelu=quick), tmp_path / "b.pt"
        torch.save(model.state_dict(), file)
        file.with_suffix(".json").write_text(json.dumps(open_clip_config(vision, quick_gelu=quick)))
    elif kind == "hugging_face":
        model, file = hugging_face("CLIPVisionModelWithProjection" if more else "CLIPModel"), tmp_path
        model.save_pretrained(file)
    else:
        timm = pytest.importorskip("timm")
        sizes = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 4}
        model, file = randomised(timm.create_model("vit_base_patch16_clip_224", num_classes=32, **sizes)), tmp_path
        torch.nn.init.zeros_(model.head.bias)
        safetensors.torch.save_file(model.state_dict(), file / "model.safetensors")
        config = {"architecture": "vit_base_patch16_clip_224", "model_args": {"num_heads": 4, "img_size": 32}}
        (file / "config.json").write_text(json.dumps(config))
    see, read, words = model, None, None
    if kind not in ("timm", "hugging_face"):
        see, words = model.encode_image, model.token_embedding
        read = model.encode_text
    elif kind == "hugging_face":

        def see(images):
            out = model.vision_model(images).pooler_output if not more else model(images).image_embeds
            return out if more else model.visual_projection(out)

        if not more:
            words = model.text_model.embeddings.token_embedding

            def read(tokens):
                return model.text_projection(model.text_model(tokens).pooler_output)

    return model, see, read, words, load_backbone("tiny", file, "cpu")


FAMILIES = {  # whether prompts can be learnt
    "openai": True, "openai rn50": True, "clip_fh": True, "clip_reid": False, "hugging_face": True,
    "hugging_face vision": False, "open_clip gelu": True, "open_clip quickgelu": True, "open_clip rn50": True,
    "timm": False,
}  # fmt: skip
each_family = pytest.mark.parametrize("family", FAMILIES)


@each_family
def test_frozen_embeddings_are_the_librarys(checkpoints, tmp_path, family):
    """Notebook 05, and the fast path of images."""
    _, see, _, _, backbone = made(family, tmp_path, checkpoints)
    images = pixels(backbone.resolution, backbone.resolution)
    with torch.no_grad():
        alike(backbone.encode_image(images), see(normalised(images)))


@each_family
def test_a_step_of_fine_tuning_has_the_librarys_gradient(checkpoints, tmp_path, family):
    """Notebook 03: a loss of the head's logits, and its gradient to every weight of the tower, under OpenAI's names."""
    model, see, _, _, backbone = made(family, tmp_path, checkpoints)
    images, ids = normalised(pixels(backbone.resolution, backbone.resolution)), torch.tensor([0, 1, 1])
    encoder = ReidEncoder(backbone, 2, ReidHead()).train()
    torch.nn.functional.cross_entropy(encoder.logits(encoder.encode_image(images), ids), ids).backward()
    model.train()
    torch.nn.functional.cross_entropy(encoder.logits(see(images), ids), ids).backward()
    theirs = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    theirs.pop("head.bias", None)
    prefix = "visual." if family == "clip_reid" else ""
    theirs = {f"image_encoder.{n.removeprefix(prefix)}" if prefix else n: g for n, g in theirs.items()}
    wanted = named(theirs, tmp_path).state
    compared = 0
    for name, parameter in encoder.visual.named_parameters():
        if parameter.grad is not None:
            scale = wanted[f"visual.{name}"].norm()
            assert (parameter.grad - wanted[f"visual.{name}"]).norm() <= 3e-4 * scale + 1e-5, name
            compared += 1
    assert compared > 20


@each_family
def test_a_step_of_prompt_learning_has_the_librarys_gradient(checkpoints, tmp_path, family):
    """Notebooks 02 and 04, and the fast path of texts; without a text tower they are refused before anything runs."""
    _, _, read, words, backbone = made(family, tmp_path, checkpoints)
    if not FAMILIES[family]:
        file = tmp_path if family.startswith(("hugging_face", "timm")) else tmp_path / "b.pt"
        with pytest.raises(BackboneError, match=r"no text tower of CLIP's 49408 tokens.*02 and 04 do not"):
            check_weights("tiny", str(file), texts=True)
        return
    learner = PromptLearner(backbone, ["a", "b", "c"], Prompts(n_ctx=2))
    image = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(3)
    supervised_contrastive(learner.encode_text(ids), image, ids, ids, 0.1, normalize=True).backward()
    context = learner.context.detach().clone().requires_grad_()
    tokens = backbone.tokenize(["A photo of a X X hand."] * 3)
    (slot, _) = (tokens[0] == backbone.encode_words("X")[0]).nonzero().flatten().tolist()
    hook = words.register_forward_hook(lambda _m, _i, out: torch.cat([out[:, :slot], context, out[:, slot + 2 :]], 1))
    supervised_contrastive(read(tokens), image, ids, ids, 0.1, normalize=True).backward()
    hook.remove()
    assert (learner.context.grad - context.grad).norm() <= 1e-4 * context.grad.norm()
    assert context.grad.norm() > 0
    assert all(p.grad is None for name, p in backbone.model.named_parameters())


def test_the_table_of_families_names_what_is_tested():
    """docs/weights.md: each row's family, each column's test, and the yes or no of each cell."""
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    head = next(number for number, cells in enumerate(lines) if cells[0] == "family")
    tests = [re.findall(r"`(test_\w+)`", cell) for cell in lines[head][1:]]
    there = {
        name
        for file in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    known = []
    for cells in lines[head + 2 :]:
        if len(cells) != len(lines[head]):
            break
        families = re.findall(r"`\[([\w ]+)\]`", cells[0])
        known += families
        for column, (cell, names) in enumerate(zip(cells[1:], tests, strict=True)):
            assert cell.split(":")[0] in ("yes", "no"), cell
            own = re.findall(r"`(test_\w+)`", cell)
            assert set(own or names) <= there and (own or names), cell
            assert own or families, cells
            if column == 2 and not own:
                assert {FAMILIES[name] for name in families} == {cell.startswith("yes")}, cells
    assert sorted(known) == sorted(FAMILIES)


# --- what is nearly a CLIP


def test_every_model_of_open_clip_is_read_as_it_is_or_refused():
    """Read are those that differ from a plain CLIP in sizes and activation alone, by open_clip's own classes."""
    library = pytest.importorskip("open_clip")
    sizes = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "heads", "context_length",
             "vocab_size", "patch_dropout", "output_tokens", "timm_model_pretrained"}  # fmt: skip
    read = 0
    for file in (Path(library.__file__).parent / "model_configs").glob("*.json"):
        config = json.loads(file.read_text())
        cfgs = [made(**config.get(part, {})) for made, part in (
            (library.CLIPVisionCfg, "vision_cfg"), (library.CLIPTextCfg, "text_cfg"))]  # fmt: skip
        plain = all(replace(cfg, **{name: getattr(type(cfg)(), name) for name in sizes & set(vars(cfg))}) == type(cfg)()
                    for cfg in cfgs) and "multimodal_cfg" not in config  # fmt: skip
        if not plain:
            with pytest.raises(BackboneError, match="not of CLIP's own shape"):
                _open_clip(config, file)
            continue
        said, read = _open_clip(config, file), read + 1
        assert cfgs[1].vocab_size == 49408
        width = cfgs[0].width * (32 if isinstance(cfgs[0].layers, list) else 1)
        assert (said["heads"], said["text_heads"]) == (width // cfgs[0].head_width, cfgs[1].heads), file
        assert said["activation"] == ("quick_gelu" if config.get("quick_gelu") else "gelu")
    assert read >= 41


def test_a_vocabulary_that_is_not_clips_is_not_read_as_clips(checkpoints, tmp_path):
    """Of another size, as MetaCLIP 2's, or of the same with other words: photographs are embedded, texts refused."""
    larger = replace(checkpoints.SMALL_VIT, vocab_size=50_000)
    file = saved(tmp_path / "b.pt", checkpoints.random_clip(larger).state_dict(), checkpoints, larger)
    backbone = load_backbone("tiny", file, "cpu")
    assert not backbone.reads_text
    with pytest.raises(BackboneError, match=r"knows 50000 tokens and CLIP's vocabulary has 49408; it can embed images"):
        backbone.encode_text(TEXTS)
    with pytest.raises(BackboneError, match="no text tower of CLIP's 49408 tokens"):
        check_weights("tiny", str(file), texts=True)
    model = checkpoints.random_clip(checkpoints.SMALL_VIT)
    file = saved(tmp_path / "c.pt", model.state_dict(), checkpoints, checkpoints.SMALL_VIT)
    config = json.loads(file.with_suffix(".json").read_text())
    words = dict(clip_tokenizer().encoder)
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    assert load_backbone("tiny", file, "cpu").reads_text
    first, second, *_ = words
    changed = words | {first: words[second], second: words[first]}
    (tmp_path / "vocab.json").write_text(json.dumps(changed))
    beside = load_backbone("tiny", file, "cpu")
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", -1.0]]}}))
    unigram = load_backbone("tiny", file, "cpu")
    (tmp_path / "tokenizer.json").unlink()
    config["text_cfg"]["hf_tokenizer_name"] = "xlm-roberta-base"
    file.with_suffix(".json").write_text(json.dumps(config))
    for backbone, why in (
        (beside, "vocab.json"), (unigram, "tokenizer.json"),
        (load_backbone("tiny", file, "cpu"), "hf_tokenizer_name='xlm-roberta-base'"),
    ):  # fmt: skip
        assert not backbone.reads_text
        assert f"text tower was left out, for it reads other tokens than CLIP's ({why})" in backbone.source
        alike(backbone.encode_image(pixels(32, 32)), model.visual(normalised(pixels(32, 32))))


def test_a_siglip_without_its_config_is_told_by_its_pooling(tmp_path):
    library = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = library.SiglipVisionModel(library.SiglipVisionConfig(**sizes, image_size=32, patch_size=16))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=r"w\.safetensors holds an image tower without a class token \(SigLIP"):
        load_backbone("tiny", tmp_path / "w.safetensors", "cpu", given=Given("gelu"))
