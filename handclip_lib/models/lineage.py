"""What weights were trained on: the split of their run, the data sets beside it, and those of the runs before."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from handclip_lib.data.folds import FOLDS
from handclip_lib.data.manifest import Split
from handclip_lib.errors import DataError
from handclip_lib.files import write_text
from handclip_lib.places import TRAINED_ON

OWN, BESIDE, BEFORE = "own", "extra_data", "weights"
_FACTS = "opened.json"


@dataclass(frozen=True)
class TrainedOn:
    """A data set that weights were trained on.

    Attributes:
        split: Its manifest, in the set's own names.
        opened: Parameters of the run that opened it; `dataset`, `data_root` and so on are this set's.
        how: It came to train: as the run's `OWN`, `BESIDE` it, or `BEFORE` it began, by the weights it began with.
        held_out: People who train by the manifest and never did, for they validated.
        label: What the run puts before the names of its people; "" before those of its own split.
    """

    split: Split
    opened: Mapping[str, Any] = field(default_factory=dict)
    how: str = OWN
    held_out: tuple[str, ...] = ()
    label: str = ""

    @cached_property
    def seen(self) -> Split:
        """The split without those who never trained."""
        return Split.build(self.split.meta, self.split.images[~self.split.people.isin(self.held_out)])

    @property
    def told(self) -> str:
        """Its name, people and photographs in words."""
        rows = self.seen.images
        rows, aspect = rows[rows["role"] == "train"], self.split.meta["aspect"]
        people = rows["identity"].nunique()
        each = f"{len(rows) / max(people, 1):.1f}"
        return f"{self.split.meta['dataset']} {aspect} ({people} people, {each} photographs each)"

    def facts(self) -> dict[str, Any]:
        """For the record of a run."""
        meta = self.split.meta
        named = {name: meta[name] for name in ("dataset", "protocol", "aspect")}
        return {"how": self.how, **named, "told": self.told, "checksum": self.split.checksum}


def cautions_of(lineage: Sequence[TrainedOn]) -> list[str]:
    """What must be said of weights that more than the run's own split trained, a sentence each."""
    told = {how: [one.told for one in lineage if one.how == how] for how in (OWN, BESIDE, BEFORE)}
    found = []
    if told[BESIDE]:
        sets = " + ".join(told[OWN] + told[BESIDE])
        found.append(f"Trained on {sets}; validated and tested on {lineage[0].split.meta['dataset']} alone.")
    if told[BEFORE]:
        found.append(f"The weights it began with had been trained on {' + '.join(told[BEFORE])}.")
    return found


def write_lineage(run: Path, lineage: Sequence[TrainedOn]) -> None:
    """Write the manifests of all but the run's own into its folder, so that it says all even when other runs go."""
    for number, one in enumerate((one for one in lineage if one.how != OWN), 1):
        place = run / TRAINED_ON / str(number)
        one.split.write(place)
        facts = {"how": one.how, "opened": dict(one.opened), "held_out": one.held_out, "label": one.label}
        write_text(place / _FACTS, json.dumps(facts, indent=1) + "\n")


def read_lineage(run: Path) -> tuple[TrainedOn, ...]:
    """What the weights in a run's folder were trained on, its own split first.

    Raises:
        DataError: A manifest is absent or damaged.
    """
    folds = _read(run / FOLDS)
    held_out = () if folds.get("trains_all") else tuple((folds.get("held_out") or [[]])[0])
    found = [TrainedOn(Split.read(run), _read(run / "run.json").get("parameters") or {}, OWN, held_out)]
    for place in sorted((run / TRAINED_ON).glob("[0-9]*"), key=lambda place: int(place.name)):
        facts = _read(place / _FACTS)
        told = (
            facts.get("opened", {}),
            facts.get("how", BEFORE),
            tuple(facts.get("held_out", ())),
            facts.get("label", ""),
        )
        found.append(TrainedOn(Split.read(place), *told))
    return tuple(found)


def lineage_beside(weights: str) -> tuple[TrainedOn, ...]:
    """`read_lineage` of the run whose folder a file of weights lies in; nothing of other files."""
    run = Path(weights).expanduser().parent
    return read_lineage(run) if weights and (run / "split.csv").is_file() else ()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); run its notebook again") from error
    return found if isinstance(found, dict) else {}
