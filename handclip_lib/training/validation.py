"""Validation: of people who never train, searched as the test will be; of the val images; or on test."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from handclip_lib.data.folds import Folds, as_tested
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Draw, Split
from handclip_lib.data.splits import keyed
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.studies.prompts import labelled
from handclip_lib.training.sets import ExtraSet

Encode = Callable[[np.ndarray], np.ndarray]
"""Of uint8 images (n, side, side, 3) to embeddings (n, size)."""
STRANGERS, TRAINED = "val", "trained"
"""What the measures of `TrainingImages.validate` begin with. With validation "val" the first are of trained people."""


@dataclass(frozen=True)
class Searches:
    """Queries and galleries of some draws, among images that are encoded once for all of them."""

    images: DecodedImages
    draws: tuple[Draw, ...]

    def measure(self, encode: Encode) -> dict[str, float]:
        """Rank-1, its 95 % interval over people, and mAP, means over the queries of all draws."""
        paths = sorted({path for draw in self.draws for path in (*draw.query_paths, *draw.gallery_paths)})
        embeddings = encode(self.images.pixels[self.images.rows(paths)])
        embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        row = {path: number for number, path in enumerate(paths)}
        hits, precisions, who = [], [], []
        for draw in self.draws:
            query, held = (embeddings[[row[path] for path in part]] for part in (draw.query_paths, draw.gallery_paths))
            found = retrieval_metrics(cosines(query, held), draw.query_ids, draw.gallery_ids, tie=TIE)
            matched = found.first_match_rank > 0
            hits.append(found.first_match_rank[matched] == 1)
            precisions.append(found.average_precision[matched])
            who.append(draw.query_ids[matched])
        interval = identity_interval(np.concatenate(hits), np.concatenate(who)).columns("rank1")
        return {"rank1": float(np.concatenate(hits).mean()), "map": float(np.concatenate(precisions).mean())} | {
            name: interval[name] for name in ("rank1_low", "rank1_high")
        }


@dataclass(frozen=True)
class TrainingImages:
    """The training half of a split, decoded.

    Attributes:
        identities: Training identities in their order; a label is a place in it.
        pixels, labels: Training images, uint8 (n, side, side, 3), and their labels, int64 (n,).
        val_pixels, val_labels: The same of the validation images, one for each identity that has two or more.
        searches: What `validate` ranks, by what its measures begin with.
    """

    identities: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray
    val_pixels: np.ndarray
    val_labels: np.ndarray
    searches: dict[str, Searches]

    def validate(self, encode: Encode) -> dict[str, float]:
        """`Searches.measure` of each search, such as val_rank1 and val_map, which choose the epoch."""
        return {
            f"{name}_{measure}": value
            for name, search in self.searches.items()
            for measure, value in search.measure(encode).items()
        }


def training_images(
    images: DecodedImages, split: Split, folds: Folds | None = None, extra: Sequence[ExtraSet] = ()
) -> TrainingImages:
    """Take the training and validation images of a split, which are among the decoded ones, but of whom is left out.

    With validation "people" (the folds' own) those who are left out are strangers: they are searched in as many draws
    as the test, one photograph of each in the gallery. Where none is, the folds have chosen already. Beside them as
    many trained people are searched by their validation images: the difference is what learning people by heart
    brings. With "val" the validation images are ranked against all training images; with "test" the queries of the
    first draw against its gallery, as CLIP-FH's training did: what is chosen so was selected on test.

    Args:
        folds: Of `choose_folds`; None: validation "val".
        extra: Data sets whose people train too, after those of the split; none of them is searched.

    Raises:
        EvaluationError: Fewer than two identities train, or none has a validation image.
    """
    folds = folds or Folds("val")
    identities, (paths, labels), (val_paths, val_labels) = labelled(split, folds.left_out)
    if not val_paths:
        raise EvaluationError(
            f"{len(identities)} identities train in this split (protocol {split.meta['protocol']!r}), 0 with a "
            "validation image; choose another protocol or more data"
        )
    searches = {}
    if folds.validation == "val":
        searches[STRANGERS] = Searches(
            images, (_all_at_once(np.array(identities), paths, labels, val_paths, val_labels),)
        )
    else:
        strangers = [split.draw(0)] if folds.validation == "test" else []
        if folds.left_out:
            strangers = list(as_tested(split, folds.left_out).draws())
        if strangers:
            searches[STRANGERS] = Searches(images, tuple(strangers))
        n_strangers = len(set(strangers[0].gallery_ids)) if strangers else len(folds.held_out[0])
        if trained := tuple(_of_trained(split, identities, val_paths, n_strangers)):
            searches[TRAINED] = Searches(images, trained)
    pixels, val_pixels = (np.array(images.pixels[images.rows(list(part))]) for part in (paths, val_paths))
    for one in extra:
        labels = np.concatenate([labels, one.labels + len(identities)])
        pixels, identities = np.concatenate([pixels, one.images.pixels]), (*identities, *one.identities)
    return TrainingImages(identities, pixels, labels, val_pixels, val_labels, searches)


def _all_at_once(
    identities: np.ndarray, paths: Sequence[str], labels: np.ndarray, val_paths: Sequence[str], val_labels: np.ndarray
) -> Draw:
    """The validation images against all that train."""
    queries, held = (np.array(part, object) for part in (val_paths, paths))
    unknown = [np.full(len(part), -1) for part in (queries, held)]
    return Draw(queries, identities[val_labels], unknown[0], held, identities[labels], unknown[1])


def _of_trained(split: Split, identities: Sequence[str], val_paths: Sequence[str], n_people: int) -> Iterator[Draw]:
    """Draws of so many people who train, others in each: a training image enrolled, the validation image a query."""
    rows = split.of_people("train", "val")
    people = set(rows.loc[rows["identity"].isin(identities), "subject"])
    for trial, draw in enumerate(as_tested(split, people, trained=True).draws()):
        asked = np.isin(draw.query_paths, list(val_paths))
        there = sorted(set(draw.query_ids[asked]), key=lambda name: keyed(split.meta["seed"], f"known {trial}", name))
        some = there[:n_people]
        asked &= np.isin(draw.query_ids, some)
        held = np.isin(draw.gallery_ids, some)
        if len(some) > 1:
            yield Draw(
                draw.query_paths[asked], draw.query_ids[asked], draw.query_captures[asked],
                draw.gallery_paths[held], draw.gallery_ids[held], draw.gallery_captures[held],
            )  # fmt: skip
