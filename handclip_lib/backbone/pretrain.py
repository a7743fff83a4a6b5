"""Make `tiny`: a small CLIP trained on drawn hands and captions of what is known of them.

`python -m handclip_lib.backbone.pretrain --subjects 500 --minutes 10` is how the shipped weights were made,
on one thread of a CPU (OMP_NUM_THREADS=1). Its people come from seeds that `dataset=drawn` never draws.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from handclip_lib.backbone.load import SHAPES, TINY_WEIGHTS, Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data.drawn import draw_dataset
from handclip_lib.data.hands11k import read_hands11k
from handclip_lib.data.images import CLIP_MEAN, CLIP_STD, decode_images
from handclip_lib.data.places import cache_folder
from handclip_lib.files import whole_file

SEED = 10_000  # of the people; a drawn data set's people follow from its seed, and its default is 0
PEOPLE, PHOTOGRAPHS = 24, 2  # of each person, in each of the two aspects of a batch
TEMPERATURE = 0.07  # of the photograph-to-photograph loss
HAND_WEIGHT = 4.0  # of that loss, beside the captions'


def caption(record: Mapping[Any, Any]) -> str:
    """What the metadata say of a photograph: "a photo of a right dorsal hand with dark skin, female, …"."""
    parts = [f"a photo of a {record['side']} {record['view']} hand with {record['skin_color']} skin"]
    parts += [str(record["gender"]), f"{record['age']} years old"]
    parts += [name for name, field in (("jewellery", "accessories"), ("nail polish", "nail_polish")) if record[field]]
    return ", ".join(parts)


def same_group_loss(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against all positives of a row: mean over rows of −mean over positives of log softmax.

    Args:
        logits: Scaled similarities, shape (n, m); −inf takes a pair out.
        positive: Which pairs belong together, bool, shape (n, m), at least one in each row.

    Source: Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2.
    """
    log_share = logits.log_softmax(dim=1).masked_fill(~positive, 0)
    return -(log_share.sum(dim=1) / positive.sum(dim=1)).mean()


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, scale, turn, brighten and tint a little, never flip: a mirrored right hand is a left one.

    Only a little: drawn photographs vary in all of these themselves, and more slowed the learning.

    Takes uint8, shape (n, side, side, 3); gives CLIP's normalised float32, shape (n, 3, side, side).
    """
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    angle, scale = uniform(-0.03, 0.03), uniform(0.97, 1.03)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    matrix = torch.cat([turn, uniform(-0.05, 0.05, 2, 1)], dim=2)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = images * uniform(0.9, 1.1, 1, 1, 1) * uniform(0.98, 1.02, 3, 1, 1)
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (images.clamp(0, 1) - mean) / std


def new_tiny() -> Backbone:
    """An untrained `tiny` on the CPU, as openai-clip initialises it but for the places of the patches.

    They start as sines and cosines: a thousand steps are too few to learn them from openai-clip's small noise.
    """
    shape = SHAPES["tiny"]
    model = clip_package().model.CLIP(
        shape.embedding_dim, shape.resolution, shape.vision_layers, shape.vision_width, shape.patch_size,
        shape.context_length, shape.vocab_size, shape.text_width, shape.text_width // 64, shape.text_layers,
    )  # fmt: skip
    grid = shape.resolution // model.visual.conv1.stride[0]
    places = torch.linspace(-1, 1, grid)
    y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(places, places, indexing="ij"))
    angles = torch.pi * torch.logspace(0, np.log2(grid), shape.vision_width // 4, base=2) / 2
    waves = torch.cat([wave(axis * angles) for axis in (x, y) for wave in (torch.sin, torch.cos)], dim=1)
    model.visual.positional_embedding.data[1:] = 0.7 * waves
    return Backbone("tiny", model, shape.resolution, shape.embedding_dim, 77, torch.device("cpu"), "")


def draw_batch(groups: Mapping[tuple[str, str], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch from rows by (aspect, identity): two aspects, `PEOPLE` in each, `PHOTOGRAPHS` of each."""
    rows = []
    for aspect in rng.permutation(sorted({aspect for aspect, _ in groups}))[:2]:
        people = [key for key in groups if key[0] == aspect]
        for number in rng.permutation(len(people))[:PEOPLE]:
            rows.append(rng.choice(groups[people[number]], PHOTOGRAPHS, replace=False))
    return np.concatenate(rows)


def pretrain(
    pixels: np.ndarray,
    aspects: Sequence[str],
    identities: Sequence[str],
    captions: Sequence[str],
    minutes: float,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> tuple[Any, int]:
    """Train a CLIP of tiny's shape: captions to photographs, and photographs of one hand to each other.

    Args:
        pixels: uint8, shape (n, 64, 64, 3).
        aspects, identities, captions: Of each photograph.
        minutes: Wall clock; warm-up and cosine follow it, so the last step has a learning rate near 0.
        learning_rate: The highest.
        seed: Of the weights, the batches and the augmentation.

    Returns:
        The model in evaluation mode, and the number of steps taken.
    """
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    tiny = new_tiny()
    model, keys = tiny.model, list(zip(aspects, identities, strict=True))
    found = {key: np.flatnonzero([other == key for other in keys]) for key in dict.fromkeys(keys)}
    groups = {key: rows for key, rows in found.items() if len(rows) >= PHOTOGRAPHS}
    number = {key: position for position, key in enumerate(groups)}
    # most tokens are never seen: decay would only shrink their embeddings
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and "embedding" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim <= 1 or "embedding" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=learning_rate
    )
    step, start, done = 0, time.monotonic(), 0.0
    with tqdm(total=100, unit="%", desc="pretraining") as bar:
        while done < 1:
            rows = draw_batch(groups, rng)
            texts = list(dict.fromkeys(captions[row] for row in rows))
            text_of = torch.tensor([texts.index(captions[row]) for row in rows])
            hand_of = torch.tensor([number[keys[row]] for row in rows])
            images = augment(torch.from_numpy(pixels[rows]), generator)

            image = F.normalize(model.encode_image(images), dim=1)
            text = F.normalize(model.encode_text(tiny.tokenize(texts)), dim=1)
            logits = model.logit_scale.exp() * image @ text.T
            described = text_of[:, None] == torch.arange(len(texts))
            caption_loss = (same_group_loss(logits, described) + same_group_loss(logits.T, described.T)) / 2
            itself = torch.eye(len(rows), dtype=torch.bool)
            same_hand = (hand_of[:, None] == hand_of) & ~itself
            similarity = (image @ image.T / TEMPERATURE).masked_fill(itself, -torch.inf)
            hand_loss = same_group_loss(similarity, same_hand)

            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1, (step + 1) / 100) * (1 + np.cos(np.pi * done)) / 2
            optimizer.zero_grad()
            (caption_loss + HAND_WEIGHT * hand_loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))

            step, done = step + 1, min(1.0, (time.monotonic() - start) / (60 * minutes))
            bar.set_postfix(step=step, caption=caption_loss.item(), hand=hand_loss.item(), refresh=False)
            bar.update(int(100 * done) - bar.n)
    return model.eval(), step


def main() -> None:
    """Draw, train, write the weights in half precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subjects", type=int, default=500, help="people to draw")
    parser.add_argument("--images", type=int, default=4, help="photographs of each person in each aspect")
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--data", type=Path, help="where to draw; default: the cache folder")
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS, help="the weights to write")
    options = parser.parse_args()
    root = options.data or cache_folder() / f"pretrain-{options.subjects}x{options.images}"
    draw_dataset(root, subjects=options.subjects, images_per_aspect=options.images, seed=SEED)
    table = read_hands11k(root).images
    decoded = decode_images(root, list(table["path"]), SHAPES["tiny"].resolution)
    table = table.set_index("path").loc[list(decoded.paths)]
    captions = [caption(record) for record in table.to_dict("records")]
    model, steps = pretrain(
        np.array(decoded.pixels), list(table["aspect"]), list(table["identity"]), captions, options.minutes
    )
    with whole_file(options.out) as private:
        safetensors.torch.save_file({name: p.half().contiguous() for name, p in model.state_dict().items()}, private)
    tqdm.write(f"{options.out}: {steps} steps, {len(table)} photographs of {options.subjects} people")


if __name__ == "__main__":
    main()
