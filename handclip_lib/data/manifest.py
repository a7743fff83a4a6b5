"""The manifest of a split: which image trains, validates, is tested, and in which draws it is the gallery's."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.errors import DataError
from handclip_lib.files import write_text

COLUMNS = ["path", "identity", "subject", "aspect", "capture", "session", "role", "gallery_in", "content"]
WHERE_KNOWN = ("subject", "session", "content")
"""Columns that a file has where something is in them, so that manifests of earlier versions keep their checksum."""
CROSS_SESSION = "cross_session"
ROLES = ("train", "val", "test", "other", "distractor")
GALLERIES = ("aspect", "all")


@dataclass(frozen=True)
class Draw:
    """One query/gallery draw. Captures are -1 where unknown; identities are text."""

    query_paths: np.ndarray
    query_ids: np.ndarray
    query_captures: np.ndarray
    gallery_paths: np.ndarray
    gallery_ids: np.ndarray
    gallery_captures: np.ndarray


@dataclass(frozen=True)
class Split:
    """A seeded split with its draws.

    Attributes:
        meta: dataset, protocol, aspect, seed, draws, cutoff (or None), unqueryable (test identities that can never be
            a query), counts, notes.
        images: One row an image: path, identity, subject (who it is of, where that is not the identity), aspect,
            capture, session ("" where unknown), role, `gallery_in`, the numbers of the draws in which it is a gallery
            image, and `content`, the key of its file's bytes as `content_keys` gives it ("" where it is not known:
            manifests of earlier versions have none). A test image is a query in the other draws; under protocol
            cross_session in those that enrol its identity from another session. Role "other" is a test image of
            another aspect, whose gallery identity is "<aspect>/<identity>"; "distractor" is in every gallery.
        checksum: SHA-256 of the rows (in order of path) and the meta.
    """

    meta: dict[str, Any]
    images: pd.DataFrame
    checksum: str

    @classmethod
    def build(cls, meta: dict[str, Any], images: pd.DataFrame) -> "Split":
        """Put the rows in order and compute the checksum; what has no column is not known."""
        images = _with_columns(images).sort_values("path", kind="stable").reset_index(drop=True)
        images["capture"] = images["capture"].astype("Int64")
        return cls(meta, images, _checksum(meta, images))

    @property
    def task(self) -> str:
        """Checksum of all but the content of the files: equal for the same names and draws on other photographs."""
        return _checksum(self.meta, self.images.assign(content=""))

    @property
    def crosses_sessions(self) -> bool:
        """Whether a query is never of the session that its person is enrolled from."""
        return self.meta.get("protocol") == CROSS_SESSION

    @property
    def whose(self) -> str:
        """What its identities are, in a sentence: people, or parts of people, such as hands, where it says whose."""
        return "identities" if (self.images["subject"] != "").any() else "people"

    @property
    def knows_content(self) -> bool:
        """Whether it says what is in its files; manifests of earlier versions do not."""
        return bool(self.images["content"].any())

    @property
    def people(self) -> pd.Series:
        """Who each image is of: its subject, who is the identity itself where none is named."""
        return self.images["subject"].where(self.images["subject"] != "", self.images["identity"])

    def of_people(self, *roles: str) -> pd.DataFrame:
        """The images with these roles, the subject of each where it is the identity itself, too."""
        return self.images.assign(subject=self.people)[self.images["role"].isin(roles)]

    def paths(self, role: str) -> list[str]:
        """Paths of the images with a role, in order of path."""
        if role not in ROLES:
            raise DataError(f"unknown role {role!r}; choose from {', '.join(ROLES)}")
        return self.images.loc[self.images["role"] == role, "path"].tolist()

    def identities(self, role: str) -> set[str]:
        """Identities of the images with a role."""
        return set(self.images.loc[self.images["role"] == role, "identity"])

    def evaluated_paths(self) -> list[str]:
        """Every image that some draw needs: test images, and gallery images of other aspects and people."""
        role = self.images["role"]
        needed = (role == "test") | (role == "distractor") | ((role == "other") & (self.images["gallery_in"] != ""))
        return self.images.loc[needed, "path"].tolist()

    def draw(self, trial: int, gallery: str = "aspect", sessions: str = "") -> Draw:
        """Draw number `trial`, from 0.

        Gallery "aspect" holds one image a test identity (CLIP-FH's task); "all" adds the other aspects' gallery images
        as other identities (MBA-Net's). Distractors are in both. `sessions`: "other" takes the queries of another
        session than the one their own gallery image is of, "same" those of that one; "" all, or "other" under protocol
        cross_session.
        """
        if gallery not in GALLERIES:
            raise DataError(f"unknown gallery {gallery!r}; choose from {', '.join(GALLERIES)}")
        if not 0 <= trial < self.meta["draws"]:
            raise DataError(f"draw {trial} does not exist; this split has {self.meta['draws']}, from 0")
        images, role, chosen = self._arrays, self._arrays["role"], self._chosen[trial]
        test, other = role == "test", role == "other"
        in_gallery = (test & chosen) | (role == "distractor")
        if gallery == "all":
            in_gallery |= other & chosen
        query, held = np.flatnonzero(test & ~chosen), np.flatnonzero(in_gallery)
        sessions = sessions or ("other" if self.crosses_sessions else "")
        if sessions:
            first = np.flatnonzero(test & chosen)
            session_of = dict(zip(images["identity"][first], images["session"][first], strict=True))
            enrolled = np.array([session_of.get(name) for name in images["identity"][query]], object)
            same = images["session"][query] == enrolled
            query = query[same if sessions == "same" else (enrolled != None) & ~same]  # noqa: E711
        sides = ((images["path"][rows], images[name][rows], images["capture"][rows])
                 for rows, name in ((query, "identity"), (held, "gallery_identity")))  # fmt: skip
        return Draw(*next(sides), *next(sides))

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """Columns of the images, and what each is called in a gallery."""
        images = self.images
        names = images["identity"].where(images["role"] != "other", images["aspect"] + "/" + images["identity"])
        return {name: images[name].to_numpy(object) for name in ("path", "role", "session")} | {
            "identity": images["identity"].to_numpy(str), "gallery_identity": names.to_numpy(str),
            "capture": images["capture"].fillna(-1).to_numpy(np.int64),
        }  # fmt: skip

    @cached_property
    def _chosen(self) -> np.ndarray:
        """Whether each image is in the gallery of each draw, bool (draws, n)."""
        number = {str(trial): trial for trial in range(self.meta["draws"])}
        found = np.zeros((len(number), len(self.images)), bool)
        for place, text in enumerate(self.images["gallery_in"]):
            found[[number[trial] for trial in text.split() if trial in number], place] = True
        return found

    def draws(self, gallery: str = "aspect") -> Iterator[Draw]:
        """All draws, one after the other."""
        return (self.draw(trial, gallery) for trial in range(self.meta["draws"]))

    def write(self, folder: Path | str) -> Path:
        """Write `split.csv` and `split.json` (meta and checksum) into a folder; return the CSV's path."""
        folder = Path(folder)
        write_text(folder / "split.csv", _csv(self.images))
        write_text(folder / "split.json", json.dumps({"checksum": self.checksum, **self.meta}, indent=1) + "\n")
        return folder / "split.csv"

    @classmethod
    def read(cls, path: Path | str) -> "Split":
        """Read a manifest from its CSV or its folder.

        Raises:
            DataError: A file is absent or damaged, or the rows were changed after the split was made.
        """
        path = Path(path)
        csv = path / "split.csv" if path.is_dir() else path
        try:
            meta = json.loads(csv.with_suffix(".json").read_text())
            text = csv.read_bytes().decode()
            if text.partition("\n")[0].endswith("\r"):  # git or an editor ended the lines its own way
                text = text.replace("\r\n", "\n")
            # A file name may hold a carriage return, so only the line feed ends a row.
            images = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False, lineterminator="\n")
            images = _with_columns(images)
            images["capture"] = images["capture"].replace("", pd.NA).astype("Int64")
            stored = meta.pop("checksum")
        except FileNotFoundError as error:
            raise DataError(f"{error.filename} does not exist; a split is the pair split.csv and split.json") from error
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{csv} is not a split manifest ({error}); make the split again") from error
        split = cls.build(meta, images)
        if split.checksum != stored:
            raise DataError(f"{csv} was changed after it was made (its checksum differs); make the split again")
        return split


def _with_columns(images: pd.DataFrame) -> pd.DataFrame:
    return images.assign(**{name: "" for name in WHERE_KNOWN if name not in images})[COLUMNS]


def _csv(images: pd.DataFrame) -> str:
    known = [name for name in COLUMNS if name not in WHERE_KNOWN or images[name].any()]
    return images[known].to_csv(index=False, lineterminator="\n")


def _checksum(meta: dict[str, Any], images: pd.DataFrame) -> str:
    text = json.dumps(meta, sort_keys=True) + "\n" + _csv(images)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
