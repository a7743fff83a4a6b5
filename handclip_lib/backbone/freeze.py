"""Which part of an image tower learns."""

from typing import Any

import torch

from handclip_lib.errors import ConfigError

ALL = -1


def blocks_of(visual: Any) -> list[Any]:
    """Blocks from the input on: a ViT's residual blocks, a ResNet's four layers."""
    if hasattr(visual, "transformer"):
        return list(visual.transformer.resblocks)
    return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]


def unfreeze(visual: Any, last: int = ALL) -> list[torch.nn.Module]:
    """Let the last blocks learn, and what comes after them; freeze the rest.

    Args:
        visual: openai-clip's image tower; `requires_grad` of its parameters is set.
        last: Number of blocks; 0: only what comes after the blocks (a ViT's last norm and projection, a ResNet's
            attention pooling); `ALL` (−1): everything, patches or stem included.

    Returns:
        The modules that learn; a frozen ResNet layer's batch norms must stay in evaluation mode.

    Raises:
        ConfigError: More blocks than there are.
    """
    blocks = blocks_of(visual)
    if not ALL <= last <= len(blocks):
        raise ConfigError(f"unfreeze_blocks={last}: this image tower has {len(blocks)}; give 0 to {len(blocks)}, or -1")
    visual.requires_grad_(last == ALL)
    if last == ALL:
        return [visual]
    after = [visual.ln_post] if hasattr(visual, "transformer") else [visual.attnpool]
    learning = [*(blocks[-last:] if last else []), *after]
    for module in learning:
        module.requires_grad_(True)
    if hasattr(visual, "proj"):
        visual.proj.requires_grad_(True)
    return learning


def train_mode(visual: Any, learning: list[torch.nn.Module]) -> None:
    """Training mode for what learns, evaluation mode for what is frozen: a frozen batch norm counts nothing."""
    visual.eval()
    for module in learning:
        module.train()
