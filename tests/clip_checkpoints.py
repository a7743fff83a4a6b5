"""Write checkpoints of any CLIP architecture with random weights, in the formats people have them in.

`python tests/clip_checkpoints.py vitb16 jit vitb16.pt` makes one to try by hand.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from handclip_lib.backbone.load import SHAPES
from handclip_lib.backbone.openai_clip import ClipShape, clip_package

SMALL_VIT = ClipShape(32, 32, 2, 64, 16, 64, text_layers=1)
SMALL_RESNET = ClipShape(32, 64, (1, 2, 1, 1), 8, None, 64, text_layers=1)


def random_clip(shape: ClipShape, seed: int = 0) -> Any:
    """openai-clip's own model of a shape (its towers at least 64 wide), randomly initialised, float32."""
    torch.manual_seed(seed)
    model = clip_package().model.CLIP(
        shape.embedding_dim, shape.resolution, shape.vision_layers, shape.vision_width, shape.patch_size,
        shape.context_length, shape.vocab_size, shape.text_width, shape.text_width // 64, shape.text_layers,
    )  # fmt: skip
    for module in model.modules():
        # biases and scales away from 0 and 1, and bn3 away from 0, or half of the network is not tested
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def write_config(path: Path, shape: ClipShape, *, quick_gelu: bool = True, head_width: int = 64) -> None:
    """What open_clip says of a model of a shape: what its tensors do not."""
    vision = {"layers": shape.vision_layers, "width": shape.vision_width, "image_size": shape.resolution}
    vision |= {"head_width": head_width} | ({"patch_size": shape.patch_size} if shape.patch_size else {})
    text = {
        "context_length": shape.context_length, "vocab_size": shape.vocab_size, "width": shape.text_width,
        "heads": max(1, shape.text_width // 64), "layers": shape.text_layers,
    }  # fmt: skip
    sizes = {"embed_dim": shape.embedding_dim, "vision_cfg": vision, "text_cfg": text}
    path.write_text(json.dumps(sizes | ({"quick_gelu": True} if quick_gelu else {})))


def write_checkpoint(
    path: Path, shape: ClipShape, kind: str = "state_dict", seed: int = 0, *, config: bool = True
) -> dict[str, torch.Tensor]:
    """Write random weights, and beside them, as `config` has it, that they are with QuickGELU.

    Args:
        path: Where to.
        shape: The architecture.
        kind: `jit` (half precision and three sizes beside the weights, as OpenAI's), `jit float32`, `state_dict`
            or `safetensors`, both float32.
        seed: Of the random weights.

    Returns:
        The weights as they are stored, without the sizes.
    """
    model = random_clip(shape, seed)
    if kind.startswith("jit"):
        if kind == "jit":
            clip_package().model.convert_weights(model)
        for name, value in (
            ("context_length", shape.context_length),
            ("vocab_size", shape.vocab_size),
            ("input_resolution", shape.resolution),
        ):
            if hasattr(model, name):
                delattr(model, name)
            model.register_buffer(name, torch.tensor(value))
        image = torch.zeros(1, 3, shape.resolution, shape.resolution)
        text = torch.zeros(1, shape.context_length, dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(model, (image, text), check_trace=False).save(str(path))
    elif kind == "safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    if config:
        write_config(path.with_suffix(".json"), shape)
    sizes = ("context_length", "vocab_size", "input_resolution")
    return {name: tensor for name, tensor in model.state_dict().items() if name not in sizes}


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[3]), SHAPES[sys.argv[1]], sys.argv[2])
