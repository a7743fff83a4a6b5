"""A report that may leave the house: pseudonyms for people and files, no photograph, folder, host, user or message."""

import csv
import getpass
import json
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from nbformat import NotebookNode, v4

from handclip_lib.data.decoder import IMAGE_FORMATS
from handclip_lib.data.manifest import GALLERIES, ROLES
from handclip_lib.evaluation.tables import HEADINGS
from handclip_lib.parameters.backbones import folder_of
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import choices_of
from handclip_lib.parameters.sets import named_sets
from handclip_lib.places import (
    HD_DISTRACTORS,
    HD_IDENTITIES,
    PHOTOGRAPHS,
    TRAINED_ON,
    cache_folder,
    project_root,
    reports_folder,
)
from handclip_lib.report.facts import PLACES
from handclip_lib.runs.identity import weights_in_id
from handclip_lib.runs.record import record_of

NOTE = (
    "This report is private: photographs, pictures with names in them, messages, folders and machines are left out, "
    "and pseudonyms, which hold in this report alone, stand for people and files. The files beside it are as they were."
)
WITHHELD = "withheld"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
OF_THE_MACHINE = ("command", "process")
"""Parts of a record that name a machine, its user, and folders there."""
PUBLISHED = frozenset({PHOTOGRAPHS, *HD_IDENTITIES.split("/"), *HD_DISTRACTORS.split("/")})
"""Folders of data sets as they are published: everybody's are called so, and "11k Hands" is a word of ours."""
EVERYWHERE = frozenset({"home", "Users", "root", "mnt", "media", "srv", "opt", "var", "tmp", "data", "usr"})
"""Folders that every machine has."""
SUFFIXES = "|".join(suffix[1:] for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)
FILE = re.compile(rf"[^\s'\"<>()\[\],;:=|]+\.(?:{SUFFIXES})\b", re.I)
PLACE = re.compile(r"(?<![\w./<])(?:~?/(?!/)|[A-Za-z]:[\\/]|\\\\)[\w.~][^\s'\"<>|;)]*")
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)|<img\b[^>]*>", re.I)
LISTED = re.compile(r"(?<=[(\[])[^()\[\]]+(?=[)\]])")
QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
SHORTEST = 3  # characters of a name that is looked for within a sentence; a shorter one, or a number, only by itself


class Redaction:
    """Takes out of texts, tables and notebooks what names or shows people.

    A pseudonym is a digest under a key that is drawn for each report and kept nowhere, so nobody who has a list of
    names can find out whose it is, and two reports cannot be joined by it.

    Args:
        named: Names by what they are: "person", "session", "image" or "folder".
    """

    def __init__(self, named: Mapping[str, Iterable[str]]):
        key = secrets.token_bytes(32)
        self._pseudonyms: dict[str, str] = {}
        for kind, names in named.items():
            for name in names:
                digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4, key=key).hexdigest()
                self._pseudonyms.setdefault(name, f"{kind}-{digest}")
        known = _vocabulary()
        looked_for = [
            name for name in self._pseudonyms
            if len(name) >= SHORTEST and name not in known and not (name.isdecimal() and len(name) <= SHORTEST + 1)
        ]  # fmt: skip
        self._within = sorted(looked_for, key=len, reverse=True)

    def cell(self, text: str) -> str:
        """A cell of a table, a label or a parameter: a name by itself, or a text."""
        return self._pseudonyms.get(text.strip()) or self.text(text)

    def text(self, text: str) -> str:
        """A text without names, files and places."""
        if there := [
            name for name in self._within if name in text
        ]:  # a pattern of all, which may be thousands, is slow
            pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, there))})(?!\w)"
            text = re.sub(pattern, lambda found: self._pseudonyms[found[0]], text)
        text = FILE.sub(f"[{WITHHELD}]", PLACE.sub(f"[{WITHHELD}]", text))
        text = QUOTED.sub(lambda found: found[0][0] + self._listed(found[0][1:-1]) + found[0][-1], text)
        return LISTED.sub(lambda found: self._listed(found[0]), text)

    def value(self, name: str, value: Any) -> Any:
        """A value of a record or of the parameters, by its name, with everything in it."""
        if name == "backbone" and isinstance(value, str) and folder_of(value):
            return f"{value.partition(':')[0]}:{WITHHELD}"
        if name in OF_THE_MACHINE or (name in PLACES and isinstance(value, str) and value):
            return WITHHELD
        if isinstance(value, Mapping):
            return {self.cell(str(inner)): self.value(str(inner), one) for inner, one in value.items()}
        if isinstance(value, list):
            return [self.value(name, one) for one in value]
        return self.cell(value) if isinstance(value, str) else value

    def record(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """A run's record; of an error only that there was one."""
        kept = ("notebook", "status", "started", "finished")
        told = {name: value if name in kept else self.value(name, value) for name, value in run.items()}
        if run.get("error"):
            told["error"] = f"Its message is {WITHHELD}, for it may name people; run.json beside this report has it."
        return told

    def redact_notebook(self, notebook: NotebookNode) -> None:
        """Take names and photographs out of the cells and outputs of an executed notebook."""
        for cell in notebook.cells:
            cell.pop("attachments", None)
            if cell.cell_type != "code":
                cell.source = self.text(PICTURE.sub(f"(a picture is {WITHHELD})", cell.source))
                continue
            given = {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
            cell.source = "# the parameters stand at the end of the report" if given else self.text(cell.source)
            outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            cell.outputs = [self._output(out) for out in outputs]

    def _output(self, output: NotebookNode) -> NotebookNode:
        if output.output_type == "stream":
            output.text = self.text(output.text)
            return output
        if output.output_type == "error":
            told = f"its message is {WITHHELD}"
            return v4.new_output("error", ename=output.ename, evalue=told, traceback=[f"{output.ename}: {told}"])
        if pictures := [kind for kind in output.data if kind.startswith("image/")]:
            about = output.metadata.get(pictures[0], {})
            why = "it shows photographs"
            if about.get("photographs") is False:
                why = "it shows names" if any(self.cell(text) != text for text in about.get("texts", ())) else ""
            if why or pictures != ["image/png"]:
                what = self.text(str(about.get("alt", "")).partition(" (")[0]) or "a picture"
                return v4.new_output("display_data", data={"text/markdown": f"*Left out, for {why}: {what}.*"})
            about |= {name: self.text(str(about[name])) for name in ("alt", "caption") if name in about}
            output.data = NotebookNode({"image/png": output.data["image/png"]})
            return output
        columns = output.metadata.get("text/html", {}).get("texts")
        data = {kind: self.text(str(output.data[kind])) for kind in ("text/plain", "text/latex") if kind in output.data}
        if WIDGET_VIEW in output.data:  # of a bar of progress, which no report shows
            data[WIDGET_VIEW] = output.data[WIDGET_VIEW]
        if html := output.data.get("text/html"):
            data["text/html"] = self._html(html, columns)
        if markdown := output.data.get("text/markdown"):
            data["text/markdown"] = self.text(PICTURE.sub("", markdown))
        output.data = NotebookNode(data)
        return output

    def _html(self, html: str, columns: list[int] | None) -> str:
        """Markup without pictures; of a table's columns those of texts may hold a name by itself: all, where None."""
        soup = BeautifulSoup(html, "html.parser")
        for picture in soup.find_all(["img", "svg", "object", "embed", "iframe", "style", "script"]):
            picture.decompose()
        for row in soup.find_all("tr"):
            for place, cell in enumerate(row.find_all(["td", "th"], recursive=False)):
                if columns is None or place in columns:
                    whole = self.cell(cell.get_text())
                    if whole != self.text(cell.get_text()):
                        cell.string = whole
        for part in soup.find_all(string=True):
            part.replace_with(self.text(str(part)))
        for tag in soup.find_all(True):
            tag.attrs = {name: value for name, value in tag.attrs.items() if name in ("class", "style", "colspan")}
        return str(soup)

    def _listed(self, listed: str) -> str:
        """Texts parted by commas, if each is a name or says that there are more: `anna, 7, …`."""
        parts = [part.strip().strip("'\"") for part in listed.split(",")]
        told = {*self._pseudonyms.values(), "…", "..."}
        if all(part in self._pseudonyms or part in told for part in parts):
            return ", ".join(self._pseudonyms.get(part, part) for part in parts)
        return listed


def redaction_of(run_folder: Path, run: Mapping[str, Any]) -> Redaction:
    """What a run could name, or one that it took or compared: people, files and folders, and where it was made."""
    folders = [run_folder, *(run_folder.parent / str(name) for name in (run.get("inputs") or {}).values())]
    folders += [run_folder.parent / name for name in run.get("read") or {} if (run_folder.parent / name).is_dir()]
    sets = [place for folder in folders for place in folder.glob(f"{TRAINED_ON}/*")]
    rows = [row for folder in (*folders, *sets) for row in _rows(folder)]
    paths = {path for row in rows for path in (row.get("path"), row.get("for example")) if path}
    people = {row.get(name) or "" for row in rows for name in ("identity", "subject")}
    sessions = {row.get("session") or "" for row in rows}
    given = [one.get("parameters") or {} for one in (run, *map(record_of, folders[1:]))]
    typed = [str(one[name]) for one in given for name in PLACES if one.get(name) and name != "extra_data"]
    typed += [extra.data_root for one in given for extra in named_sets(str(one.get("extra_data") or ""))]
    typed += [folder_of(str(one.get("backbone"))) for one in given]
    places = [Path(place).expanduser() for place in typed if place]
    here = [run_folder.absolute(), Path.cwd(), project_root(), reports_folder(), cache_folder()]
    whole = {str(place) for place in (*places, *(place.absolute() for place in places), *here)}
    parts = {*map(weights_in_id, given), *(part for place in places for part in (*place.parts, place.stem))}
    inside = {part for path in paths for part in Path(path).parts[:-1]} - PUBLISHED
    machine = {socket.gethostname(), str((run.get("process") or {}).get("host") or ""), *_user()}
    machine.add(str((run.get("study") or {}).get("name") or ""))
    files = {name for path in paths for name in (path, Path(path).name, Path(path).stem)}
    sessions = {name for name in sessions if not name.isdecimal()}  # a number names no day and no place
    folders_named = whole | (parts | machine) - EVERYWHERE | inside
    named = {"person": people, "session": sessions, "image": files, "folder": folders_named}
    return Redaction({kind: names - {"", "/"} for kind, names in named.items()})


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    """Rows of the files of a run that name photographs; of those left out the folder stands for whose they are.

    Of another data set than the run's own the identity as its tables have it, too.
    """
    label = ""
    with suppress(OSError, ValueError, AttributeError):
        label = json.loads((folder / "opened.json").read_text(encoding="utf-8")).get("label", "")
    for name in ("split.csv", "left_out.csv"):
        try:
            with (folder / name).open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    yield row
                    if label:
                        yield {"identity": f"{label}:{row.get('identity')}"}
        except (OSError, ValueError, csv.Error):
            continue


def _user() -> set[str]:
    """This user's name and home folder; a user may be a number without either, as in a container."""
    found = set[str]()
    with suppress(OSError, KeyError):
        found.add(getpass.getuser())
    with suppress(RuntimeError):
        found |= {str(Path.home()), Path.home().name}
    return found


def _vocabulary() -> set[str]:
    """Words that the library itself says: in a sentence nobody can tell a folder or person of such a name from them."""
    fields = {name: field for model in NOTEBOOKS.values() for name, field in model.model_fields.items()}
    choices = [str(choice) for field in fields.values() for choice in choices_of(field.annotation)]
    said = " ".join([*(field.description or "" for field in fields.values()), *HEADINGS.values()])
    return {*fields, *choices, *ROLES, *GALLERIES, *re.findall(r"\w+", said)}
