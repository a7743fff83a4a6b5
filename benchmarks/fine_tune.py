"""Steps of image fine-tuning at the true size of ViT-B/16. `python -m benchmarks.fine_tune`."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.prompts import random_clip
from benchmarks.side_by_side import compare, heading, resident
from handclip_lib.losses import batch_hard_triplet
from handclip_lib.machine import kept_memory
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ReidHead

BATCH, IDENTITIES = 32, 72
STEPS = 3  # of a turn: of many, as a training takes, only the first asks the system for its memory
LESS = {
    "computed again": {"recompute": True},
    "last 2 blocks": {"unfreeze_blocks": 2},
    "adapters of rank 8": {"lora_rank": 8},
    "adapters of rank 8, computed again": {"lora_rank": 8, "recompute": True},
    "adapters of rank 8 on the last 4 blocks": {"lora_rank": 8, "unfreeze_blocks": 4},
}
"""Parameters of a head under which a step takes less memory."""
FLOP_AN_IMAGE = 105e9  # ViT-B/16 at 224 px, forward and backward


def main() -> None:
    """Print the rows."""
    heading(f"{STEPS} image fine-tune steps, ViT-B/16, B = {BATCH}, identity + triplet loss, fp32")
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(BATCH // 4).repeat_interleave(4)
    learns = {"all blocks": {}, "last 2 blocks": {"unfreeze_blocks": 2}, "adapters of rank 8": {"lora_rank": 8}}
    for title, options in learns.items():
        encoder = ReidEncoder(random_clip(), IDENTITIES, ReidHead(**options)).train()

        def step(encode, encoder=encoder) -> None:
            for _ in range(STEPS):
                encoder.zero_grad()
                embeddings = encode().float()
                loss = torch.nn.functional.cross_entropy(encoder.logits(embeddings, ids), ids)
                (loss + batch_hard_triplet(embeddings, ids)).backward()

        def ours(*given, step=step) -> None:
            with kept_memory():
                step(*given)

        row = partial(compare, repeats=1, memory_of=resident)
        plain = partial(step, lambda encoder=encoder: encoder.visual(images))
        row(f"{title}: openai-clip's tower : ours", plain, partial(ours, partial(encoder.encode_image, images)))
        if title == "all blocks":
            again = ReidEncoder(random_clip(), IDENTITIES, ReidHead(recompute=True)).train()
            less = partial(step, partial(again.encode_image, images), again)
            row(f"{title}: openai-clip's tower : activations computed again", plain, less)
        elif title == "last 2 blocks":
            kept = partial(ours, partial(encoder.learning_part, encoder.frozen_part(images)))
            row(f"{title}: openai-clip's tower : frozen blocks kept", plain, kept)
    less_memory(images, ids)


def less_memory(images: torch.Tensor, ids: torch.Tensor, repeats: int = 3) -> None:
    """Whole steps, AdamW's moments counted: all weights beside fewer, or fewer activations."""
    heading(f"whole step with AdamW, ViT-B/16, B = {len(images)}, fp32")

    def whole_step(**options) -> Callable[[], None]:
        encoder = ReidEncoder(random_clip(), IDENTITIES, ReidHead(**options)).train()

        def step() -> None:
            encoder.zero_grad()
            embeddings = encoder.encode_image(images)
            loss = torch.nn.functional.cross_entropy(encoder.logits(embeddings, ids), ids)
            (loss + batch_hard_triplet(embeddings, ids)).backward()
            learning = [p for p in encoder.parameters() if p.grad is not None]
            torch.optim.AdamW(learning, 1e-5).step()  # new each time, so that the peak holds its moments
            encoder.zero_grad()

        return step

    full = whole_step()
    for title, options in LESS.items():
        compare(f"all weights : {title}", full, whole_step(**options), repeats, resident)


if __name__ == "__main__":
    main()
