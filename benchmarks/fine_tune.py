"""A step of image fine-tuning at the true size of ViT-B/16. `python -m benchmarks.fine_tune`."""

from functools import partial

import torch

from benchmarks.prompts import random_clip
from benchmarks.side_by_side import compare, heading, resident
from handclip_lib.backbone.freeze import ALL
from handclip_lib.losses.triplet import batch_hard_triplet
from handclip_lib.models.hand_encoder import HandEncoder

BATCH, IDENTITIES = 32, 72


def main() -> None:
    """Print the rows."""
    heading(f"image fine-tune step, ViT-B/16, B = {BATCH}, identity + triplet loss, fp32")
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(BATCH // 4).repeat_interleave(4)
    for title, blocks in (("all blocks", ALL), ("last 2 blocks", 2)):
        encoder = HandEncoder(random_clip(), IDENTITIES, unfreeze_blocks=blocks).train()

        def step(encode, encoder=encoder) -> None:
            encoder.zero_grad()
            embeddings = encode().float()
            loss = torch.nn.functional.cross_entropy(encoder.logits(embeddings, ids), ids)
            (loss + batch_hard_triplet(embeddings, ids)).backward()

        plain = partial(step, lambda encoder=encoder: encoder.visual(images))
        compare(
            f"{title}: openai-clip's tower : ours",
            plain,
            partial(step, partial(encoder.encode_image, images)),
            3,
            resident,
        )
        if blocks != ALL:
            held = encoder.frozen_part(images)
            kept = partial(step, partial(encoder.learning_part, held))
            compare(f"{title}: openai-clip's tower : frozen blocks kept", plain, kept, 3, resident)


if __name__ == "__main__":
    main()
