"""Steps of a training: rates, decay and clipping, the centres' own SGD, and fp16's scaled loss."""

import math
from typing import Any

import torch
from torch import Tensor

from handclip_lib.backbone.image_tower import depths
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ImageTraining
from handclip_lib.training.state import Batches

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
RISE = 0.1  # share of the steps in which `one_cycle` rises


class ImageOptimizer:
    """Adam or AdamW on what learns, and plain SGD on the centres, whatever the weight of their loss is.

    Attributes:
        adam, scaler: For the checkpoint.
        learning: What `adam` moves.
    """

    def __init__(self, encoder: ReidEncoder, options: ImageTraining, batches: Batches):
        """Group what learns, the centres only where their loss counts."""
        encoder.centers.requires_grad_(options.center_weight > 0)
        self._centers, self._options = encoder.centers, options
        self._steps, self._rising = batches.before[-1], batches.rising
        self.adam = OPTIMIZERS[options.optimizer](groups(encoder, options))
        self._sgd = torch.optim.SGD([encoder.centers], lr=options.center_learning_rate)
        self.scaler = torch.amp.GradScaler(encoder.classifier.device.type, enabled=options.precision == "fp16")
        self.learning = [p for group in self.adam.param_groups for p in group["params"]]
        self._highest = [group["lr"] for group in self.adam.param_groups]

    @property
    def rate(self) -> float:
        """Learning rate of the tower at the last step, the highest of its parts."""
        return float(self.adam.param_groups[0]["lr"])

    def set_rates(self, step: int) -> None:
        """Those of a step, 0 … steps − 1 of the whole training."""
        if self._options.schedule == "one_cycle":
            factor = one_cycle(step, self._steps)
        else:
            factor = warm_up_cosine(step, self._steps, self._rising)
        for group, rate in zip(self.adam.param_groups, self._highest, strict=True):
            group["lr"] = rate * factor

    def backward(self, loss: Tensor) -> None:
        """The loss's gradients, of fp16 scaled up."""
        self.scaler.scale(loss).backward()

    def clip(self) -> Tensor:
        """Bring the gradients to their true size and clip them; their length before."""
        self.scaler.unscale_(self.adam)
        return torch.nn.utils.clip_grad_norm_(self.learning, self._options.clip_gradient)

    def fails(self, gradient: Tensor) -> bool:
        """Whether a length is none: fp16's scale is too high at first, and falls; a full-size one has no excuse."""
        return not torch.isfinite(gradient) and self.scaler.get_scale() <= 1

    def step(self) -> None:
        """Move what learns; with fp16 not at all where gradients are no numbers."""
        self.scaler.step(self.adam)
        if self._centers.grad is not None:  # as if the centre loss had weight 1
            self.scaler.unscale_(self._sgd)
            self._centers.grad /= self._options.center_weight
            self.scaler.step(self._sgd)
        self.scaler.update()


def groups(encoder: ReidEncoder, options: ImageTraining) -> list[dict[str, Any]]:
    """Every tensor that learns, but for the centres, in exactly one group; weight decay on matrices and filters.

    A part of the tower has the rate of the part after it, times `layer_decay`; what comes after its blocks the highest.

    Source: Clark et al., "ELECTRA", ICLR 2020; counted as in Bao et al., "BEiT", ICLR 2022.
    """
    deep, found = depths(encoder.visual), dict[tuple[bool, float, bool], list[Tensor]]()
    for p in encoder.parameters():
        if p.requires_grad and p is not encoder.centers:
            is_head, decay = id(p) not in deep, options.layer_decay ** deep.get(id(p), 0)
            found.setdefault((is_head, -decay, p.ndim <= 1), []).append(p)
    rates, decays = (options.learning_rate, options.head_learning_rate), (options.weight_decay, 0.0)
    return [
        {"params": found[key], "lr": -key[1] * rates[key[0]], "weight_decay": decays[key[2]]} for key in sorted(found)
    ]


def one_cycle(step: int, steps: int) -> float:
    """Factor of the learning rate at a step, 0 … steps − 1: from 1/25 up to 1, then down to 1/250,000, by cosines.

    Source: Smith and Topin, "Super-Convergence", 2018, with torch's OneCycleLR's defaults.
    """
    first, last = 1 / 25, 1 / 250_000
    top = RISE * steps - 1
    if step <= top:
        return 1 + (first - 1) * (1 + math.cos(math.pi * step / top)) / 2 if top > 0 else 1.0
    share = (step - top) / max(1e-9, steps - 1 - top)
    return last + (1 - last) * (1 + math.cos(math.pi * share)) / 2


def warm_up_cosine(step: int, steps: int, warm_up: int) -> float:
    """Factor of the learning rate: a line up over `warm_up` steps, then half a cosine down to 0.

    Of step 0 … steps − 1 of the whole training; the first already moves.
    """
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    share = (step - warm_up) / max(1, steps - warm_up)
    return (1 + math.cos(math.pi * share)) / 2
