"""Weights described, and written as other libraries take them: `handclip weights`."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from handclip_lib.backbone.fitting import NOTHING
from handclip_lib.backbone.image_tower import kind_of, learning_part
from handclip_lib.backbone.library.tower import is_clip_shaped
from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.naming import to_hugging_face
from handclip_lib.backbone.openai_clip import ClipShape
from handclip_lib.backbone.properties import Given, Properties
from handclip_lib.backbone.weights import save_tensors
from handclip_lib.data.batches import plain
from handclip_lib.data.images import height_and_width
from handclip_lib.errors import BackboneError
from handclip_lib.files import make_folder, whole_file, write_text

LIBRARIES = ("huggingface", "open_clip", "openai", "onnx")
ONNX = "image.onnx"
ONNX_NEEDS = ("onnx", "onnxscript")
LARGEST_ONNX = 2**31 - 2**24
"""Bytes of a tower in one file, beyond which its weights lie beside it: protobuf holds 2 GiB."""
_RESAMPLE = {"bicubic": 3, "bilinear": 2}


def describe(path: str, given: Given = NOTHING, named: str = "") -> str:
    """What weights are, who says what of them, and what of the notebooks works with them.

    `path` may be another library's model as `load_library` names it, or `named` be that, and the path its weights'.

    Raises:
        BackboneError: As `load_backbone`.
    """
    backbone = load_backbone(named or path, path if named else None, "cpu", given=given)
    visual, numbers = backbone.model.visual, sum(p.numel() for p in backbone.model.parameters())
    kind, fast = "ViT" if kind_of(visual)[0] else "convolutional", not backbone.properties.library
    of_texts = fast or (backbone.reads_text and is_clip_shaped(backbone.model.text))
    by = "by the fast path of CLIP's shape", "by the library's own modules"
    height, width = height_and_width(backbone.resolution)
    towers = f"image ({kind}, {height}x{width} px, {sum(p.numel() for p in visual.parameters()):,} parameters)"
    tokens = backbone.model.vocab_size
    if tokens:
        towers += f" and text ({backbone.context_length} tokens of {tokens:,})"
    of_others = f"its own has {tokens:,} tokens, not {ClipShape.vocab_size:,}"
    works = {
        "05, 03": f"yes, {by[0] if fast else by[1]}",
        "02, 04": f"yes, {by[0] if of_texts else by[1]}"
        if backbone.reads_text
        else f"no: prompts need a text tower with CLIP's tokens, and {getattr(backbone.model, 'no_text', of_others)}",
        "01, 06": "need no weights",
    }
    lines = {
        "name": backbone.name, "source": backbone.source, "towers": towers, "embedding": str(backbone.embedding_dim),
        "fingerprint": backbone.fingerprint, "memory": f"{4 * numbers / 1e6:,.1f} MB in float32",
    }  # fmt: skip
    lines |= backbone.properties.lines() | {f"notebooks {name}": said for name, said in works.items()}
    return "\n".join(f"{name.ljust(17)} {said}" for name, said in lines.items())


def convert(path: str, out: Path, to: str, given: Given = NOTHING) -> Path:
    """Write weights for one of `LIBRARIES`: a folder, or for openai a state dict, that computes the same there.

    Raises:
        BackboneError: The library has no such model, or as `load_backbone`.
        WriteError: It cannot be written.
    """
    backbone = load_backbone(path, device="cpu", given=given)
    if backbone.properties.library:
        own = f"{path} has the names of {backbone.properties.library} already, which opens it as it is"
        raise BackboneError(f"{own}; CLIPs of their own shape are converted")
    if out.exists():
        raise BackboneError(f"{out} is there already; name another place")
    state = {name: value.contiguous() for name, value in backbone.model.state_dict().items()}
    if to == "openai":
        if backbone.unlike_clip or not backbone.reads_text or not isinstance(backbone.resolution, int):
            odd = "openai-clip has QuickGELU, heads of 64, its own normalisation, square images and a text tower"
            raise BackboneError(f"{odd} alone, and {backbone.name} is otherwise: take --to open_clip or huggingface")
        with whole_file(out) as private:
            torch.save(state, private)
        return out
    if to == "onnx":
        return _write_onnx(backbone, out)
    make_folder(out)
    facts = {"format": "pt"} | backbone.properties.facts()
    if to == "open_clip":
        write_text(out / "open_clip_config.json", json.dumps(_open_clip(backbone), indent=2) + "\n")
        save_tensors(out / "open_clip_model.safetensors", state, facts)
        return out
    config = _hugging_face(backbone)
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(out / "preprocessor_config.json", json.dumps(_images(backbone), indent=2) + "\n")
    save_tensors(out / "model.safetensors", to_hugging_face(state), facts)
    return out


class _Pixels(torch.nn.Module):
    """An image tower behind its own normalisation, so that nobody who runs it has to know of that."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.visual, self._by = backbone.model.visual, backbone.normalisation

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return learning_part(self.visual, plain(pixels, self._by))


def _write_onnx(backbone: Backbone, folder: Path) -> Path:
    """The image tower as `ONNX` in a folder: `pixels`, uint8 (n, height, width, 3), to `embedding`, not normalised."""
    if missing := [name for name in ONNX_NEEDS if find_spec(name) is None]:
        raise BackboneError(f"--to onnx needs {' and '.join(missing)}: pip install 'handclip[onnx]'")
    height, width = height_and_width(backbone.resolution)
    some = torch.zeros(2, height, width, 3, dtype=torch.uint8)  # of one image the number would be a constant
    with torch.inference_mode():
        program = torch.onnx.export(
            _Pixels(backbone).eval(), (some,), input_names=["pixels"], output_names=["embedding"], verbose=False,
            dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
        )  # fmt: skip
    assert program is not None
    facts = {"name": backbone.name, "fingerprint": backbone.fingerprint} | backbone.properties.facts()
    program.model.metadata_props.update(facts)
    make_folder(folder)
    weights = sum(4 * p.numel() for p in backbone.model.visual.parameters())
    program.save(folder / ONNX, external_data=weights > LARGEST_ONNX)
    return folder


def _open_clip(backbone: Backbone) -> dict[str, Any]:
    model, properties = backbone.model, backbone.properties
    if not model.vocab_size or getattr(model.visual, "proj", model) is None:
        raise BackboneError(f"open_clip has no image tower alone, which {backbone.name} is: take --to huggingface")
    visual, text = model.visual, model.transformer
    vision: dict[str, Any] = {"image_size": backbone.resolution}
    if hasattr(visual, "transformer"):
        width, vision["layers"] = visual.conv1.out_channels, visual.transformer.layers
        inner = visual.transformer.resblocks[0].mlp.c_fc.out_features
        vision |= {"patch_size": visual.conv1.kernel_size[0], "mlp_ratio": inner / width, "width": width}
    else:
        width = visual.attnpool.positional_embedding.shape[1]
        vision |= {"layers": [len(getattr(visual, f"layer{n}")) for n in (1, 2, 3, 4)], "width": width // 32}
    words = {
        "context_length": backbone.context_length, "vocab_size": model.vocab_size, "width": text.width,
        "heads": properties.text_heads, "layers": text.layers,
        "mlp_ratio": text.resblocks[0].mlp.c_fc.out_features / text.width,
    }  # fmt: skip
    cfg = {"embed_dim": backbone.embedding_dim, "vision_cfg": vision | {"head_width": width // properties.heads}}
    cfg |= {"text_cfg": words} | ({"quick_gelu": True} if properties.activation == "quick_gelu" else {})
    images = {"mean": properties.mean, "std": properties.std, "interpolation": properties.interpolation}
    return {"model_cfg": cfg, "preprocess_cfg": images | {"resize_mode": "squash"}}


def _hugging_face(backbone: Backbone) -> dict[str, Any]:
    visual, properties = backbone.model.visual, backbone.properties
    if not hasattr(visual, "transformer") or not isinstance(backbone.resolution, int):
        raise BackboneError(f"transformers has ViTs of square images alone, and {backbone.name} is otherwise: "
                            "take --to open_clip")  # fmt: skip
    vision = _tower(visual.transformer, properties, properties.heads) | {
        "image_size": backbone.resolution, "patch_size": visual.conv1.kernel_size[0],
        "projection_dim": backbone.embedding_dim,
    }  # fmt: skip
    if not backbone.model.vocab_size:
        kind = "CLIPVisionModel" + ("" if visual.proj is None else "WithProjection")
        return {"architectures": [kind], "model_type": "clip_vision_model"} | vision
    text = _tower(backbone.model.transformer, properties, properties.text_heads) | {
        "vocab_size": backbone.model.vocab_size, "max_position_embeddings": backbone.context_length,
        "bos_token_id": 49406, "eos_token_id": 49407, "projection_dim": backbone.embedding_dim,
    }  # fmt: skip
    sizes = {"projection_dim": backbone.embedding_dim, "vision_config": vision, "text_config": text}
    return {"architectures": ["CLIPModel"], "model_type": "clip"} | sizes


def _tower(transformer: Any, properties: Properties, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": transformer.width, "intermediate_size": transformer.resblocks[0].mlp.c_fc.out_features,
        "num_hidden_layers": transformer.layers, "num_attention_heads": heads, "hidden_act": properties.activation,
    }  # fmt: skip


def _images(backbone: Backbone) -> dict[str, Any]:
    height, width = height_and_width(backbone.resolution)
    return {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"height": height, "width": width},
        "do_center_crop": False, "do_normalize": True, "image_mean": backbone.properties.mean,
        "image_std": backbone.properties.std, "resample": _RESAMPLE[backbone.properties.interpolation],
    }  # fmt: skip
