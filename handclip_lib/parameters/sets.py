"""`extra_data`: data sets that train beside a notebook's own, as a person names them."""

from typing import NamedTuple, get_args

from pydantic import Field

from handclip_lib.parameters.parts import Aspect, Data, Dataset, nearest

PARTED_BY = "|"
WITH_PUBLISHED_IDS = ("11k", "hd", "drawn")
"""Data sets whose people have the same ids in every copy."""


class NamedSet(NamedTuple):
    """A data set as it is named: SET:FOLDER:ASPECT. Drawn hands have no folder; no aspect is that of the notebook."""

    dataset: str
    data_root: str = ""
    aspect: str = ""

    def __str__(self) -> str:
        return ":".join(filter(None, self))


def named_sets(text: str) -> tuple[NamedSet, ...]:
    """The data sets that a text names, right or wrong; a folder may have colons in its name."""
    found = []
    for entry in filter(None, map(str.strip, text.split(PARTED_BY))):
        dataset, _, rest = (part.strip() for part in entry.partition(":"))
        folder, _, last = (part.strip() for part in rest.rpartition(":"))
        of_aspect = last in get_args(Aspect) and (folder or dataset == "drawn")
        found.append(NamedSet(dataset, folder, last) if of_aspect else NamedSet(dataset, rest))
    return tuple(found)


class ExtraData(Data):
    """Which other photographs train, and take no part in validation and test."""

    extra_data: str = Field(
        "", description="sets that train too: drawn, SET:FOLDER or SET:FOLDER:ASPECT; several are parted by |"
    )

    @property
    def extra_sets(self) -> tuple[NamedSet, ...]:
        """What `extra_data` names."""
        return named_sets(self.extra_data)

    def faults(self) -> list[str]:
        """Sets that are unknown, have no folder, or are named twice, too."""
        found, seen = super().faults(), {str(self.dataset)}
        for one in self.extra_sets:
            given, of = f"extra_data={str(one)!r}", one.dataset
            if of not in get_args(Dataset):
                found.append(f"{given}: no data set {of!r}; {nearest(of, get_args(Dataset))}")
            elif of == "drawn" and one.data_root:
                found.append(f"{given}: drawn hands have no folder; give drawn, or with an aspect drawn:palmar_r")
            elif of != "drawn" and not one.data_root:
                found.append(f"{given}: it needs the folder of its photographs: {of}:FOLDER")
            elif of in WITH_PUBLISHED_IDS and of in seen:
                where, remedy = "named before it", "name it once, with the aspect all for all of its aspects"
                if of == self.dataset:
                    where = "the notebook's own data set"
                    remedy = "its other aspects train with aspect=all and protocol=proportional"
                found.append(f"{given}: {of} is {where}, and each of its people would be two; {remedy}")
            seen.add(of)
        return found
