"""`on_processes.py FOLDER [OPTIONS]`, one process or several: a training, its history and its weights."""

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import ImageTraining, ReidHead
from handclip_lib.training.image import fit_image
from handclip_lib.training.launch import Processes

RATES = {
    "triplet_weight": 1.0, "supcon_weight": 0.5, "center_weight": 0.1, "text_supcon_weight": 0.2,
    "select_by": "val_rank1", "learning_rate": 1e-5, "head_learning_rate": 1e-5, "center_learning_rate": 1e-3,
}  # fmt: skip
SIZE = {"epochs": 4, "n_identities": 3, "n_images": 3, "views": 1}


def train(folder: Path, *, apart: bool = False, stop_after: int = 0, raises: bool = False, **more) -> None:
    """Train.

    Args:
        folder: For checkpoint, history and weights.
        apart: Whether the other processes have a folder of their own.
        stop_after: Epochs after which the main process, and it alone, asks to stop; 0: it does not.
        raises: Whether the process that is not the main one fails, in the first epoch.
        more: Parameters of the training, and of the head.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [5, 4, 4, 3, 1])
    colours = rng.integers(0, 256, (5, 1, 1, 3))
    pixels = (colours[labels] + rng.integers(-40, 40, (17, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    torch.manual_seed(0)
    model = clip_package().model.CLIP(16, 32, 2, 64, 16, 77, 100, 64, 1, 1).eval()
    head = ReidHead(head="arcface", **{name: more.pop(name) for name in {*more} & {*ReidHead.model_fields}})
    encoder = ReidEncoder(Backbone("random", model, 32, 16, 77, torch.device("cpu"), ""), 5, head)
    texts = rng.normal(size=(5, 16)).astype(np.float32)
    processes, asked = Processes(torch.device("cpu")), []
    if raises and not processes.is_main:
        encoder.classifier.register_hook(lambda gradient: 1 / 0)

    def stop() -> bool:
        asked.append(None)
        return processes.is_main and len(asked) == stop_after

    seen = folder / "other" if apart and not processes.is_main else folder
    result = fit_image(
        encoder, pixels, labels, ImageTraining(**RATES | SIZE | {"interpolation": 1.0, "whitening": 0.0} | more),
        text=texts,
        validate=lambda encode: {"val_rank1": float(encode(pixels).sum())}, folder=seen, progress=False,
        stop=stop if stop_after else None,
    )  # fmt: skip
    print(f"one of {processes.count} processes: {len(result.history) - 1} epochs")
    if processes.is_main:
        result.history.to_csv(folder / "history.csv", index=False)
        safetensors.torch.save_file({n: v.contiguous() for n, v in encoder.state_dict().items()}, folder / "weights.st")


if __name__ == "__main__":
    train(Path(sys.argv[1]), **json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
