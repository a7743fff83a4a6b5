"""Batches and learning rates over a training."""

import math

import numpy as np

from handclip_lib.data.batches import identity_batches, warn_if_few
from handclip_lib.parameters.parts import ImageTraining, PromptTraining


class Batches:
    """The batches of every epoch; they depend on seed and epoch alone, so an interrupted training goes on the same.

    Attributes:
        steps_of: Steps of each epoch.
        before: Steps before each epoch, and at last those of the whole training.
        rising: Steps of the warm-up.
    """

    def __init__(self, identities: np.ndarray, options: PromptTraining | ImageTraining):
        """Take the identity of each image."""
        self._identities, self._options = identities, options
        warn_if_few(identities, options.n_identities)
        self.steps_of = [len(self.of(epoch)) for epoch in range(options.epochs)]
        self.before: list[int] = np.concatenate([[0], np.cumsum(self.steps_of)]).tolist()
        self.rising = self.before[min(options.warm_up, options.epochs)]

    def of(self, epoch: int) -> list[np.ndarray]:
        """Rows of each batch of an epoch, counted from 0."""
        rng = np.random.default_rng([self._options.seed, epoch])
        return identity_batches(self._identities, self._options.n_identities, self._options.n_images, rng)


def key_of(identities: np.ndarray) -> int:
    """A sum that tells labels, and their order, from others."""
    return int(np.asarray(identities, np.int64) @ np.arange(1, len(identities) + 1))


def one_cycle(step: int, steps: int, rise: float = 0.1) -> float:
    """Factor of the learning rate: from 1/25 up to 1 over a share of the steps, then down to 1/250,000, by cosines.

    Args:
        step: 0 … steps − 1.
        steps: Steps of the whole training.
        rise: Share of the steps in which it rises, 0..1.

    Source: Smith and Topin, "Super-Convergence", 2018, with torch's OneCycleLR's defaults.
    """
    first, last = 1 / 25, 1 / 250_000
    top = rise * steps - 1
    if step <= top:
        return 1 + (first - 1) * (1 + math.cos(math.pi * step / top)) / 2 if top > 0 else 1.0
    share = (step - top) / max(1e-9, steps - 1 - top)
    return last + (1 - last) * (1 + math.cos(math.pi * share)) / 2


def warm_up_cosine(step: int, steps: int, warm_up: int, least: float = 0.0) -> float:
    """Factor of the learning rate: a line up over `warm_up` steps, then half a cosine down to `least`.

    Args:
        step: 0 … steps − 1.
        steps: Steps of the whole training.
        warm_up: Steps of the line; the first step already moves.
        least: Factor after the last step, 0..1.
    """
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    share = (step - warm_up) / max(1, steps - warm_up)
    return least + (1 - least) * (1 + math.cos(math.pi * share)) / 2
