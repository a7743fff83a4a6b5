"""Similarities of pairs of images, for figures: by identity, and one person against two people."""

import numpy as np

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.evaluation.features import Features


def similarity_by_identity(features: Features, split: Split, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Cosine between test images of the split's own aspect, ordered by identity and capture.

    Returns:
        float32 (n, n) in -1..1 and the identities, (n,); whole identities up to about `most` images.
    """
    test = split.images[split.images["role"] == "test"].copy()
    test["order"] = test["identity"].map(identity_order)
    test = test.sort_values(["order", "capture", "path"], kind="stable")
    size = test.groupby("order", sort=True)["path"].transform("size").to_numpy()
    first = np.flatnonzero(np.r_[True, test["identity"].to_numpy()[1:] != test["identity"].to_numpy()[:-1]])
    ends = first + size[first]
    n = int(ends[ends <= max(most, ends[0])].max())
    embeddings = features.of(test["path"].tolist()[:n])
    return embeddings @ embeddings.T, test["identity"].to_numpy(str)[:n]


def pair_scores(features: Features, split: Split, gallery: str = "aspect") -> tuple[np.ndarray, np.ndarray]:
    """Cosine of every query and gallery image, all draws: pairs of one person, and pairs of two people."""
    genuine, impostor = [], []
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial, gallery)
        similarity = features.of(draw.query_paths) @ features.of(draw.gallery_paths).T
        same = draw.query_ids[:, None] == draw.gallery_ids[None, :]
        genuine.append(similarity[same])
        impostor.append(similarity[~same])
    return np.concatenate(genuine), np.concatenate(impostor)
