"""Every figure of a GPU in one start of a few minutes, by the paths that notebooks take. `python -m benchmarks.gpu`.

Without a GPU the same rows run on the CPU, on a small model, to show that they run; they say nothing of a GPU then.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import torch
from PIL import Image

from benchmarks.fine_tune import FLOP_AN_IMAGE, IDENTITIES
from benchmarks.prompts import random_clip, step
from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.open import open_images
from handclip_lib.evaluation.features import embed, extract_features, key_of
from handclip_lib.evaluation.ranking.protocol import evaluate_models
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.notebooks import Evaluation
from handclip_lib.parameters.parts import ImageTraining, Precision, Prompts, ReidHead
from handclip_lib.training.image import fit_image

FORWARD = 3  # a training step is about three passes forward
PHOTOGRAPH = 1600, 1200  # pixels of 11k Hands
TRAININGS = {
    "all blocks": {}, "all blocks, recompute": {"recompute": True}, "last 2 blocks": {"unfreeze_blocks": 2},
    "adapters of rank 8": {"lora_rank": 8},
}  # fmt: skip
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def seconds(work: Callable[[], object], device: torch.device, steps: int) -> float:
    """Seconds a call, after two to warm up."""
    for _ in range(2):
        work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        work()
    _wait(device)
    return (time.perf_counter() - began) / steps


def limit_of(device: torch.device, steps: int, side: int) -> float:
    """Operations a second that a product of square bf16 matrices reaches."""
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds(lambda: matrix @ matrix, device, steps)


def random_images(backbone: Backbone, n: int) -> DecodedImages:
    """As decoded photographs are held, each another."""
    side = backbone.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)
    names = tuple(f"{number}.jpg" for number in range(n))
    return DecodedImages(names, pixels, {}, names)


def decoding(n: int, folder: Path) -> float:
    """Photographs a second from JPEG files to the cache of pixels, on all cores."""
    rng = np.random.default_rng(0)
    for number in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    began = time.perf_counter()
    decode_images(folder, [f"{number}.jpg" for number in range(n)], 224, cache=folder / "cache", progress=False)
    return n / (time.perf_counter() - began)


def extraction(backbone: Backbone, images: DecodedImages, batch: int, folder: Path) -> float:
    """Images a second from pixels in memory to embeddings on disk, as notebooks embed them."""
    of = partial(extract_features, backbone.encode_image, batch_size=batch, progress=False)
    of(images.select(images.paths[: 2 * batch]), encoder_key="warm", cache=folder)
    began = time.perf_counter()
    of(images, encoder_key=key_of(backbone), cache=folder)
    return len(images.paths) / (time.perf_counter() - began)


def training(backbone: Backbone, images: DecodedImages, precision: Precision, head: dict, batch: int) -> float:
    """Images a second of notebook 03's training, augmented, in the second of three epochs, its end with it."""
    ids = np.arange(len(images.paths)) % IDENTITIES
    encoder = ReidEncoder(backbone.copy(), IDENTITIES, ReidHead(**head))
    options = ImageTraining(
        precision=precision, epochs=3, n_identities=min(IDENTITIES, batch // 8), n_images=4, views=2, select_by="loss"
    )
    history = fit_image(encoder, images.pixels, ids, options, progress=False).history
    return 2 * len(images.paths) / float(history["seconds"].iloc[2])


def prompt_steps(backbone: Backbone, batch: int, steps: int) -> tuple[float, float]:
    """Seconds of a step of prompt learning, four images a person: images encoded again, as seeds do, and kept."""
    learner = PromptLearner(backbone, [str(number) for number in range(IDENTITIES)], Prompts()).to(backbone.device)
    side = backbone.resolution
    pixels = torch.randn(batch, 3, side, side, device=backbone.device)
    ids = torch.arange(batch // 4, device=backbone.device).repeat_interleave(4) % IDENTITIES
    with torch.no_grad():
        kept = backbone.model.encode_image(pixels)

    def again() -> None:
        learner.context.grad = None
        with torch.no_grad():
            image = backbone.model.encode_image(pixels)
        step(image, learner.encode_text_plainly(ids), ids)

    def ours() -> None:
        learner.context.grad = None
        distinct, place = ids.unique(return_inverse=True)
        step(kept, learner.encode_text(distinct)[place], ids)

    return seconds(again, backbone.device, steps), seconds(ours, backbone.device, steps)


def agreement(device: str, subjects: int) -> list[str]:
    """Rank-1 and mAP of drawn hands by `tiny`, at each precision and on the CPU, and how far cosines are off that."""
    config = Evaluation(drawn_subjects=subjects, draws=10)
    plain = load_backbone("tiny", device="cpu")
    _, images, split = open_images(config, plain.resolution, "bicubic")
    lines, exact = [], np.empty(0)
    for where, precision in (("cpu", "fp32"), *((device, precision) for precision in PRECISIONS)):
        model = replace(load_backbone("tiny", device=where, precision=precision), fingerprint=f"{where} {device}")
        features = embed(model, images, config.batch_size)
        result = evaluate_models({"model": features}, split)[0]
        cosines = features.embeddings.astype(np.float64) @ features.embeddings.T.astype(np.float64)
        exact = exact if len(exact) else cosines
        rank1, map_ = result.rank1, 100 * result.per_query["average_precision"].mean()
        figures = f"rank-1 {100 * rank1.estimate:.1f} ({100 * rank1.low:.1f}–{100 * rank1.high:.1f}), mAP {map_:.1f}"
        lines.append(f"  {where} {precision}: {figures}; cosines off by {np.abs(cosines - exact).max():.1e} at most")
    return lines


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print a row a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="of extraction and training; 0 leaves both out")
    options = parser.parse_args()
    began = time.perf_counter()
    there = torch.cuda.is_available()
    device = torch.device("cuda" if there else "cpu")
    backbone = random_clip(device=device) if there else load_backbone("tiny", device="cpu")
    batch, steps, side, subjects = (256, 10, 8192, 140) if there else (32, 1, 256, 24)
    n = options.images if options.images is not None else 4096 if there else 64
    where = torch.cuda.get_device_name() if there else "CPU, small size: not measured on a GPU"
    print(f"{'ViT-B/16' if there else backbone.name} on {where}, torch {torch.__version__}", flush=True)

    def row(name: str, value: str) -> None:
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most" if there else "memory not measured"
        print(f"  {name:<44} {value:>30}   {peak}", flush=True)
        if there:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    limit = limit_of(device, steps, side)
    row(f"bf16 product of {side} × {side}", f"{limit / 1e12:,.2f} TFLOP/s")
    again, kept = prompt_steps(backbone, 64, steps)
    row("prompt step, B = 64: images encoded again : kept", f"{1e3 * again:,.1f} : {1e3 * kept:,.1f} ms")

    def share(rate: float, flop: float) -> str:
        return f", {100 * rate * flop / limit:.0f} % of the limit" if there else ""

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        row(
            f"JPEGs of {PHOTOGRAPH[0]} × {PHOTOGRAPH[1]}, decoded",
            f"{decoding(512 if there else 8, folder):,.0f} images/s",
        )
        for precision in PRECISIONS if n else ():
            rate = extraction(replace(backbone, precision=precision), random_images(backbone, n), batch, folder)
            row(f"embedded, {precision}, B = {batch}", f"{rate:,.0f} images/s{share(rate, FLOP_AN_IMAGE / FORWARD)}")
    for title, head in TRAININGS.items() if n and there else ():
        for precision in PRECISIONS if not head else ("bf16",):
            some = random_images(backbone, n // 4 if precision == "fp32" else n)
            rate = training(backbone, some, precision, head, batch)
            row(f"trained, {title}, {precision}, B = {batch}", f"{rate:,.0f} images/s{share(rate, FLOP_AN_IMAGE)}")
    if n and not there:
        row("trained, bf16", f"{training(backbone, random_images(backbone, n), 'bf16', {}, batch):,.0f} images/s")
    print(f"tiny, {subjects} drawn subjects, ten draws", *agreement(device.type, subjects), sep="\n")
    print(f"{time.perf_counter() - began:.0f} s in all" + ("" if there else "; not measured on a GPU"))


if __name__ == "__main__":
    main()
