"""Low-rank adapters: an image tower stays as it is, and of each matrix and filter learns a small change.

Library peft does not fit: its layer for `MultiheadAttention` hands the frozen weights to whoever reads them, as the
tower's own pass does, and would change nothing. These are parametrisations of torch, whatever a module is: reading
the weight gives the changed one, and merged it is the same numbers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from handclip_lib.backbone.image_tower import depths
from handclip_lib.errors import ConfigError

DOWN = ".down"
"""The factors that begin random end so in the names of a state."""


class LowRank(torch.nn.Module):
    """A weight W as W + (alpha / rank) · up · down, a filter as the matrix of its outputs and of all its inputs.

    Attributes:
        down: Random at first, shape (parts, rank, inputs); the parts are queries, keys and values, where one matrix
            holds them all, and else one.
        up: 0 at first, shape (parts, outputs of a part, rank).

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, eq. 3.
    """

    def __init__(self, weight: Tensor, parts: int, rank: int, alpha: float, generator: torch.Generator):
        """Begin with no change."""
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        down = torch.empty(parts, rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        self.down = torch.nn.Parameter(down.to(weight.device))
        self.up = torch.nn.Parameter(weight.new_zeros(parts, outputs // parts, rank))
        self._scale = alpha / rank

    def change(self) -> Tensor:
        """What is added, shape (outputs, inputs)."""
        return (self._scale * self.up @ self.down).flatten(0, 1)

    def added(self, x: Tensor, parts: slice) -> Tensor:
        """What some parts add to what x (…, inputs) gives, shape (…, their outputs), by the factors one by one."""
        inner = F.linear(x, self.down[parts].flatten(0, 1)).unflatten(-1, (-1, self.down.shape[1]))
        return torch.einsum("...pr,por->...po", inner, self._scale * self.up[parts]).flatten(-2)

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.change().view_as(weight)


def adapt(visual: Any, rank: int, alpha: float, seed: int) -> None:
    """Freeze an image tower, and put adapters on every matrix and filter that learnt, of its blocks and what follows.

    Of a ViT's blocks: queries, keys, values, output and both of the MLP. Of a ResNet's: every convolution, and the
    four projections of its attention pooling.

    Raises:
        ConfigError: None learnt.
    """
    generator, deep = torch.Generator().manual_seed(seed), depths(visual)
    entrance = max(deep.values())
    found = [
        (module, name, weight) for module in visual.modules() for name, weight in module.named_parameters(recurse=False)
        if weight.requires_grad and weight.ndim > 1 and name.endswith("weight") and deep[id(weight)] < entrance
    ]  # fmt: skip
    if not found:
        raise ConfigError("lora_rank: no block learns that an adapter could change; give unfreeze_blocks=-1 or more")
    visual.requires_grad_(False)
    for module, name, weight in found:
        parts = 3 if name == "in_proj_weight" else 1
        register_parametrization(module, name, LowRank(weight, parts, rank, alpha, generator))


def merged_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state as it would be without adapters: each weight with its change."""
    found = {name: value.clone() for name, value in model.state_dict().items() if ".parametrizations." not in name}
    for path, module in model.named_modules():
        for name in getattr(module, "parametrizations", ()):
            found[f"{path}.{name}"] = getattr(module, name).detach().clone()
    return found


def merge(model: torch.nn.Module) -> None:
    """Take the adapters off; each weight keeps its change."""
    for module in list(model.modules()):
        for name in list(getattr(module, "parametrizations", ())):
            remove_parametrizations(module, name)
