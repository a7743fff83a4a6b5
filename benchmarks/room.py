"""What five minutes of training make of `tiny` on drawn hands. `python -m benchmarks.room --aspect palmar_r`.

Frozen `tiny` and the same image tower after SupCon on the training identities of the default drawn data set (their
photographs of one aspect, some 300), both by notebook 05's protocol on the test identities, beside the floors.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from handclip_lib.backbone.load import load_backbone
from handclip_lib.data.augment import augment
from handclip_lib.data.batches import identity_batches
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import open_dataset
from handclip_lib.data.splits import make_split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.floors import histogram_embeddings, pixel_embeddings
from handclip_lib.evaluation.protocol import evaluate_split
from handclip_lib.losses.contrastive import group_cross_entropy
from handclip_lib.training.schedule import warm_up_cosine


def rank1(features: Features, split: Split) -> str:
    """Rank-1 and mAP of gallery "aspect", in percent."""
    summary = evaluate_split(features, split, bootstrap=100).summary()
    return f"rank-1 {100 * summary['rank1']:.1f}  mAP {100 * summary['map']:.1f}"


def fine_tune(visual: torch.nn.Module, pixels: np.ndarray, labels: np.ndarray, minutes: float, rate: float) -> int:
    """SupCon over augmented photographs of the same hand; returns the steps that fitted into the time."""
    optimizer = torch.optim.AdamW(visual.parameters(), lr=rate, weight_decay=0.05)
    began, step, epoch = time.monotonic(), 0, 0
    bar = tqdm(total=round(60 * minutes), unit="s", desc="fine-tuning")
    while (spent := time.monotonic() - began) < 60 * minutes:
        for batch in identity_batches(labels, 40, 4, np.random.default_rng(epoch)):
            if len(np.unique(labels[batch])) < 20:
                continue
            rows, ids = np.concatenate([batch, batch]), torch.from_numpy(np.tile(labels[batch], 2))
            images = augment(torch.from_numpy(pixels[rows]), torch.Generator().manual_seed(step))
            with torch.autocast("cpu", torch.bfloat16):
                embedded = F.normalize(visual(images).float(), dim=1)
            itself = torch.eye(len(rows), dtype=torch.bool)
            cosine = (embedded @ embedded.T / 0.1).masked_fill(itself, -torch.inf)
            loss = group_cross_entropy(cosine, (ids[:, None] == ids) & ~itself)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm_up_cosine(int(spent), round(60 * minutes), 10)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        epoch += 1
        bar.update(round(time.monotonic() - began) - bar.n)
    bar.close()
    return step


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aspect", default="dorsal_r")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=5e-4)
    options = parser.parse_args()
    table = open_dataset("drawn", "")
    split = make_split(table, options.aspect)
    tiny = load_backbone("tiny", device="cpu")
    images = decode_images(table.root, table.images["path"], tiny.resolution)
    evaluated = images.select(split.evaluated_paths())

    def embedded(held: DecodedImages) -> Features:
        return Features.normalised(held.paths, np.concatenate([tiny.encode_image(held.pixels[i : i + 64])
                                                               for i in range(0, len(held.paths), 64)]))  # fmt: skip

    print(f"floor: pixels     {rank1(pixel_embeddings(evaluated), split)}")
    print(f"floor: histogram  {rank1(histogram_embeddings(evaluated), split)}")
    print(f"tiny, frozen      {rank1(embedded(evaluated), split)}")
    train = split.images[split.images["role"].isin(["train", "val"])]
    pixels = np.array(images.pixels[images.rows(list(train["path"]))])
    labels = np.unique(train["identity"], return_inverse=True)[1]
    visual = tiny.model.visual.to(memory_format=torch.channels_last).train()
    steps = fine_tune(visual, pixels, labels, options.minutes, options.rate)
    visual.eval()
    print(f"tiny, fine-tuned  {rank1(embedded(evaluated), split)}  ({options.minutes:g} minutes, {steps} steps)")


if __name__ == "__main__":
    main()
