"""Reading and encoding photographs: a peer's way beside ours. `python -m benchmarks.images [--data FOLDER]`."""

import argparse
import os
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.side_by_side import compare, heading
from handclip_lib.backbone.load import SHAPES, load_backbone
from handclip_lib.data.images import CLIP_MEAN, CLIP_STD, decode_images
from handclip_lib.drawn.dataset import draw_image
from handclip_lib.evaluation.features import extract_features
from tests.clip_checkpoints import write_checkpoint

RESOLUTION, DRAWS = 224, 10


def full_size_photographs(folder: Path, n: int = 24) -> None:
    """JPEGs of 1600×1200, as 11k Hands publishes them, of drawn hands."""
    for number in range(n):
        drawn = Image.fromarray(draw_image(number, "dorsal_r", 0)).resize((1600, 1200), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(number).normal(0, 2, (1200, 1600, 1))
        noisy = np.clip(np.asarray(drawn) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03d}.jpg", quality=92)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder of JPEGs of full size; drawn ones by default")
    parser.add_argument(
        "--encoders", nargs="*", default=["vitb16", "rn50"], help="sizes to encode with, random weights"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.data or Path(scratch) / "photographs"
        if options.data is None:
            root.mkdir()
            full_size_photographs(root)
        paths = sorted(path.name for path in root.glob("*.jpg"))[:24]
        reading(root, paths, Path(scratch))
        for name in options.encoders:
            encoding(name, root, paths, Path(scratch))


def folder_and_transforms(root: Path, paths: list[str], size: int) -> torch.Tensor:
    """The peers' loader: PIL decode in full, Resize, ToTensor, Normalize; no workers."""
    from torchvision import transforms

    steps = transforms.Compose(
        [
            transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN.tolist(), CLIP_STD.tolist()),
        ]
    )
    return torch.stack([steps(Image.open(root / path).convert("RGB")) for path in paths])


def reading(root: Path, paths: list[str], scratch: Path) -> None:
    """Files to pixels, fresh and from the cache."""
    heading(f"files to tensors, {len(paths)} JPEGs at {Image.open(root / paths[0]).size}, {os.cpu_count()} cores")
    fresh = iter(range(10**6))

    def ours_fresh() -> np.ndarray:
        cache = scratch / f"cache{next(fresh)}"
        return np.asarray(decode_images(root, paths, RESOLUTION, cache=cache, progress=False).pixels)

    def ours_cached() -> np.ndarray:
        return np.asarray(decode_images(root, paths, RESOLUTION, cache=scratch / "kept", progress=False).pixels)

    def peer() -> torch.Tensor:
        return folder_and_transforms(root, paths, RESOLUTION)

    compare("PIL + Resize + ToTensor, 0 workers : decoded fresh", peer, ours_fresh)
    compare("PIL + Resize + ToTensor, 0 workers : from the cache", peer, ours_cached)


def encoding(name: str, root: Path, paths: list[str], scratch: Path) -> None:
    """Files to features for ten draws: a peer encodes each split again, we encode each file once."""
    weights = scratch / f"{name}.pt"
    write_checkpoint(weights, SHAPES[name])
    backbone = load_backbone(name, weights, device="cpu", progress=False)
    tower = deepcopy(backbone.model.visual).to(memory_format=torch.contiguous_format)  # as openai-clip has it
    some = paths[:8]
    heading(f"files to features, {name} (random weights), {len(some)} photographs")
    caches = iter(range(10**6))

    @torch.inference_mode()
    def peer_once() -> np.ndarray:
        batch = folder_and_transforms(root, some, backbone.resolution)
        return tower(batch).numpy()

    def ours(draws: int = 1) -> np.ndarray:
        cache = scratch / f"features{next(caches)}"
        images = decode_images(root, some, backbone.resolution, cache=cache, progress=False)
        for _ in range(draws):
            features = extract_features(
                backbone.encode_image, images, encoder_key=name, batch_size=8, cache=cache / "f", progress=False
            )
        return features.embeddings

    cosine = (peer_once() / np.linalg.norm(peer_once(), axis=1, keepdims=True) * ours()).sum(1)
    print(f"cosine between the two ways: at least {cosine.min():.5f}")
    compare("one pass, ImageFolder way : ours", peer_once, ours, repeats=3)
    compare("ten draws, encoded for each : encoded once", lambda: [peer_once() for _ in range(DRAWS)],
            lambda: ours(DRAWS), repeats=1)  # fmt: skip


if __name__ == "__main__":
    main()
