"""Pairs of images, listed one by one where they are few, as files of scores are, and else only counted."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Counts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pairs:
    """Cosines of pairs of images, each unordered pair once.

    Attributes:
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
    def people(self) -> np.ndarray:
        """Number of the identity of each image, in order of the text; -1 for an image that no pair compares."""
        used = np.zeros(len(self.paths), bool)
        used[self.genuine_images] = used[self.impostor_images] = True
        return numbered(self.identities, used)

    @property
    def n_impostor(self) -> int:
        """How many pairs of two people there are."""
        return len(self.impostor)

    @property
    def compared_with_all(self) -> np.ndarray:
        """Of each image, how many impostor pairs there are, int64 (n_images,)."""
        return np.bincount(self.impostor_images.ravel(), minlength=len(self.paths))

    @property
    def shown(self) -> np.ndarray:
        """Impostor scores to draw their distribution of."""
        return self.impostor

    @property
    def genuine_identities(self) -> np.ndarray:
        """Number of the identity of each genuine pair, int64 (n_genuine,), 0 … n_identities - 1."""
        return self.people[self.genuine_images[:, 0]]

    @property
    def impostor_identities(self) -> np.ndarray:
        """Numbers of the two identities of each impostor pair, int64 (n_impostor, 2)."""
        return self.people[self.impostor_images]

    @property
    def n_identities(self) -> int:
        """Identities that some pair compares."""
        return int(self.people.max(initial=-1)) + 1

    @cached_property
    def n_identity_pairs(self) -> int:
        """Distinct pairs of two people that some impostor pair compares; n(n - 1)/2 where all n are compared."""
        everything = np.ones(len(self.paths), bool)
        return self.identity_pairs(everything, everything)

    def identity_pairs(self, first: np.ndarray, second: np.ndarray) -> int:
        """Distinct pairs of two people of whom an image of one choice, bool (n_images,), is compared with the other."""
        kept = self.impostor_identities[self._across(first, second)]
        return len(np.unique(kept.min(1, initial=2**62) * self.n_identities + kept.max(1, initial=-1)))

    def counts(self, threshold: float, labels: np.ndarray, n_labels: int) -> Counts:
        """Of each image, how many impostor pairs with images of each label are accepted, and how many there are.

        Labels are 0 … n_labels - 1, int (n_images, n): an image has n of them. Both int64 (n_images, n_labels).
        """
        accepted = self.impostor_images[self.impostor >= threshold]
        size = len(self.paths), n_labels
        return tuple(count_labels(images, labels, size) for images in (accepted, self.impostor_images))  # type: ignore

    def between_people(self, threshold: float) -> Counts:
        """Of each two people, how many impostor pairs are accepted, and how many there are, float (n, n).

        A pair counts once in all: for the identity of either image in the row, and of the other in the column.
        """
        n = self.n_identities
        codes = self.impostor_identities @ [n, 1]
        chosen = codes[self.impostor >= threshold], codes
        return tuple(np.bincount(some, np.ones(len(some)), n * n).reshape(n, n) for some in chosen)  # type: ignore

    def impostor_sums(self) -> np.ndarray:
        """Sum of the impostor scores of each person, float64 (n_identities,): a pair counts for both."""
        both = self.impostor_identities.T.ravel()
        return np.bincount(both, np.tile(self.impostor, 2).astype(np.float64), self.n_identities)

    def _across(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = self.impostor_images.T
        return (first[a] & second[b]) | (second[a] & first[b])


def numbered(identities: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Numbers of the identities of the images that are used, in order of the text; -1 for others."""
    codes = np.full(len(used), -1)
    codes[used] = np.unique(identities[used], return_inverse=True)[1].ravel()
    return codes


def count_labels(images: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Of each image, in how many pairs, (n, 2), it is with an image of each label: int64, of a size."""
    found = np.zeros(size[0] * size[1], np.int64)
    for one, other in ((0, 1), (1, 0)):
        for column in labels[images[:, other]].T:
            found += np.bincount(images[:, one].astype(np.int64) * size[1] + column, minlength=len(found))
    return found.reshape(size)
