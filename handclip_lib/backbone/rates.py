"""Learning rates that do not destroy what a backbone knows, by its kind: defaults of notebooks 03 and 04."""

from typing import NamedTuple


class Rates(NamedTuple):
    """Highest learning rate of an image tower and of the head on it, and where they come from."""

    tower: float
    head: float
    source: str


RATES = {
    "small": Rates(5e-4, 5e-3, "measured here with tiny on drawn hands"),
    "ViT": Rates(
        1e-5,
        1e-4,
        "CLIP-FH's best ViT-B/16 on 11k hands and FLYP, 1e-5 (CLIP-ReID and CLIP-HandID: 5e-6, WiSE-FT: 3e-5); head: "
        "ten times, as CLIP-HandID's",
    ),
    "ResNet": Rates(
        1e-5,
        1e-4,
        "CLIP-FH's RN50 on 11k hands, 1e-5 (its head: 1e-6; CLIP-ReID: 3.5e-4 for all); head: ten times the tower's",
    ),
}
"""Small is what is narrower than every published CLIP. The files that say so: docs/weights.md."""
ADAPTERS = 10
"""Times as high a rate of adapters is. Source: Biderman et al., "LoRA Learns Less and Forgets Less", TMLR 2024."""


def rates_of(is_vit: bool, width: int, adapters: bool = False) -> Rates:
    """Of an image tower whose ViT, or whose ResNet's first layer, is so wide; or of adapters on it."""
    by = RATES["small" if width < (192 if is_vit else 64) else "ViT" if is_vit else "ResNet"]
    more = f"{by.source}; adapters: {ADAPTERS} times the tower's"
    return by._replace(tower=ADAPTERS * by.tower, source=more) if adapters else by


def chosen(rate: float, head_rate: float, by: Rates) -> dict[str, float]:
    """Both parameters: what was given, and the backbone's where that is 0."""
    return {"learning_rate": rate or by.tower, "head_learning_rate": head_rate or by.head}
