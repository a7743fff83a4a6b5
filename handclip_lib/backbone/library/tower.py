"""Image and text towers of other libraries behind the interface of CLIP's own: their modules compute, none of ours."""

from typing import Any

import torch
from torch import Tensor

BLOCKS = ("resblocks", "blocks", "stages", "layers", "layer", "layer4")
"""What open_clip, timm and transformers call the list of an image tower's blocks; a ResNet's is layer1 to layer4."""


class LibraryTower(torch.nn.Module):
    """An image tower, from normalised images (n, 3, height, width) to embeddings (n, embedding_dim).

    Attributes:
        input_resolution: 0: nothing tells which square images it was made for.
    """

    input_resolution = 0

    def __init__(self, tower: torch.nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings, not normalised."""
        return self.tower(images)

    @property
    def blocks(self) -> list[Any]:
        """From the input on; none where the library's names are not known here."""
        name = self._place()
        if name.endswith("layer4"):
            return [self.get_submodule(f"{name[:-1]}{number}") for number in (1, 2, 3, 4)]
        return list(self.get_submodule(name)) if name else []  # type: ignore[call-overload]

    @property
    def after(self) -> list[torch.nn.Module]:
        """What comes after the blocks: norms, pooling, projection."""
        found: list[torch.nn.Module] = []
        module: torch.nn.Module = self
        for part in self._place().split("."):
            names = [name for name, _ in module.named_children()]
            found += [getattr(module, name) for name in names[names.index(part) + 1 :] if getattr(module, name)]
            module = getattr(module, part)
        return found

    @property
    def proj(self) -> torch.nn.Parameter | None:
        """The projection of open_clip's own ViTs, which is no module."""
        proj = getattr(self.tower, "proj", None)
        return proj if isinstance(proj, torch.nn.Parameter) else None

    @property
    def is_vit(self) -> bool:
        """Whether its blocks attend; if not they convolve."""
        blocks = self.blocks
        return bool(blocks) and any(name.split(".")[0] in ("attn", "attention", "self_attn") for name, _ in
                                    blocks[0].named_modules())  # fmt: skip

    @property
    def width(self) -> int:
        """Of its first block's first norm: a ViT's tokens, or channels."""
        return next((p.shape[0] for part in (*self.blocks, self) for p in part.parameters() if p.ndim == 1), 0)

    def _place(self) -> str:
        """Name of the outermost list of blocks; "" where there is none."""
        lists = torch.nn.ModuleList | torch.nn.Sequential
        named = [name for name, module in self.named_modules()
                 if name.split(".")[-1] in BLOCKS and isinstance(module, lists)]  # fmt: skip
        return min(named, key=lambda name: name.count("."), default="")


class HuggingFaceTower(LibraryTower):
    """Of transformers, whose models return several things, and of which one takes patches in place of images.

    Attributes:
        patch: Side of the patches that SigLIP 2's NaFlex towers take; 0: it takes images.
        options: What its forward is told beside images.
    """

    def __init__(self, tower: Any, projection: torch.nn.Module | None, patch: int, options: dict[str, Any]):
        super().__init__(tower)
        self.projection, self.patch, self.options = projection, patch, options

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings, not normalised."""
        found = self.tower(**(self._patches(images) if self.patch else {"pixel_values": images}), **self.options)
        pooled = found["image_embeds"] if "image_embeds" in found else found["pooler_output"]
        return pooled if self.projection is None else self.projection(pooled)

    def _patches(self, images: Tensor) -> dict[str, Tensor]:
        """Patches row by row, colours last in each, as its image processor cuts them; none of them is padding."""
        side = self.patch
        rows = images.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 4, 5, 1)
        count, shape = rows.shape[1] * rows.shape[2], torch.tensor(rows.shape[1:3], device=images.device)
        return {
            "pixel_values": rows.reshape(len(images), count, -1), "spatial_shapes": shape.expand(len(images), 2),
            "pixel_attention_mask": torch.ones(len(images), count, dtype=torch.long, device=images.device),
        }  # fmt: skip


class LibraryModel(torch.nn.Module):
    """A library's model where a `clip.model.CLIP` stands; its state dict has the library's own names.

    Attributes:
        visual: Its image tower.
        whole: The library's own object.
        text: Its text tower, frozen, where it reads CLIP's tokens.
        no_text: Why it embeds no texts here; "" where it does.
        vocab_size, context_length: Of `text`; 0 without.
    """

    def __init__(self, visual: LibraryTower, whole: torch.nn.Module, text: Any, no_text: str):
        super().__init__()
        self.visual, self.whole, self.no_text = visual, whole, no_text
        self.vocab_size: int = text.vocab_size if text is not None else 0
        self.context_length: int = text.context_length if text is not None else 0
        of_images = {id(parameter) for parameter in visual.parameters()}
        for parameter in whole.parameters():
            parameter.requires_grad_(id(parameter) in of_images)
        without_dropout(whole)

    @property
    def text(self) -> Any:
        """The module that has the text tower's parts by open_clip's names."""
        return getattr(self.whole, "text", self.whole)

    @property
    def token_embedding(self) -> Any:
        """Of `text`, as a CLIP has it."""
        return self.text.token_embedding

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of CLIP's tokens, not normalised, (n, embedding_dim)."""
        return self.whole.encode_text(tokens)  # type: ignore[operator]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Of the library's own object, so that it opens there."""
        return self.whole.state_dict(*args, **kwargs)


def without_dropout(model: torch.nn.Module) -> None:
    """Switch dropout and dropped paths off: a training that goes on draws what one that was not interrupted does."""
    for module in model.modules():
        for name in ("p", "drop_prob", "prob") if "drop" in type(module).__name__.lower() else ():
            if hasattr(module, name):
                setattr(module, name, 0.0)


def is_clip_shaped(text: Any) -> bool:
    """Whether an open_clip text tower computes what CLIP's does, which the fast path of prompts rests on."""

    def plain(block: Any) -> bool:
        act = block.mlp.gelu
        gelu = isinstance(act, torch.nn.GELU) and act.approximate == "none"
        return (
            hasattr(block.attn, "in_proj_weight") and (gelu or type(act).__name__ == "QuickGELU")
            and isinstance(block.ls_1, torch.nn.Identity) and block.ln_1.eps == 1e-5
        )  # fmt: skip

    pools = getattr(text, "pool_type", getattr(text, "text_pool_type", ""))
    return (
        pools == "argmax" and text.attn_mask is not None and getattr(text, "cls_emb", None) is None
        and isinstance(text.text_projection, torch.nn.Parameter) and text.ln_final.eps == 1e-5
        and all(map(plain, text.transformer.resblocks))
    )  # fmt: skip
