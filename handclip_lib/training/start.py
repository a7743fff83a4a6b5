"""Where a training began: how far the tower went from there, and what lies between."""

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.models.low_rank import DOWN, LowRank
from handclip_lib.models.reid_head import ReidEncoder

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of what was tuned, that validation chooses from."""


class Start:
    """The image tower's tensors that training changes, as they are when this is made."""

    def __init__(self, encoder: ReidEncoder, changing: Collection[str]):
        """Take the names of what changes. Of an adapter only `up` is kept: its change is in proportion to that."""
        self._encoder = encoder
        self._tensors = {
            name: value.clone() for name, value in encoder.state_dict().items()
            if name.startswith("visual.") and name in changing and not name.endswith(DOWN)
        }  # fmt: skip

    def distance(self) -> Tensor:
        """Half the squared distance of the weights that learn, of adapters of their change, with gradients."""
        adapters = [module for module in self._encoder.modules() if isinstance(module, LowRank)]
        apart = {id(p) for module in adapters for p in module.parameters()}
        parts = [module.change().square().sum() for module in adapters] + [
            F.mse_loss(p, self._tensors[name], reduction="sum")  # keeps both for the gradient, not their difference
            for name, p in self._encoder.named_parameters()
            if name in self._tensors and p.requires_grad and id(p) not in apart
        ]
        return torch.stack(parts).sum() / 2

    def towards(self, tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Tensors at a share of the way from the start, 0, to the tuned ones, 1; both ends to the bit.

        Batch norms' statistics go the same way.

        Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, eq. 1.
        """
        ends = {name: (value, tuned[name].to(value.device)) for name, value in self._tensors.items()}
        return {
            name: torch.lerp(*two, share) if two[0].is_floating_point() else two[share > 0]
            for name, two in ends.items()
        }


def put(encoder: torch.nn.Module, changed: Mapping[str, Tensor]) -> None:
    """Give an encoder some tensors of its state."""
    encoder.load_state_dict({**encoder.state_dict(), **changed})
