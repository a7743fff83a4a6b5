"""Every figure of a GPU in one start of at most six minutes. `python -m benchmarks.gpu`.

Without a GPU the same rows run on the CPU, on a small model, to show that they run; they say nothing of a GPU then.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.fine_tune import FLOP_AN_IMAGE, IDENTITIES
from benchmarks.prompts import random_clip
from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.losses import batch_hard_triplet, supervised_contrastive
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import Prompts, ReidHead

ALIKE = 0.01  # of the cosine: what rounding to 16 bits may move it by
FORWARD = 3  # a training step is about three passes forward
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def fine_tuning(backbone: Backbone, batch: int, steps: int) -> float:
    """Images a second of whole training steps in bf16: all weights, identity and triplet loss, AdamW."""
    encoder = ReidEncoder(backbone, IDENTITIES, ReidHead()).to(backbone.device).train()
    images = _images(backbone, batch)
    ids = torch.arange(batch // 4, device=backbone.device).repeat_interleave(4) % IDENTITIES
    adam = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], 1e-5)

    def step() -> None:
        adam.zero_grad()
        with torch.autocast(backbone.device.type, torch.bfloat16):
            embeddings = encoder.encode_image(images)
        loss = torch.nn.functional.cross_entropy(encoder.logits(embeddings, ids), ids)
        (loss + batch_hard_triplet(embeddings.float(), ids)).backward()
        adam.step()

    return batch / seconds(step, backbone.device, steps)


@torch.inference_mode()
def extraction(backbone: Backbone, batch: int, steps: int) -> float:
    """Images a second of the frozen image tower in bf16, the images on the device already."""
    images = _images(backbone, batch)
    with torch.autocast(backbone.device.type, torch.bfloat16):
        return batch / seconds(lambda: backbone.model.encode_image(images), backbone.device, steps)


def prompt_step(backbone: Backbone, batch: int, steps: int) -> float:
    """Seconds of a step of prompt learning, image embeddings kept, four images a person."""
    learner = PromptLearner(backbone, [str(number) for number in range(IDENTITIES)], Prompts()).to(backbone.device)
    images = torch.randn(batch, backbone.embedding_dim, device=backbone.device)
    ids = torch.arange(batch // 4, device=backbone.device).repeat_interleave(4) % IDENTITIES

    def step() -> None:
        learner.context.grad = None
        distinct, place = ids.unique(return_inverse=True)
        texts = learner.encode_text(distinct)[place]
        (supervised_contrastive(images, texts, ids, ids) + supervised_contrastive(texts, images, ids, ids)).backward()

    return seconds(step, backbone.device, steps)


@torch.inference_mode()
def agreement(backbone: Backbone, n: int) -> dict[str, float]:
    """How far cosines of n images in each precision are from those of the CPU in fp32, at most."""
    images = _images(backbone, n)

    def cosines(embeddings: torch.Tensor) -> np.ndarray:
        rows = torch.nn.functional.normalize(embeddings.double().cpu())
        return (rows @ rows.T).numpy()

    found = {"fp32": cosines(backbone.model.encode_image(images))}
    for name, dtype in HALF.items():
        with torch.autocast(backbone.device.type, dtype):
            found[name] = cosines(backbone.model.encode_image(images))
    backbone.model.cpu()
    exact = cosines(backbone.model.encode_image(images.cpu()))
    backbone.model.to(backbone.device)
    return {name: float(np.abs(one - exact).max()) for name, one in found.items()}


def _images(backbone: Backbone, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, backbone.resolution, backbone.resolution, generator=generator).to(backbone.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print a row a figure."""
    began = time.perf_counter()
    there = torch.cuda.is_available()
    device = torch.device("cuda" if there else "cpu")
    backbone = random_clip(device=device) if there else load_backbone("tiny", device="cpu")
    batch, steps, side = (256, 10, 8192) if there else (8, 1, 256)
    where = torch.cuda.get_device_name() if there else "CPU, small size: not measured on a GPU"
    print(f"{'ViT-B/16' if there else backbone.name} on {where}", flush=True)

    def row(name: str, value: str) -> None:
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most" if there else "memory not measured"
        print(f"  {name:<44} {value:>18}   {peak}", flush=True)
        if there:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    limit = limit_of(device, steps, side)
    row(f"bf16 product of {side} × {side}", f"{limit / 1e12:,.2f} TFLOP/s")
    row(f"prompt step, B = {batch}", f"{1e3 * prompt_step(backbone, batch, steps):,.1f} ms")
    rate = extraction(backbone, 4 * batch, steps)
    row(f"frozen extraction, bf16, B = {4 * batch}", f"{rate:,.0f} images/s")
    if there:
        row("  share of the bf16 limit", f"{100 * rate * FLOP_AN_IMAGE / FORWARD / limit:.0f} %")
    # random weights find all images alike, so that nothing could be off
    for name, off in agreement(load_backbone("tiny", device=device.type), 64).items():
        row(f"tiny's cosines in {name}, off the CPU's in fp32", f"{off:.5f}{'' if off < ALIKE else ', TOO MUCH'}")
    rate = fine_tuning(backbone, batch, steps)
    row(f"whole fine-tuning step, bf16, B = {batch}", f"{rate:,.0f} images/s")
    if there:
        row("  share of the bf16 limit", f"{100 * rate * FLOP_AN_IMAGE / limit:.0f} %")
    print(f"{time.perf_counter() - began:.0f} s in all" + ("" if there else "; not measured on a GPU"))


if __name__ == "__main__":
    main()
