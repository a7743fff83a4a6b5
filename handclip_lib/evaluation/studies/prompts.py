"""What prompts know: of people, learnt ones beside written ones; and untaught, of view and side of a hand."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.retrieval import TiedScoresWarning, retrieval_metrics
from handclip_lib.evaluation.tables import in_percent, result_table
from handclip_lib.finite import require_finite

SHARES = ("image_to_text@1", "image_to_text@5", "text_to_image@1", "image_to_text@1_by_text", "chance")
EncodeText = Callable[[Sequence[str]], np.ndarray]
"""Texts to embeddings (n, size), such as `Backbone.encode_text`."""
Labelled = tuple[tuple[str, ...], np.ndarray]
BY_IDENTITY = ("identity", "images", "image_to_text@1", "text_to_image@1", "margin", "confused_with")
PROMPTS = {
    f"{view}_{side[0]}": (f"a photo of a {side} {view} hand", f"a photo of the {face} of a {side} hand")
    for side in ("right", "left")
    for view, face in (("dorsal", "back"), ("palmar", "palm"))
}
"""Prompts of each aspect; their embeddings are averaged."""
VIEW_PROMPTS = {
    "dorsal": ("a photo of a dorsal hand", "a photo of the back of a hand"),
    "palmar": ("a photo of a palmar hand", "a photo of the palm of a hand"),
}
"""The same of each view. The side has none of its own: whose thumb it is cannot be said without the view."""
ZERO_SHOT = ("question", "accuracy", "accuracy_low", "accuracy_high", "majority", "n_images")


@dataclass(frozen=True)
class PromptTask:
    """The training images of a split as prompt learning takes them, and the validation images, which may be none.

    A label, int64 (n,), is a place among the identities. Text features are (n_identities, size) throughout.
    """

    identities: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    val_paths: tuple[str, ...]
    val_labels: np.ndarray
    features: Features

    @property
    def images(self) -> np.ndarray:
        """Training features as the model gives them, float32 (n, size)."""
        return self.features.raw.of(self.paths)

    def accuracy(self, text: np.ndarray) -> dict[str, float]:
        """Share of hits by the cosine; a hit on another image of the same identity is a hit, a tie is none.

        `image_to_text@1`, `image_to_text@5` and `text_to_image@1` of the training images, and with `val_` before them
        of the validation images, where there are any.
        """
        shares = _accuracy(self._cosine(text), self.labels)
        if len(self.val_paths):
            val = _accuracy(cosines(self.features.of(self.val_paths), _unit(text)), self.val_labels)
            shares |= {f"val_{name}": value for name, value in val.items()}
        return shares

    def conclusion(self, before: np.ndarray, after: np.ndarray) -> str:
        """What was learnt, as a sentence without its full stop: hits of validation images, or of training ones."""
        images, measure = ("validation", "val_image_to_text@1") if self.val_paths else ("training", "image_to_text@1")
        at_first, hits = (in_percent(self.accuracy(text)[measure]) for text in (before, after))
        own = f"nearest to the text of their own identity, one of {len(self.identities)}"
        return f"{hits} % of the {images} images are {own}; before learning {at_first} %"

    @property
    def sorted_labels(self) -> np.ndarray:
        """Labels of the rows of `similarity`, ascending."""
        return np.sort(self.labels, kind="stable")

    def similarity(self, text: np.ndarray) -> np.ndarray:
        """Cosine of training images (ordered by identity) and identities' texts, shape (n, n_identities)."""
        return self._cosine(text)[np.argsort(self.labels, kind="stable")]

    def of_identity(self, identity: str, text: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Training images of an identity, and their cosine to all identities' texts, (n, n_identities)."""
        mine = np.flatnonzero(self.labels == self.identities.index(identity))
        return [self.paths[row] for row in mine], self._cosine(text)[mine]

    def by_identity(self, text: np.ndarray) -> pd.DataFrame:
        """One row an identity, the least recognised first.

        Columns identity, images, image_to_text@1 (share of its images whose nearest text is its own), text_to_image@1
        (whether its text's nearest image is its own), margin (mean of own cosine less the best other), confused_with
        (the identity whose text its images are nearest to in error most often, or "").
        """
        similarity, place = self._cosine(text), np.arange(len(self.labels))
        others = similarity.copy()
        others[place, self.labels] = -np.inf
        rival, lead = others.argmax(axis=1), similarity[place, self.labels] - others.max(axis=1)
        nearest_image = self.labels[similarity.argmax(axis=0)]
        rows = []
        for number in np.unique(self.labels):
            mine = self.labels == number
            wrong = rival[mine & (lead <= 0)]
            mistaken = self.identities[np.bincount(wrong).argmax()] if len(wrong) else ""
            hits, margin = float((lead[mine] > 0).mean()), float(lead[mine].mean())
            back = bool(nearest_image[number] == number)
            rows.append((self.identities[number], int(mine.sum()), hits, back, margin, mistaken))
        return result_table(sorted(rows, key=lambda row: (row[2], row[4])), columns=BY_IDENTITY)

    def confused_pairs(self, text: np.ndarray, most: int = 6) -> list[tuple[str, str, str, str]]:
        """Images that are nearest to somebody else's text, one an identity, the clearest mistakes first.

        Each is identity, path of its image, the other identity, and path of that one's image nearest to its own text.
        """
        similarity = self._cosine(text)
        lead = similarity.max(axis=1) - similarity[np.arange(len(self.labels)), self.labels]
        pairs = dict[int, tuple[str, str, str, str]]()
        for row in np.argsort(-lead, kind="stable"):
            number, rival = int(self.labels[row]), int(similarity[row].argmax())
            if lead[row] <= 0 or len(pairs) == most:
                break
            if number not in pairs and (self.labels == rival).any():
                best = np.where(self.labels == rival, similarity[:, rival], -np.inf).argmax()
                pairs[number] = (self.identities[number], self.paths[row], self.identities[rival], self.paths[best])
        return list(pairs.values())

    def _cosine(self, text: np.ndarray) -> np.ndarray:
        return self.features.of(self.paths) @ _unit(text).T


def prompt_task(features: Features, split: Split, without: Collection[str] = ()) -> PromptTask:
    """Training and validation images of a split, as `labelled` has them."""
    identities, (paths, labels), (val_paths, val_labels) = labelled(split, without)
    return PromptTask(identities, paths, labels, val_paths, val_labels, features)


def labelled(split: Split, without: Collection[str] = ()) -> tuple[tuple[str, ...], Labelled, Labelled]:
    """Training identities in their order; paths and labels, places in that order, of training and validation images.

    All but those of the people (subjects) `without` whom it is to be.
    """
    images = split.images[~split.people.isin(without)]
    identities = tuple(sorted(set(images.loc[images["role"] == "train", "identity"]), key=identity_order))
    if len(identities) < 2:
        found = f"identities that train in this split (protocol {split.meta['protocol']!r}): {len(identities)}"
        raise EvaluationError(f"{found}; at least two are to be told apart: choose another protocol or more data")
    number = {identity: place for place, identity in enumerate(identities)}
    parts = [images[(images["role"] == role) & images["identity"].isin(number)] for role in ("train", "val")]
    train, val = ((tuple(rows["path"]), rows["identity"].map(number).to_numpy(np.int64)) for rows in parts)
    return identities, train, val


def written_prompts(images: pd.DataFrame, identities: Sequence[str]) -> list[str]:
    """A sentence for each identity, such as "A photo of a right dorsal hand.", of its first image's metadata."""

    def known(value: object) -> bool:
        return isinstance(value, str) and value != ""

    first = images.drop_duplicates("identity").set_index("identity")
    sentences = []
    for identity in identities:
        row = first.loc[identity]
        words = [str(row[name]) for name in ("side", "view") if known(row.get(name))]
        skin = row.get("skin_color")
        sentences.append(" ".join(["A photo of a", *words, "hand"]) + (f" with {skin} skin." if known(skin) else "."))
    return sentences


def compare_prompts(
    task: PromptTask, written: Sequence[str], encode_text: EncodeText, learnt: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Written prompts, of each identity, beside learnt text features by name, on training and validation images.

    Columns prompts, images ("train" or "val"), texts (different ones), the shares of `SHARES`: by identity, by text (a
    hit on an equal text is a hit, for no image can tell those apart), and the chance of the first.
    """
    kinds = {"written from metadata": np.asarray(encode_text(written)), **learnt}
    parts = {"train": (task.paths, task.labels), "val": (task.val_paths, task.val_labels)}
    rows = []
    for name, text in kinds.items():
        equal = np.unique(np.asarray(written), return_inverse=True)[1] if name not in learnt else np.arange(len(text))
        for part, (paths, labels) in parts.items():
            if len(paths):
                similarity = cosines(task.features.of(paths), _unit(text))
                by_text = float((equal[similarity.argmax(axis=1)] == equal[labels]).mean())
                with warnings.catch_warnings():
                    if name not in learnt:  # equal sentences tie, and no embedding has collapsed
                        warnings.simplefilter("ignore", TiedScoresWarning)
                    hits = _accuracy(similarity, labels).values()
                shares = (*hits, by_text, 1 / len(task.identities))
                rows.append((name, part, len(np.unique(equal)), *shares))
    return result_table(rows, columns=["prompts", "images", "texts", *SHARES])


def zero_shot(images: np.ndarray, encode_text: EncodeText, prompts: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The key of the prompts, such as `PROMPTS`, that each image is nearest to by the cosine, (n,).

    Images are embeddings of length 1, float32 (n, size); those of the prompts of a key are averaged at length 1.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, §3.1.4.
    """
    require_finite(images, "embeddings of the images")
    classes = []
    for texts in prompts.values():
        embedded = np.asarray(encode_text(texts), np.float64)
        require_finite(embedded, f"embeddings of the texts {', '.join(texts)}")
        classes.append((embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).mean(axis=0))
    directions = np.stack(classes)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.array(list(prompts))[(images @ directions.T).argmax(axis=1)]


def zero_shot_table(features: Features, images: pd.DataFrame, encode_text: EncodeText | None) -> pd.DataFrame:
    """How often view (by `VIEW_PROMPTS`), side and both (by `PROMPTS`) are right; interval over identities.

    Of images, with columns path, identity and aspect, those with an embedding and a known aspect count. The shares, in
    0..1, stand beside the majority: the share of the commonest class, what one fixed answer would reach. No row where
    the model reads no text, `encode_text` being None, or fewer than two identities have a known aspect.
    """
    known = images[images["path"].isin(features.paths) & images["aspect"].isin(PROMPTS)]
    if encode_text is None or known["identity"].nunique() < 2:
        return result_table([], columns=ZERO_SHOT)
    embeddings = features.of(known["path"])
    aspect, true = zero_shot(embeddings, encode_text, PROMPTS), known["aspect"].to_numpy(str)
    answers = {
        "view (dorsal or palmar)": (zero_shot(embeddings, encode_text, VIEW_PROMPTS), _part(true, 0)),
        "side (right or left)": (_part(aspect, 1), _part(true, 1)),
        "both": (aspect, true),
    }
    rows = []
    for name, (guess, truth) in answers.items():
        hit = (guess == truth).astype(np.float64)
        accuracy = identity_interval(hit, known["identity"]).columns("accuracy")
        majority = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
        rows.append((name, *accuracy.values(), majority, len(known)))
    return result_table(rows, columns=ZERO_SHOT)


def _accuracy(similarity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    numbers = np.arange(similarity.shape[1])
    forth = retrieval_metrics(similarity, labels, numbers, tie=TIE)
    back = retrieval_metrics(np.ascontiguousarray(similarity.T), numbers, labels, tie=TIE)
    return {"image_to_text@1": forth.rank(1), "image_to_text@5": forth.rank(5), "text_to_image@1": back.rank(1)}


def _unit(text: np.ndarray) -> np.ndarray:
    require_finite(text, "text features of the identities")
    return np.asarray(text, np.float32) / np.linalg.norm(text, axis=1, keepdims=True)


def _part(aspects: np.ndarray, place: int) -> np.ndarray:
    """View (0) or side (1) of aspects such as "dorsal_r"."""
    return np.array([aspect.split("_")[place] for aspect in aspects])
