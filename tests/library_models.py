"""Small models of the classes that other libraries have the successors of CLIP in, with random weights, in files."""

import json
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch

IMAGENET, HALF, NONE = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5,) * 3, (0.5,) * 3),
    ((0.0,) * 3, (1.0,) * 3),
)
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 16}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
CLIPS_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
SIGLIPS_TEXT = {
    "context_length": 16, "vocab_size": 300, "hf_tokenizer_name": "nobody/siglip", "width": 32, "heads": 2, "layers": 1,
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
}  # fmt: skip
OF_TIMM = {
    "small_dinov2": IMAGENET, "small_dinov3": IMAGENET, "small_siglip": HALF, "small_eva02_clip": NONE,
    "small_pe_core": HALF, "small_mobile_clip": NONE,
}  # fmt: skip
OF_OPEN_CLIP = {
    "small-EVA02": ("small_eva02_clip", "token", None, CLIPS_TEXT),
    "small-PE-Core": ("small_pe_core", "map", None, CLIPS_TEXT),
    "small-MobileCLIP2": ("small_mobile_clip", "avg", None, CLIPS_TEXT | {"no_causal_mask": True}),
    "small-SigLIP2": ("small_siglip", "map", "none", SIGLIPS_TEXT),
}  # fmt: skip
OF_HUGGING_FACE: dict[str, dict[str, Any]] = {
    "siglip": {"vision_config": VISION, "text_config": TEXT},
    "siglip2": {"vision_config": VISION | {"num_patches": 4}, "text_config": TEXT},
    "metaclip_2": {"vision_config": VISION, "text_config": TEXT, "projection_dim": 24},
    "dinov2": VISION,
    "dinov3_vit": VISION | {"num_register_tokens": 2},
    "siglip_vision_model": VISION,
}


def randomised(model: Any) -> Any:
    """Away from the values a library begins with, at which half of it would not be tested."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            wide = 0.3 if parameter.ndim < 2 or "embed" in name else parameter[0].numel() ** -0.5
            middle = 0.5 if parameter.ndim < 2 else 0.0
            parameter.data = middle + wide * torch.randn(parameter.shape, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@cache
def of_timm() -> Any:
    """timm, with the small models among those it knows."""
    import timm
    from timm.models import eva, fastvit, generate_default_cfgs, register_model, vision_transformer

    vit, create_eva = vision_transformer._create_vision_transformer, eva._create_eva
    fast, size = (
        fastvit._create_fastvit,
        {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
    )
    rotated = {"use_rot_pos_emb": True, "ref_feat_shape": (2, 2)}
    makers = {
        "small_dinov2": partial(vit, **size | {"init_values": 0.1}),
        "small_siglip": partial(vit, **size | {"class_token": False, "global_pool": "map"}),
        "small_eva02_clip": partial(create_eva, **size | rotated | {
            "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True,
            "global_pool": "token"}),
        "small_pe_core": partial(create_eva, **size | rotated | {
            "global_pool": "map", "attn_type": "rope", "use_pre_transformer_norm": True, "attn_pool_num_heads": 2,
            "attn_pool_mlp_ratio": 4.0}),
        "small_dinov3": partial(create_eva, **size | {
            "use_rot_pos_emb": True, "dynamic_img_size": True, "qkv_bias": False, "init_values": 0.1,
            "rope_type": "dinov3", "use_abs_pos_emb": False, "num_reg_tokens": 4, "use_fc_norm": False}),
        "small_mobile_clip": partial(fast, layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64), mlp_ratios=(1, 1, 1, 1),
                                     se_downsamples=(False, False, True, True), lkc_use_act=True,
                                     token_mixers=("repmixer", "repmixer", "repmixer", "attention")),
    }  # fmt: skip
    module = sys.modules.setdefault("handclips_small_models", ModuleType("handclips_small_models"))
    classes = {"small_eva02_clip": 24, "small_pe_core": 24, "small_mobile_clip": 24}
    head = {"small_mobile_clip": "head.fc"}
    module.default_cfgs = generate_default_cfgs({  # type: ignore[attr-defined]
        f"{name}.own": {
            "mean": mean, "std": std, "interpolation": "bilinear", "input_size": (3, 32, 32), "first_conv": "",
            "num_classes": classes.get(name, 0), "classifier": head.get(name, "head"),
            "fixed_input_size": name not in head, "pool_size": None,
        }
        for name, (mean, std) in OF_TIMM.items()
    })  # fmt: skip
    for name, make in makers.items():

        def entry(pretrained: bool = False, _make: Any = make, _name: str = name, **given: Any) -> Any:
            return _make(_name, pretrained=pretrained, **given)

        entry.__name__, entry.__module__ = name, module.__name__
        register_model(entry)
    return timm


def of_open_clip(folder: Path) -> Any:
    """open_clip, with the small models among those it knows; their configs are written into the folder."""
    import open_clip

    of_timm()
    for name, (tower, pool, proj, text) in OF_OPEN_CLIP.items():
        vision = {"image_size": 32, "timm_model_name": tower, "timm_pool": pool, "timm_proj": proj}
        config = {"embed_dim": 24 if proj is None else 32, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return open_clip


def written(model: Any, file: Path) -> Path:
    """Weights in a file, under the library's own names."""
    safetensors.torch.save_file({name: value.clone() for name, value in model.state_dict().items()}, file)
    return file


def hugging_face_folder(kind: str, folder: Path, by: Any = HALF) -> Any:
    """A model of transformers, in a folder as `save_pretrained` writes it, with the config of its photographs."""
    from transformers import AutoConfig, AutoModel

    model = randomised(AutoModel.from_config(AutoConfig.for_model(kind, **OF_HUGGING_FACE[kind])))
    model.save_pretrained(folder)
    images = {"image_mean": by[0], "image_std": by[1], "do_normalize": True, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return model
