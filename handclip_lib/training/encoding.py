"""How a batch goes through an encoder: augmented or from the frozen cache, whole or in pieces, at some precision."""

from contextlib import AbstractContextManager
from copy import deepcopy
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.backbone.image_tower import autocast
from handclip_lib.data.batches import augment, plain
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import ENCODED_AT_ONCE, encode_images
from handclip_lib.parameters.parts import ImageTraining


def encode_once(encoder: ReidEncoder, images: np.ndarray, known: dict[bytes, np.ndarray]) -> np.ndarray:
    """`encode_images`, but of contents that are not `known` alone, which are added: the weights are to be the same."""
    if encoder.classifier.is_cuda:  # which embeds an image in less time than its content is hashed in
        return encode_images(encoder, images)
    keys = [blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]
    new = list({key: row for row, key in enumerate(keys) if key not in known}.values())
    for start in range(0, len(new), ENCODED_AT_ONCE):  # of all images no second copy is made
        rows = new[start : start + ENCODED_AT_ONCE]
        known.update(zip([keys[row] for row in rows], encode_images(encoder, images[rows]), strict=True))
    return np.stack([known[key] for key in keys])


class BatchEncoder:
    """Outputs of batches, and their gradient back to the weights.

    In pieces the gradient is that of the whole batch, by encoding twice (Gao et al., "Scaling Deep Contrastive Learning
    Batch Size under Memory Limited Setup", 2021); only batch norms, of a ResNet or PromptSG, see the pieces.
    """

    def __init__(self, encoder: ReidEncoder, pixels: np.ndarray, options: ImageTraining):
        """Take the images, uint8 (n, side, side, 3)."""
        self._encoder, self._pixels, self._options = encoder, pixels, options
        self._device = encoder.classifier.device
        self._on_gpu = _on_gpu(pixels, self._device)
        self._frozen: Tensor | None = None
        self._teacher: Any = None
        if options.distillation_weight:
            shared = {id(p): p for p in encoder.visual.parameters() if not p.requires_grad}
            self._teacher = deepcopy(encoder.visual, shared).eval().requires_grad_(False)
        self._pieces: list[Tensor] = []

    @torch.no_grad()
    def keep_frozen(self, progress: bool) -> None:
        """Keep what the frozen blocks give for every image, where it is the same in every epoch: not augmented.

        It takes memory (ViT-B/16: 0.6 MB an image) and changes no result.
        """
        if not self._encoder.has_frozen_part or self._options.augmentation or self._options.flip:
            return
        self._encoder.eval()
        parts = []
        starts = range(0, len(self._pixels), ENCODED_AT_ONCE)
        for start in tqdm(starts, desc="frozen blocks", unit="batch", disable=not progress):
            some = torch.from_numpy(np.array(self._pixels[start : start + ENCODED_AT_ONCE])).to(self._device)
            with self._autocast():
                parts.append(self._encoder.frozen_part(plain(some, self._encoder.normalisation)).cpu())
        self._frozen, self._on_gpu = torch.cat(parts), None  # the images are asked no more

    def inputs(self, rows: np.ndarray, own: slice, seeds: list[int]) -> Tensor:
        """Of this process's own part of a batch: augmented images, or what the frozen blocks gave of them."""
        if self._frozen is not None:
            return self._frozen[rows[own]].to(self._device)
        if self._on_gpu is not None:
            images = self._on_gpu[torch.from_numpy(rows[own]).to(self._device)]
        else:
            images = torch.from_numpy(self._pixels[rows[own]]).to(self._device)
        options, by = self._options, self._encoder.normalisation
        return augment(images, seeds[own], options.augmentation, options.flip, by)

    def encode(self, inputs: Tensor) -> dict[str, Tensor]:
        """What the losses look at; where the batch is in pieces, leaves that the loss's gradient comes back to."""
        self._pieces = _pieces(inputs, self._options.encoded_at_once)
        return self._outputs(inputs) if len(self._pieces) == 1 else self._in_pieces()

    def backward(self, outputs: dict[str, Tensor]) -> None:
        """Hand the gradient of outputs in pieces on to the weights, one piece's graph at a time."""
        if len(self._pieces) == 1:
            return
        gradients = {name: output.grad for name, output in outputs.items() if output.grad is not None}
        parts = {name: grad.split([len(piece) for piece in self._pieces]) for name, grad in gradients.items()}
        for number, piece in enumerate(self._pieces):
            again = self._outputs(piece, teach=False)
            torch.autograd.backward([again[name] for name in parts], [parts[name][number] for name in parts])

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self._device, self._options.precision)

    def _outputs(self, some: Tensor, teach: bool = True) -> dict[str, Tensor]:
        """Of images, or of what the frozen blocks gave; as "frozen" also the embeddings of before the training."""
        encoder = self._encoder
        with self._autocast():
            activations = some if self._frozen is not None else encoder.frozen_part(some)
            outputs = encoder.for_losses(activations)
            if self._teacher is not None and teach:
                outputs["frozen"] = encoder.taught(self._teacher, activations)
        return outputs

    @torch.no_grad()
    def _in_pieces(self) -> dict[str, Tensor]:
        """Batch norms count nothing here: the pieces are encoded again for the gradient."""
        modules = self._encoder.modules()
        norms = [m for m in modules if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training]
        for norm in norms:
            norm.track_running_stats = False
        try:
            parts = [self._outputs(piece) for piece in self._pieces]
        finally:
            for norm in norms:
                norm.track_running_stats = True
        return {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]}


def _on_gpu(pixels: np.ndarray, device: torch.device) -> Tensor | None:
    """All images, where a GPU has four times their room: else it waits for each batch to be gathered and copied."""
    if device.type != "cuda" or 4 * pixels.nbytes > torch.cuda.mem_get_info(device)[0]:
        return None
    starts = range(0, len(pixels), ENCODED_AT_ONCE)
    return torch.cat([torch.from_numpy(np.array(pixels[i : i + ENCODED_AT_ONCE])).to(device) for i in starts])


def _pieces(inputs: Tensor, size: int) -> list[Tensor]:
    """Pieces of a size, or all in one with 0; a last one alone, which no batch norm takes, joins the one before."""
    pieces = list(inputs.split(size or len(inputs)))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces
