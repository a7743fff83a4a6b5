"""How far training moved each part of an image tower from where it began."""

from typing import Any

import pandas as pd

from handclip_lib.backbone.image_tower import after_blocks, blocks_of, kind_of


def layer_drift(visual: Any, before: Any) -> pd.DataFrame:
    """Relative change of each part: ‖now − before‖ / ‖before‖ over all its parameters.

    Args:
        visual: The image tower as it is now.
        before: The tower it was a copy of (`Backbone.copy`).

    Returns:
        Columns part, parameters, drift (0 for a frozen part), from the input on: what comes before the blocks, each
        block, what comes after them.
    """
    blocks = blocks_of(visual)
    kind = "block" if kind_of(visual)[0] else "layer"
    owner = {id(p): f"{kind} {n}" for n, block in enumerate(blocks, 1) for p in block.parameters()}
    after = {id(p) for module in after_blocks(visual) for p in module.parameters()}
    after.add(id(getattr(visual, "proj", None)))
    parts: dict[str, list[float]] = {
        name: [0, 0.0, 0.0] for name in ("input", *dict.fromkeys(owner.values()), "output")
    }
    for value, start in zip(visual.parameters(), before.parameters(), strict=True):
        part = parts[owner.get(id(value), "output" if id(value) in after else "input")]
        now, then = value.detach().cpu().double(), start.detach().cpu().double()
        part[0] += value.numel()
        part[1] += float((now - then).square().sum())
        part[2] += float(then.square().sum())
    rows = [(name, int(count), (moved / length) ** 0.5) for name, (count, moved, length) in parts.items()]
    return pd.DataFrame(rows, columns=["part", "parameters", "drift"])
