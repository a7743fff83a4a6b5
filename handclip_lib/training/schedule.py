"""Learning rates over a training."""

import math


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
