"""Image fine-tune: the image tower learns to tell training identities (CLIP-FH stage 1, CLIP-ReID stage 2)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.data.augment import augment
from handclip_lib.data.batches import identity_batches
from handclip_lib.errors import TrainingError
from handclip_lib.losses.center import center_loss
from handclip_lib.losses.contrastive import group_cross_entropy, supervised_contrastive
from handclip_lib.losses.triplet import batch_hard_triplet
from handclip_lib.losses.weighted import WeightedLoss
from handclip_lib.models.hand_encoder import HandEncoder
from handclip_lib.training.checkpoints import resume_checkpoint, save_checkpoint
from handclip_lib.training.history import History
from handclip_lib.training.schedule import one_cycle, warm_up_cosine

PRECISIONS = ("fp32", "bf16")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("cosine", "one_cycle")
WITH_TEXT = ("image_to_text", "text_supcon")
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class ImageResult:
    """What a fine-tune gives; the encoder holds the best epoch's weights.

    Attributes:
        history: One row an epoch, from 0 (before training): the loss and its terms, what `validate` returned,
            gradient norm before clipping, learning rate, seconds.
        best_epoch: The epoch with the highest `select_by`.
    """

    history: pd.DataFrame
    best_epoch: int


def fit_image(
    encoder: HandEncoder,
    pixels: np.ndarray,
    identities: np.ndarray,
    *,
    weights: Mapping[str, float],
    text: np.ndarray | None = None,
    epochs: int = 30,
    n_identities: int = 32,
    n_images: int = 4,
    views: int = 2,
    learning_rate: float = 5e-4,
    head_learning_rate: float = 5e-3,
    center_learning_rate: float = 0.5,
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    schedule: str = "cosine",
    warm_up: int = 2,
    clip_gradient: float = 5.0,
    label_smoothing: float = 0.1,
    margin: float = 0.3,
    temperature: float = 0.1,
    augmentation: float = 1.0,
    flip: bool = False,
    precision: str = "fp32",
    keeps_frozen: bool = True,
    validate: Callable[[Callable[[np.ndarray], np.ndarray]], Mapping[str, float]] | None = None,
    select_by: str = "val_rank1",
    patience: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = True,
) -> ImageResult:
    """Train the image tower and its head.

    Terms: `identity` (cross-entropy of the head's logits), `triplet` (batch-hard, on embeddings of length 1),
    `supcon` (all photographs of an identity in the batch are alike), `center` (distance to a learnt centre of the
    identity, on embeddings of length 1), `image_to_text` (cross-entropy over the texts of all identities, which are
    frozen), `text_supcon` (supervised contrastive between the batch's photographs and their texts, both ways).

    Args:
        encoder: Trained in place; holds the best epoch's weights at the end.
        pixels: uint8, shape (n, side, side, 3).
        identities: Of each image, its place among the encoder's identities, int64 (n,).
        weights: Of the terms, 0 or more; a term of weight 0 is not computed.
        text: Frozen text features of all identities, (n_identities, size); the terms with text need them.
        epochs: Each shows every image `views` times.
        n_identities, n_images: P and K of a batch.
        views: Augmented views of each image in a batch.
        learning_rate, head_learning_rate: The highest, of the tower and of what is put on it.
        center_learning_rate: Of the centres, which plain SGD moves whatever the weight of their loss is.
        optimizer: "adamw" or "adam" (whose weight decay is part of the gradient).
        weight_decay: On matrices and filters only.
        schedule: "cosine", after the warm-up, or "one_cycle"; both change with every step.
        warm_up: Epochs in which the rates rise, with "cosine".
        clip_gradient: Largest length of the gradient, applied before the step.
        label_smoothing: Of `identity`.
        margin: Of `triplet`, in Euclidean distance of embeddings of length 1.
        temperature: Of `supcon`, `image_to_text` and `text_supcon`, which compare by the cosine.
        augmentation, flip: See `augment`.
        precision: "fp32" or "bf16" (the tower under autocast; the weights stay float32).
        keeps_frozen: Without augmentation, compute the frozen blocks' activations of every image once and keep them in
            memory (ViT-B/16: 0.6 MB an image); the result is the same.
        validate: Takes an encoder of uint8 images, in evaluation mode; returns measures by name.
        select_by: The measure whose highest value is the best epoch, of equals the earliest; or "loss", the lowest.
        patience: Epochs without a better one after which training stops; 0: never.
        seed: Of batches and augmentation.
        folder: Where `image.safetensors` is written after every epoch; a training that finds its own goes on from it.
        progress: Show a bar.

    Raises:
        ConfigError: A weight or term makes no sense.
        TrainingError: A value is out of bounds, a loss is no number, or the checkpoint is of another training.
    """
    _check(encoder, pixels, identities, text, weights, epochs, views, precision, optimizer, schedule)
    device = encoder.classifier.device
    texts = None if text is None else F.normalize(torch.as_tensor(np.asarray(text, np.float32), device=device), dim=1)
    loss_of = WeightedLoss(_terms(encoder, texts, label_smoothing, margin, temperature), weights)
    options = {
        "weights": dict(loss_of.weights), "epochs": epochs, "n_identities": n_identities, "n_images": n_images,
        "views": views, "learning_rate": learning_rate, "head_learning_rate": head_learning_rate,
        "center_learning_rate": center_learning_rate, "optimizer": optimizer, "schedule": schedule,
        "weight_decay": weight_decay, "warm_up": warm_up, "clip_gradient": clip_gradient,
        "label_smoothing": label_smoothing, "margin": margin, "temperature": temperature,
        "augmentation": augmentation, "flip": flip, "precision": precision, "select_by": select_by,
        "patience": patience, "seed": seed, "images": int(pixels.astype(np.int64).sum()),
        "encoder": encoder.recipe, "text": None if text is None else float(np.abs(text).sum(dtype=np.float64)),
    }  # fmt: skip
    encoder.centers.requires_grad_("center" in loss_of.weights)
    adam = OPTIMIZERS[optimizer](_groups(encoder, learning_rate, head_learning_rate, weight_decay))
    sgd = torch.optim.SGD([encoder.centers], lr=center_learning_rate)
    steps_of = [len(identity_batches(identities, n_identities, n_images, _rng(seed, e))) for e in range(epochs)]
    before = np.concatenate([[0], np.cumsum(steps_of)])
    state = _State(encoder, adam, options, folder / "image.safetensors" if folder else None)
    if not state.resumed():
        state.close_epoch({"epoch": 0, **_measured(encoder, validate)})
    reuses = encoder.has_frozen_part and not augmentation and not flip and keeps_frozen
    held = _held(encoder, pixels, precision) if reuses else None
    learning = [p for group in adam.param_groups for p in group["params"]]
    highest = [group["lr"] for group in adam.param_groups]
    bar = tqdm(total=epochs, initial=state.history.epoch, desc="fine-tuning", unit="epoch", disable=not progress)
    while state.history.epoch < epochs and not state.history.stops(patience):
        began, epoch, seen = time.monotonic(), state.history.epoch, []
        encoder.train()
        for number, batch in enumerate(identity_batches(identities, n_identities, n_images, _rng(seed, epoch))):
            rows, step = np.tile(batch, views), int(before[epoch]) + number
            ids = torch.as_tensor(identities[rows], device=device)
            generator = torch.Generator().manual_seed(int(_rng(seed, epoch, number).integers(2**62)))
            if held is None:
                images = augment(torch.from_numpy(pixels[rows]).to(device), generator, augmentation, flip)
            if schedule == "one_cycle":
                factor = one_cycle(step, int(before[-1]))
            else:
                factor = warm_up_cosine(step, int(before[-1]), int(before[min(warm_up, epochs)]))
            for group, rate in zip(adam.param_groups, highest, strict=True):
                group["lr"] = rate * factor
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                embeddings = (
                    encoder.encode_image(images) if held is None else encoder.learning_part(held[rows].to(device))
                )
            loss, terms = loss_of(embeddings=embeddings, ids=ids)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} in epoch {epoch + 1}, batch {number + 1} of {len(rows)} images: lower "
                    f"learning_rate={learning_rate:g}; the best epoch so far is kept"
                )
            encoder.zero_grad()
            loss.backward()
            gradient = torch.nn.utils.clip_grad_norm_(learning, clip_gradient)
            adam.step()
            if encoder.centers.grad is not None:  # as if the centre loss had weight 1
                encoder.centers.grad /= loss_of.weights["center"]
                sgd.step()
            seen.append([len(rows), loss.item(), gradient.item(), *(value.item() for value in terms.values())])
        means = np.average(np.array(seen)[:, 1:], axis=0, weights=np.array(seen)[:, 0])
        names = ("loss", "gradient_norm", *terms)
        row = {"epoch": epoch + 1, **dict(zip(names, means.tolist(), strict=True))}
        row |= {"learning_rate": adam.param_groups[0]["lr"], **_measured(encoder, validate)}
        row["seconds"] = time.monotonic() - began
        state.close_epoch(row)
        bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", select_by) if name in row})
        bar.update()
    bar.close()
    return state.result()


@torch.inference_mode()
def encode_images(encoder: HandEncoder, pixels: np.ndarray) -> np.ndarray:
    """Embeddings of uint8 images in evaluation mode, float32 (n, embedding_dim)."""
    encoder.eval()
    device, parts = encoder.classifier.device, []
    for start in range(0, len(pixels), ENCODED_AT_ONCE):
        some = torch.from_numpy(np.array(pixels[start : start + ENCODED_AT_ONCE])).to(device)
        parts.append(encoder.encode_image(augment(some, torch.Generator(), strength=0)).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _held(encoder: HandEncoder, pixels: np.ndarray, precision: str) -> Tensor:
    """What the frozen blocks give for every image: with no augmentation it is the same in every epoch."""
    encoder.eval()
    device, parts = encoder.classifier.device, []
    for start in tqdm(range(0, len(pixels), ENCODED_AT_ONCE), desc="frozen blocks", unit="batch"):
        some = torch.from_numpy(np.array(pixels[start : start + ENCODED_AT_ONCE])).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            parts.append(encoder.frozen_part(augment(some, torch.Generator(), strength=0)).cpu())
    return torch.cat(parts)


def _measured(encoder: HandEncoder, validate: Callable[..., Mapping[str, float]] | None) -> dict[str, float]:
    return dict(validate(lambda pixels: encode_images(encoder, pixels))) if validate else {}


def _terms(
    encoder: HandEncoder, texts: Tensor | None, label_smoothing: float, margin: float, temperature: float
) -> dict[str, Callable[..., Tensor]]:
    def supcon(embeddings: Tensor, ids: Tensor) -> Tensor:
        unit, itself = F.normalize(embeddings, dim=1), torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
        return group_cross_entropy(logits, (ids[:, None] == ids) & ~itself)

    def image_to_text(embeddings: Tensor, ids: Tensor) -> Tensor:
        assert texts is not None
        return F.cross_entropy(F.normalize(embeddings, dim=1) @ texts.T / temperature, ids)

    def text_supcon(embeddings: Tensor, ids: Tensor) -> Tensor:
        assert texts is not None
        pair = (embeddings, texts[ids])
        both = [supervised_contrastive(*way, ids, ids, temperature, normalize=True) for way in (pair, pair[::-1])]
        return both[0] + both[1]

    return {
        "identity": lambda embeddings, ids: F.cross_entropy(
            encoder.logits(embeddings, ids), ids, label_smoothing=label_smoothing
        ),
        "triplet": lambda embeddings, ids: batch_hard_triplet(F.normalize(embeddings, dim=1), ids, margin),
        "supcon": supcon,
        "center": lambda embeddings, ids: center_loss(F.normalize(embeddings, dim=1), encoder.centers, ids),
        "image_to_text": image_to_text,
        "text_supcon": text_supcon,
    }


def _groups(encoder: HandEncoder, rate: float, head_rate: float, decay: float) -> list[dict[str, Any]]:
    """Every tensor that learns, but for the centres, in exactly one group; weight decay on matrices alone."""
    head = {id(p) for p in encoder.head_parameters()}
    groups = []
    for is_head, own_rate in ((False, rate), (True, head_rate)):
        for is_matrix, own_decay in ((True, decay), (False, 0.0)):
            found = [
                p for p in encoder.parameters()
                if p.requires_grad and p is not encoder.centers
                and (id(p) in head) == is_head and (p.ndim > 1) == is_matrix
            ]  # fmt: skip
            if found:
                groups.append({"params": found, "lr": own_rate, "weight_decay": own_decay})
    return groups


def _check(
    encoder: HandEncoder, pixels: np.ndarray, identities: np.ndarray, text: np.ndarray | None,
    weights: Mapping[str, float], epochs: int, views: int, precision: str,
    optimizer: str, schedule: str,
) -> None:  # fmt: skip
    faults, count = [], len(encoder.classifier)
    if len(pixels) != len(identities):
        faults.append(f"{len(pixels)} images and {len(identities)} identities: give each image one")
    if len(np.unique(identities)) < 2:
        faults.append(f"images of {len(np.unique(identities))} identities: at least two are needed")
    elif identities.min() < 0 or identities.max() >= count:
        faults.append(f"identity number {identities.max()}: the classifier has {count}, from 0")
    if any(weights.get(name, 0) > 0 for name in WITH_TEXT) and (text is None or len(text) != count):
        faults.append(
            f"{' and '.join(WITH_TEXT)}: need a text for each of {count} identities, "
            f"got {0 if text is None else len(text)}"
        )
    if epochs < 1 or views < 1:
        faults.append(f"epochs={epochs}, views={views}: at least one each")
    for name, value, known in (
        ("precision", precision, PRECISIONS),
        ("optimizer", optimizer, OPTIMIZERS),
        ("schedule", schedule, SCHEDULES),
    ):
        if value not in known:
            faults.append(f"{name}={value!r}: choose from {', '.join(known)}")
    if faults:
        raise TrainingError("; ".join(faults))


def _rng(*key: int) -> np.random.Generator:
    """Depends on its key alone, so an interrupted training goes on as it would have."""
    return np.random.default_rng(list(key))


class _State:
    """Where a training stands, and its file."""

    def __init__(
        self, encoder: HandEncoder, optimizer: torch.optim.Optimizer, options: dict[str, Any], file: Path | None
    ):
        self._encoder, self._optimizer, self._options, self._file = encoder, optimizer, options, file
        self.history = History(options["select_by"])
        self._best = self._copy()

    def close_epoch(self, row: dict[str, Any]) -> None:
        """Take an epoch's figures, keep its weights where they are the best, and write the file."""
        if self.history.add(row):
            self._best = self._copy()
        if self._file is not None:
            self._write(self._file)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._encoder.state_dict().items()}

    def _write(self, file: Path) -> None:
        tensors = {f"now.{name}": value for name, value in self._encoder.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        save_checkpoint(file, tensors, {"options": self._options, **self.history.facts()})

    def resumed(self) -> bool:
        """Take up the training whose file is there; whether there was one."""
        found = resume_checkpoint(self._file, self._options)
        if found is None:
            return False
        tensors, facts = found
        self.history.restore(facts)
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        self._encoder.load_state_dict(parts["now"])
        self._best = parts["best"]
        stored = self._optimizer.state_dict()
        for name, value in parts["adam"].items():
            number, _, moment = name.partition(".")
            stored["state"].setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict(stored)
        return True

    def result(self) -> ImageResult:
        """The training's result; the encoder takes the best epoch's weights."""
        self._encoder.load_state_dict(self._best)
        self._encoder.eval()
        return ImageResult(self.history.frame(), self.history.best_epoch)
