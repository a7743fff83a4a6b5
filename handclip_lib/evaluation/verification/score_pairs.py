"""Scores of pairs of images: of one person, and of two people, each pair once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.memory import check_memory

BLOCK = 1024  # rows of the similarity matrix at once
PAIR_BYTES = 100  # of a pair, with its score sorted, as a verification has it


@dataclass(frozen=True)
class Pairs:
    """Cosines of pairs of images, each unordered pair once.

    Attributes:
        paths, identities: One an image, (n_images,).
        genuine, impostor: float32 (n_genuine,) and (n_impostor,), -1..1: of two images of one person, and of two.
        genuine_images, impostor_images: int32 (n, 2), places in `paths`.
    """

    paths: np.ndarray
    identities: np.ndarray
    genuine: np.ndarray
    genuine_images: np.ndarray
    impostor: np.ndarray
    impostor_images: np.ndarray

    @cached_property
    def _codes(self) -> np.ndarray:
        """Number of the identity of each image, in order of the text; -1 for an image that no pair compares."""
        used = np.zeros(len(self.paths), bool)
        used[self.genuine_images] = used[self.impostor_images] = True
        codes = np.full(len(used), -1)
        codes[used] = np.unique(self.identities[used], return_inverse=True)[1].ravel()
        return codes

    @property
    def genuine_identities(self) -> np.ndarray:
        """Number of the identity of each genuine pair, int64 (n_genuine,), 0 … n_identities - 1."""
        return self._codes[self.genuine_images[:, 0]]

    @property
    def impostor_identities(self) -> np.ndarray:
        """Numbers of the two identities of each impostor pair, int64 (n_impostor, 2)."""
        return self._codes[self.impostor_images]

    @property
    def n_identities(self) -> int:
        """Identities that some pair compares."""
        return int(self._codes.max(initial=-1)) + 1

    @cached_property
    def n_identity_pairs(self) -> int:
        """Distinct pairs of two people that some impostor pair compares; n(n - 1)/2 where all n are compared."""
        first, second = self.impostor_identities.T
        compared = np.zeros((self.n_identities, self.n_identities), bool)
        compared[np.minimum(first, second), np.maximum(first, second)] = True
        return int(compared.sum())

    def among(self, images: np.ndarray) -> "Pairs":
        """The pairs of which both images are chosen; bool (n_images,)."""
        a, b = (images[rows].all(1) for rows in (self.genuine_images, self.impostor_images))
        kept = self.genuine[a], self.genuine_images[a], self.impostor[b], self.impostor_images[b]
        return Pairs(self.paths, self.identities, *kept)


def compared_pairs(features: Features, split: Split) -> Pairs:
    """The pairs of a query and a gallery image that any draw compares, each once and not once a draw.

    The gallery is that of the split's own aspect (with distractors where there are any): other aspects' images would
    be impostors that are told apart by the aspect, and some of them are of the query's own person.
    """
    rows = split.images[split.images["role"].isin(["test", "distractor"])]
    first = split.draw(0)
    _check_memory(len(rows), split.meta["draws"] * len(first.query_paths) * len(first.gallery_paths))
    place = pd.Series(np.arange(len(rows)), index=rows["path"])
    compared = np.zeros((len(rows), len(rows)), bool)
    for draw in split.draws():
        compared[np.ix_(place[draw.query_paths].to_numpy(), place[draw.gallery_paths].to_numpy())] = True
    return _pairs(features, rows, np.triu(compared | compared.T, 1))


def validation_pairs(features: Features, split: Split) -> Pairs:
    """Pairs of people that no test figure knows: each val image with each train image.

    A model trained on these people tells them apart better than strangers, so that a threshold chosen here lets
    through more strangers than it promises: report what it does on the test identities.

    Raises:
        EvaluationError: No identity, or only one, has a val image; or the memory does not suffice.
    """
    rows = split.images[split.images["role"].isin(["train", "val"])]
    is_val = (rows["role"] == "val").to_numpy()
    n = rows.loc[is_val, "identity"].nunique()
    if n < 2:
        raise EvaluationError(
            f"{n} validation identities in this split (protocol {split.meta['protocol']!r}); a threshold needs two: "
            "choose a protocol in which identities train (proportional, standard), or photographs with two images each"
        )
    _check_memory(len(rows), int(is_val.sum()) * int((~is_val).sum()))
    return _pairs(features, rows, is_val[:, None] & ~is_val[None, :])


def pair_scores(features: Features, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Scores of `compared_pairs`: of one person, and of two people."""
    pairs = compared_pairs(features, split)
    return pairs.genuine, pairs.impostor


def similarity_by_identity(features: Features, split: Split, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Cosine between test images of the split's own aspect, ordered by identity and capture.

    Returns:
        float32 (n, n) in -1..1 and the identities, (n,); whole identities up to about `most` images.
    """
    test = split.images[split.images["role"] == "test"]
    test = test.assign(order=test["identity"].map(identity_order)).sort_values(
        ["order", "capture", "path"], kind="stable"
    )
    ends = test.groupby("order", sort=True).size().cumsum()
    test = test.head(int(ends[ends <= max(most, ends.iloc[0])].max()))
    embeddings = features.of(test["path"])
    return embeddings @ embeddings.T, test["identity"].to_numpy(str)


def _check_memory(n: int, most: int) -> None:
    """Refuse more images, or pairs of them, than the free memory holds with what is computed of them."""
    remedy = "verify fewer people, or with fewer draws"
    check_memory(f"the pairs of {n:,} images", 4 * n * n + PAIR_BYTES * min(n * (n - 1) // 2, most), remedy)


def _pairs(features: Features, rows: pd.DataFrame, compared: np.ndarray) -> Pairs:
    """Score the pairs of images where `compared`, bool (n, n), is true."""
    identities = rows["identity"].to_numpy(str)
    embeddings = features.of(rows["path"])
    scores, images = [], []
    for start in range(0, len(rows), BLOCK):
        first, second = np.nonzero(compared[start : start + BLOCK])
        scores.append((embeddings[start : start + BLOCK] @ embeddings.T)[first, second])
        images.append(np.stack([first + start, second], 1).astype(np.int32))
    score, image = np.concatenate(scores), np.concatenate(images)
    same = identities[image[:, 0]] == identities[image[:, 1]]
    return Pairs(rows["path"].to_numpy(object), identities, score[same], image[same], score[~same], image[~same])
