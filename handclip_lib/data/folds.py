"""Who of the training people validates: held out by people, never trained on, and searched as the test will be."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import assign_roles, keyed
from handclip_lib.errors import DataError
from handclip_lib.files import write_text
from handclip_lib.parameters.notebooks import SELECTED_ON, Validation

HELD_SHARE = 0.2
"""Of the training people."""
FEWEST_TRAINED = 12
"""Identities that must be left to train on."""
FEWEST_SEARCHED = 3
"""People of a share: of two, rank-1 is a coin."""
FOLDS = "folds.json"


@dataclass(frozen=True)
class Folds:
    """What chooses the epoch.

    Attributes:
        validation: What is done: "people", "val" or "test".
        held_out: The people (subjects) of each fold, by whom nobody trains who is in another; none but for "people".
        trains_all: Whether a last training on everybody follows those without a fold.
        reason: Why it is not what was asked for, a sentence without its full stop; "" where it is.
        split: Checksum of the split that they are of.
    """

    validation: Validation
    held_out: tuple[tuple[str, ...], ...] = ()
    trains_all: bool = False
    reason: str = ""
    split: str = ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Training people whom the model that is kept never trains on."""
        return () if self.trains_all or not self.held_out else self.held_out[0]

    def only(self, number: int) -> "Folds":
        """One of them alone, from 0, whose people are left out."""
        return replace(self, held_out=(self.held_out[number],), trains_all=False)

    @property
    def said(self) -> str:
        """What chose the epoch, in words."""
        if not self.held_out:
            return SELECTED_ON[self.validation] + (f": {self.reason}" if self.reason else "")
        n_people = sum(map(len, self.held_out))
        folds = f", in {len(self.held_out)} folds" if len(self.held_out) > 1 else ""
        last = "; then all people trained for that many epochs" if self.trains_all else ""
        never = "none of whom trained a model that was measured on them"
        return f"{SELECTED_ON[self.validation]}: {n_people} people not tested{folds}, {never}{last}"

    def facts(self) -> dict[str, Any]:
        """For the record of a run: counts, and the checksum of who is in which."""
        return {
            "used": self.validation, "said": self.said, "folds": len(self.held_out),
            "n_people": [len(fold) for fold in self.held_out], "trains_all": self.trains_all,
            "checksum": self.checksum,
        }  # fmt: skip

    @property
    def checksum(self) -> str:
        """SHA-256 of who is in which fold, and of the split."""
        text = json.dumps([self.split, self.validation, self.trains_all, self.held_out])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `folds.json` beside the split's manifest: the people of each fold, and the checksum."""
        told = {**self.facts(), "split": self.split, "held_out": self.held_out}
        write_text(folder / FOLDS, json.dumps(told, indent=1) + "\n")


def choose_folds(split: Split, asked: Validation = "people", folds: int = 0, known: Collection[str] = ()) -> Folds:
    """Draw who validates, by a keyed hash of the split's seed and of each name.

    Only people who can be searched are held out: those with two photographs or more (under protocol cross_session two
    sessions). Others could be no query, and train always. A subject's two hands are never parted.

    Args:
        asked: "people", or what needs no fold: "val" and "test".
        folds: 0: a fifth of the people (at least three) is held out; 1: the same, and then everybody trains; 2 and
            more: so many folds of about the same size, together everybody who can be searched, then everybody trains.
        known: People who trained the weights that the training begins with: they are held out in no fold.

    Returns:
        What can be done: "val", with the reason, where `folds` is 0 and people would leave fewer than 12 training
        identities, or fewer than three could be searched.

    Raises:
        DataError: That, where folds are asked for by number, or more folds than the people allow.
    """
    if asked != "people":
        return Folds(asked, split=split.checksum)
    rows = split.of_people("train", "val")
    who, place = rows["subject"], "session" if split.crosses_sessions else "path"
    of_identity = rows.groupby(["subject", "identity"])[place].nunique()
    can = set(of_identity[of_identity > 1].index.get_level_values("subject")) - set(known)
    seed = split.meta["seed"]
    order = sorted(can, key=lambda name: (keyed(seed, "folds", name), name))
    held_out = _shares(order, who.nunique(), folds)
    if not (fault := _fault(rows, held_out)):
        return Folds("people", held_out, folds > 0, split=split.checksum)
    said = f"{who.nunique()} people train, of whom {len(order)} have two {place.replace('path', 'photograph')}s or more"
    if old := len(set(known) & set(who)):
        said += f" and did not train the weights it begins with, as {old} did"
    if folds:
        numbers = range(1, len(order) // FEWEST_SEARCHED + 1)
        can_be = [n for n in numbers if not _fault(rows, _shares(order, who.nunique(), n))]
        several = [n for n in can_be if n > 1] or can_be
        remedy = f"folds={several[0]}{f' to {several[-1]}' if len(several) > 1 else ''}, " if several else ""
        raise DataError(f"folds={folds}: {said}: {fault}; give {remedy}folds=0 with validation=val, or more people")
    return Folds("val", reason=f"{said}: {fault}", split=split.checksum)


def _shares(order: Sequence[str], n_people: int, folds: int) -> tuple[tuple[str, ...], ...]:
    if folds > 1:
        return tuple(tuple(order[start::folds]) for start in range(folds))
    return (tuple(order[: max(FEWEST_SEARCHED, round(HELD_SHARE * n_people))]),)


def _fault(rows: pd.DataFrame, held_out: Sequence[Sequence[str]]) -> str:
    """Why people cannot be held out so; "" where they can."""
    if min(map(len, held_out)) < FEWEST_SEARCHED:
        return f"a share of them needs at least {FEWEST_SEARCHED} to be searched"
    left = min(rows["identity"][~rows["subject"].isin(fold)].nunique() for fold in held_out)
    if left < FEWEST_TRAINED:
        most = max(map(len, held_out))
        return f"holding out {most} people leaves {left} identities to train, of at least {FEWEST_TRAINED}"
    return ""


def as_tested(split: Split, people: Collection[str], trained: bool = False) -> Split:
    """The split in which some of the training people are tested, by its own rules and as many draws, among themselves.

    Where they were `trained` on, only photographs that trained are enrolled; queries are to be chosen from the others.
    """
    rows = split.of_people("train", "val")
    rows = rows[rows["subject"].isin(people)].reset_index(drop=True)
    kept_out = trained & (rows["role"] == "val")
    seed, draws = split.meta["seed"], split.meta["draws"]
    drawn = assign_roles(rows[~kept_out], lambda _: False, seed, draws, [], split.crosses_sessions)
    others = rows[kept_out].assign(role="test", gallery_in="")
    return Split.build({**split.meta, "unqueryable": []}, pd.concat([drawn, others]))
