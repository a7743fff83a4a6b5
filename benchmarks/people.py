"""Verification, groups, open set and enrolment of many people, beside the bare product of the same draws.

`python -m benchmarks.people [--people 8000]`: eight images of each, ten draws. The bare product is of all queries with
the gallery of each draw, in float32, with its maximum; and again of each pair once, as verification compares it. Ways
and products take turns; figures are CPU and wall seconds, memory, and the ratio of either to the first product.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.scale import BLOCK, DRAWS, EMBEDDING, bare_product, case
from benchmarks.side_by_side import peak_begins, status
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import paired_difference
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.studies.fusion import enrol_several, fuse_aspects
from handclip_lib.evaluation.verification import differentials, error_rates, thresholds
from handclip_lib.evaluation.verification.menagerie import menagerie

IMAGES = 8
Way = Callable[[], object]


def once(features: Features) -> None:
    """The product of each pair of images once, and its maximum."""
    images = features.embeddings
    size = BLOCK // len(images)
    for start in range(0, len(images), size):
        (images[start : start + size] @ images[start:].T).max(axis=1)


def seconds(way: Way) -> np.ndarray:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    way()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def row(name: str, way: Way, bare: Way, of: float = 1) -> None:
    """A way beside so many bare products, which are measured before and after it."""
    first = seconds(bare)
    before = peak_begins()
    took, memory = seconds(way), status("VmHWM") - before
    ratio = took / (of * (first + seconds(bare)) / 2)
    print(f"{name:<48} {took[0]:>9.1f} {took[1]:>9.1f} {memory:>8.0f} {ratio[0]:>8.2f}× {ratio[1]:>8.2f}×", flush=True)


def people_table(split: Split) -> pd.DataFrame:
    """Their photographs with attributes at random."""
    rng, images = np.random.default_rng(2), split.images[["path", "identity"]].copy()
    codes = pd.factorize(images["identity"])[0]
    for name, values in {"gender": ("male", "female"), "skin_color": ("dark", "medium", "fair", "very fair"),
                         "age": (18, 25, 35, 60)}.items():  # fmt: skip
        images[name] = np.array(values)[rng.integers(0, len(values), codes.max() + 1)][codes]
    images["nail_polish"] = rng.random(len(images)) < 0.2
    images["accessories"], images["irregularities"] = False, None
    return images


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=1_000)
    parser.add_argument("--only", default="", help="rows whose names hold this")
    options = parser.parse_args()
    features, split = case(options.people * IMAGES, 1, of_person=IMAGES)
    images, pairs = people_table(split), error_rates.compared_pairs(features, split)
    threshold = 0.35
    groups = pd.DataFrame()
    print(f"{options.people:,} people, {IMAGES} images each, {DRAWS} draws, {EMBEDDING} numbers; {pairs.n_impostor:,} "
          f"non-mated pairs{'' if isinstance(pairs, error_rates.Pairs) else ', too many to list'}")  # fmt: skip
    print(f"{'':<48} {'CPU s':>9} {'wall s':>9} {'MiB':>8} {'CPU':>9} {'wall':>9}")
    bare = lambda: bare_product(features, split, 1)  # noqa: E731
    of = DRAWS

    def grouped() -> None:
        nonlocal groups
        groups, _ = thresholds.group_figures(features, split, images, threshold)

    hits = np.random.default_rng(3).random((2, len(split.images), 22)) < 0.5
    aspects = case(options.people * IMAGES, 2, of_person=IMAGES)
    rows: dict[str, tuple[Way, float]] = {
        "the product of each pair once": (lambda: once(features), of),
        "ranking, one gallery": (lambda: evaluate_split(features, split), of),
        "verification": (lambda: error_rates.verification_of(features, split), of),
        "figures of groups": (grouped, of),
        "FMR across groups": (lambda: differentials.cross_group_fmr(pairs, images, threshold), of),
        "equity, 999 deals": (lambda: differentials.equity(groups, pairs, images, threshold), of),
        "menagerie": (lambda: menagerie(pairs, threshold), of),
        "open set": (lambda: thresholds.open_set(features, split), of / 2),
        "several images enrolled: 1, 2 and 4": (lambda: enrol_several(features, split), of * 15 * 4 / 7),
        "two aspects fused": (lambda: fuse_aspects(*aspects, ("dorsal_r", "palmar_r")), of * 2 * 3 / 7),
        "test of two models, 22 figures": (
            lambda: paired_difference(*hits, split.images["identity"].to_numpy(str)), of
        ),
    }  # fmt: skip
    for name, (way, products) in rows.items():
        if options.only in name:
            if groups.empty and name.startswith("equity"):
                grouped()
            row(name, way, bare, products)


if __name__ == "__main__":
    main()
