"""How far training moved each part of an image tower from where it began."""

from typing import Any

import pandas as pd

from handclip_lib.backbone.image_tower import blocks_of, depths, kind_of


def layer_drift(visual: Any, before: Any) -> pd.DataFrame:
    """Relative change of each part: ‖now − before‖ / ‖before‖ over all its parameters.

    Args:
        visual: The image tower as it is now.
        before: The tower it was a copy of (`Backbone.copy`).

    Returns:
        Columns part, parameters, drift (0 for a frozen part), from the input on: what comes before the blocks, each
        block, what comes after them.
    """
    kind, depth = "block" if kind_of(visual)[0] else "layer", depths(visual)
    names = ["input", *(f"{kind} {number}" for number, _ in enumerate(blocks_of(visual), 1)), "output"]
    parts: dict[str, list[float]] = {name: [0, 0.0, 0.0] for name in names}
    starts = dict(before.named_parameters())
    for name, value in visual.named_parameters():  # in another order where adapters were merged
        part = parts[names[-1 - depth[id(value)]]]
        now, then = value.detach().cpu().double(), starts[name].detach().cpu().double()
        part[0] += value.numel()
        part[1] += float((now - then).square().sum())
        part[2] += float(then.square().sum())
    rows = [(name, int(count), (moved / length) ** 0.5) for name, (count, moved, length) in parts.items()]
    return pd.DataFrame(rows, columns=["part", "parameters", "drift"])
