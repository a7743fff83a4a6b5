"""Pairs of images that are too many to list: their cosines are computed a block at a time, and counted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

from handclip_lib.evaluation.features import Features, check_memory
from handclip_lib.evaluation.ranking.cosines import cosines
from handclip_lib.evaluation.ranking.counting import matches
from handclip_lib.evaluation.verification.pairs import Counts, Pairs, count_labels, numbered
from handclip_lib.machine import workers

ROWS, COLUMNS = 512, 4096  # of a block of cosines
NONE, LEAST = np.float32(-2), -1.5  # a pair that is not compared, or mated; and less than any cosine
BUFFERED = 2**22  # accepted pairs that are counted at once
PATTERNS = 512  # of the draws that images are in, set against all others at once
SAMPLE = 64  # images whose scores with all others draw a distribution
PAIR_BYTES = 100  # of a pair that is listed, with its score sorted, as a verification has it
EXACT = 2**24  # counts below which float32 holds them

Found = TypeVar("Found")


@dataclass(frozen=True)
class StreamedPairs:
    """The pairs of a query and a gallery image that any draw compares, each unordered pair once.

    It answers what `Pairs` does, but for the list of the impostors. Images that are in a gallery come first.

    Attributes:
        embeddings: Of length 1, float32 (n, size).
        own, other: Draws in which each image is in the gallery, and a query, uint32 (n, words) of bits; and the same
            the other way round: two images are compared where the one's `own` and the other's `other` share a bit.
        n_held: Images that are in some gallery.
        genuine, genuine_images: As in `Pairs`.
        place: Of each image in the rows it was made of.
    """

    paths: np.ndarray
    identities: np.ndarray
    embeddings: np.ndarray
    own: np.ndarray
    other: np.ndarray
    n_held: int
    genuine: np.ndarray
    genuine_images: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, features: Features, rows: pd.DataFrame, held: np.ndarray, asked: np.ndarray) -> "StreamedPairs":
        """Pairs of images, rows with path and identity, by the draws that hold or ask each, bool (n, draws)."""
        place = np.argsort(~held.any(1), kind="stable")
        held, asked, identities = held[place], asked[place], rows["identity"].to_numpy(str)[place]
        paths = rows["path"].to_numpy(object)[place]
        own, other = (_bits(np.concatenate(sides, 1)) for sides in ((held, asked), (asked, held)))
        mated = _mated(np.unique(identities, return_inverse=True)[1].ravel(), held, asked)
        _check_memory(len(paths), len(mated))
        embeddings = np.ascontiguousarray(features.of(paths), np.float32)
        scores = np.empty(len(mated), np.float32)
        for start in range(0, len(mated), ROWS * ROWS):
            some = slice(start, start + ROWS * ROWS)
            first, second = (embeddings[mated[some, side]] for side in (0, 1))
            scores[some] = np.einsum("ij,ij->i", first.astype(np.float64), second)
        return cls(paths, identities, embeddings, own, other, int(held.any(1).sum()), scores, mated, place)

    @cached_property
    def people(self) -> np.ndarray:
        """As in `Pairs`."""
        used = self.compared_with_all > 0
        used[self.genuine_images] = True
        return numbered(self.identities, used)

    @property
    def n_impostor(self) -> int:
        """As in `Pairs`."""
        return int(self.compared_with_all.sum()) // 2

    @property
    def genuine_identities(self) -> np.ndarray:
        """As in `Pairs`."""
        return self.people[self.genuine_images[:, 0]]

    @property
    def n_identities(self) -> int:
        """As in `Pairs`."""
        return int(self.people.max(initial=-1)) + 1

    @cached_property
    def n_identity_pairs(self) -> int:
        """As in `Pairs`."""
        everything = np.ones(len(self.paths), bool)
        return self.identity_pairs(everything, everything)

    def identity_pairs(self, first: np.ndarray, second: np.ndarray) -> int:
        """As in `Pairs`: two people are compared if a draw holds an image of one and asks an image of the other."""
        draws = []
        for bits in (self.own, self.other):
            for chosen in (first, second):
                of_people = np.zeros((self.n_identities, bits.shape[1]), bits.dtype)
                kept = chosen & (self.people >= 0)
                np.bitwise_or.at(of_people, self.people[kept], bits[kept])
                draws.append(of_people)
        one, other = np.concatenate([draws[0], draws[1]], 1), np.concatenate([draws[3], draws[2]], 1)
        patterns, often = np.unique(np.concatenate([one, other], 1), axis=0, return_counts=True)
        half = one.shape[1]
        found = 0
        for start in range(0, len(patterns), PATTERNS):
            some = slice(start, start + PATTERNS)
            found += int(often[some] @ _share(patterns[some, :half], patterns[:, half:]) @ often)
        return (found - int(_share_own(one, other).sum())) // 2

    @cached_property
    def shown(self) -> np.ndarray:
        """Impostor scores to draw their distribution of: of some images, chosen at random, with all others."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.paths))[:SAMPLE])
        scores = self.of_rows(rows)
        return scores[scores > NONE]

    def counts(self, threshold: float, labels: np.ndarray, n_labels: int) -> Counts:
        """As in `Pairs`."""
        accepted, size = np.zeros((len(self.paths), n_labels), np.int64), (len(self.paths), n_labels)
        for images in self.accepted(threshold):
            accepted += count_labels(images, labels, size)
        return accepted, self.compared(labels, n_labels)

    def between_people(self, threshold: float) -> Counts:
        """As in `Pairs`, but that what is compared is halved over both orders of the two."""
        n, people = self.n_identities, self.people
        most = np.bincount(people[people >= 0], self.compared_with_all[people >= 0]).max()
        dtype = np.float32 if most < EXACT else np.float64
        check_memory(f"a table of {n:,} people by {n:,}", 3 * n * n * dtype().nbytes, "compare groups of fewer people")
        accepted, compared = np.zeros((n, n), dtype), np.zeros((n, n), dtype)
        for images in self.accepted(threshold):
            np.add.at(accepted, tuple(people[images].T), 1)
        used = np.flatnonzero(people >= 0)
        place, patterns = self._pattern
        shape = len(patterns[0]), n
        whose = sparse.csr_array((np.ones(len(used), dtype), (place[used], people[used])), shape=shape)
        for start in range(0, len(patterns[0]), PATTERNS):
            some = slice(start, start + PATTERNS)
            with_people = _share(patterns[0][some], patterns[1]).astype(dtype) @ whose
            compared += whose[some].T @ with_people
        np.fill_diagonal(compared, 0)
        compared /= 2
        return accepted, compared

    def impostor_sums(self) -> np.ndarray:
        """As in `Pairs`, to the rounding of each score: the sum of an image's scores is that with the sum of others."""
        place, (own, other) = self._pattern
        n, size = len(own), self.embeddings.shape[1]
        sums = np.zeros((n, size))
        np.add.at(sums, place, self.embeddings)
        others = np.empty((n, size))
        for start in range(0, n, PATTERNS):
            some = slice(start, start + PATTERNS)
            others[some] = _share(own[some], other).astype(np.float64) @ sums
        used, total = self.people >= 0, np.zeros(len(self.paths))
        for start in range(0, len(total), COLUMNS):
            some = slice(start, start + COLUMNS)
            total[some] = np.einsum("ij,ij->i", self.embeddings[some], others[place[some]])
        mated = np.bincount(self.genuine_identities, 2 * self.genuine.astype(np.float64), self.n_identities)
        return np.bincount(self.people[used], total[used], self.n_identities) - mated

    def listed(self) -> Pairs:
        """All pairs in a list, each in the order of the rows it was made of."""
        _check_memory(len(self.paths), self.n_impostor + len(self.genuine))
        found = [self.genuine_images], [self.genuine]
        for images, scores in self.each_block(_those_above(LEAST)):
            found[0].append(images)
            found[1].append(scores)
        images, scores = np.sort(self.place[np.concatenate(found[0])], 1).astype(np.int32), np.concatenate(found[1])
        order = np.lexsort((images[:, 1], images[:, 0]))
        images, scores = images[order], scores[order]
        back = np.argsort(self.place)
        identities = self.identities[back]
        same = identities[images[:, 0]] == identities[images[:, 1]]
        return Pairs(self.paths[back], identities, scores[same], images[same], scores[~same], images[~same])

    def accepted(self, threshold: float) -> Iterator[np.ndarray]:
        """Images of the impostor pairs that score at or above a threshold, int64 (n, 2), many at a time."""
        found: list[np.ndarray] = []
        for images, _ in self.each_block(_those_above(max(threshold, LEAST))):
            found.append(images)
            if sum(map(len, found)) > BUFFERED:
                yield np.concatenate(found)
                found = []
        yield np.concatenate([*found, np.zeros((0, 2), np.int64)])

    def each_block(self, work: Callable[[int, int, np.ndarray], Found]) -> Iterator[Found]:
        """What `work` finds in each block of impostor scores, in order.

        It is given the numbers of the first image of the rows and of the columns, and scores, float32 (n, width) with
        `NONE` where two images are not compared; on several threads at once.
        """
        n = len(self.paths)
        starts = [(row, column) for row in range(0, self.n_held, ROWS) for column in range(row, n, COLUMNS)]
        with workers() as pool:
            yield from pool.map(lambda at: work(at[0], at[1], self._scores(at[0], at[1])), starts)

    def _scores(self, row: int, column: int) -> np.ndarray:
        rows, columns = slice(row, min(row + ROWS, self.n_held)), slice(column, column + COLUMNS)
        scores = cosines(self.embeddings[rows], self.embeddings[columns])
        compared = _share(self.own[rows], self.other[columns])
        if column < rows.stop:  # what both sides hold counts once
            compared &= np.arange(column, column + scores.shape[1]) > np.arange(row, rows.stop)[:, None]
        np.copyto(scores, NONE, where=~compared)
        begin, end = np.searchsorted(self.genuine_images[:, 0], (row, rows.stop))
        mated = self.genuine_images[begin:end] - (row, column)
        mated = mated[(mated[:, 1] >= 0) & (mated[:, 1] < scores.shape[1])]
        scores[mated[:, 0], mated[:, 1]] = NONE
        return scores

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Impostor scores of some images with all, `NONE` where two are not compared, float32 (n_rows, n)."""
        scores = cosines(self.embeddings[rows], self.embeddings)
        other_person = self.people[rows, None] != self.people[None, :]
        np.copyto(scores, NONE, where=~(_share(self.own[rows], self.other) & other_person))
        return scores

    def compared(self, labels: np.ndarray, n_labels: int) -> np.ndarray:
        """Of each image, how many impostor pairs with images of each label there are, int64 (n_images, n_labels)."""
        place, (own, other) = self._pattern
        of_patterns: np.ndarray = np.zeros((len(own), n_labels), self._counting)
        for column in labels.T:
            np.add.at(of_patterns, (place, column), 1)
        found = np.empty((len(own), n_labels), np.int64)
        for start in range(0, len(own), PATTERNS):
            some = slice(start, start + PATTERNS)
            found[some] = _share(own[some], other).astype(self._counting) @ of_patterns
        return found[place] - count_labels(self.genuine_images, labels, (len(self.paths), n_labels))

    def within(self, group: np.ndarray, n_groups: int) -> np.ndarray:
        """How many impostor pairs are within each group of images, which parts no person: int64 (n_groups,)."""
        place, (own, other) = self._pattern
        found = np.zeros(n_groups)
        of_patterns: np.ndarray = np.zeros((len(own), n_groups), self._counting)
        np.add.at(of_patterns, (place, group), 1)
        for start in range(0, len(own), PATTERNS):
            some = slice(start, start + PATTERNS)
            with_group = _share(own[some], other).astype(self._counting) @ of_patterns
            found += np.einsum("pg,pg->g", of_patterns[some], with_group, dtype=np.float64)
        mated = np.bincount(group[self.genuine_images[:, 0]], minlength=n_groups)
        return (found / 2).astype(np.int64) - mated

    @property
    def _counting(self) -> type:
        """The numbers in which counts of images are exact."""
        return np.float32 if len(self.paths) < EXACT else np.float64

    @cached_property
    def compared_with_all(self) -> np.ndarray:
        """Of each image, how many impostor pairs there are, int64 (n_images,)."""
        return self.compared(np.zeros((len(self.paths), 1), np.int64), 1)[:, 0]

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The pattern of draws of each image, (n,), and of each pattern its bits, as `own` and `other`."""
        _, first, place = np.unique(self.own, axis=0, return_index=True, return_inverse=True)
        return place.ravel(), (self.own[first], self.other[first])


def _check_memory(n: int, listed: int) -> None:
    check_memory(f"the pairs of {n:,} images", PAIR_BYTES * listed, "verify fewer people, or with fewer draws")


def _bits(flags: np.ndarray) -> np.ndarray:
    """Flags, bool (n, m), as uint32 (n, words)."""
    packed = np.packbits(flags, axis=1)
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))).view(np.uint32)


def _share(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each two share a bit, bool (n, m)."""
    found = (own[:, None, 0] & other[None, :, 0]) != 0
    for word in range(1, own.shape[1]):
        found |= (own[:, None, word] & other[None, :, word]) != 0
    return found


def _share_own(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ((own & other) != 0).any(1)


def _mated(people: np.ndarray, held: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Images of one person that some draw compares, each two once and in order: int64 (n, 2)."""
    found, n = [np.zeros(0, np.int64)], len(people)
    for in_gallery, is_query in zip(held.T, asked.T, strict=True):
        gallery, query = np.flatnonzero(in_gallery), np.flatnonzero(is_query)
        asked, own = matches(people[query], people[gallery])
        one, other = query[asked], gallery[own]
        found.append(np.minimum(one, other) * n + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), n), 1)


def _those_above(threshold: float) -> Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images, int64 (n, 2), and scores of a block's pairs at or above a threshold."""

    def work(row: int, column: int, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = np.flatnonzero(scores >= threshold)
        images = np.stack(np.divmod(flat, scores.shape[1]), 1) + np.array([row, column])
        return images, scores.ravel()[flat]

    return work
