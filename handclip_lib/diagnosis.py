"""What was found on a machine, and what follows from it, for a person and for programs."""

import json
from dataclasses import asdict, dataclass

from handclip_lib.places import cache_folder
from handclip_lib.terminal import one_line


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to.
        name: What was looked at.
        value: What was found.
        state: "ok", "note" (something optional is missing) or "broken" (nothing works without it).
        remedy: What to do where it is not "ok".
    """

    section: str
    name: str
    value: str
    state: str = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what follows from them in sentences.

    Attributes:
        findings: In the order they were looked at.
        works: What will work here.
        fails: What will not, or not well, each with its remedy.
    """

    findings: tuple[Finding, ...]
    works: tuple[str, ...]
    fails: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing essential is broken."""
        return all(finding.state != "broken" for finding in self.findings)

    def as_json(self) -> str:
        """The same for programs."""
        whole = {"sound": self.sound, "findings": [asdict(finding) for finding in self.findings]}
        return json.dumps(whole | {"works": self.works, "fails": self.fails}, indent=1)

    def __str__(self) -> str:
        """The same for a person: a section each, `!` before what is missing, `X` before what is broken."""
        marks = {"ok": " ", "note": "!", "broken": "X"}
        lines, section = [], ""
        for found in self.findings:
            if found.section != section:
                section = found.section
                lines += ["", section]
            remedy = f": {found.remedy}" if found.remedy else ""
            lines.append(f"  {marks[found.state]} {found.name.ljust(18)} {found.value}{remedy}")
        lines += ["", "What will work", *(f"  {text}" for text in self.works)]
        lines += ["", "What will not", *(f"  {text}" for text in self.fails or ("nothing that was looked at",))]
        return "\n".join(map(one_line, lines[1:]))


def verdict(findings: tuple[Finding, ...]) -> tuple[list[str], list[str]]:
    """What will work, and what will not, each in a sentence; the latter with its remedy."""
    works, fails = [], []
    broken = [found for found in findings if found.state == "broken"]
    if broken:
        fails += [f"Anything, before this is mended: {found.name}: {found.value}: {found.remedy}." for found in broken]
    else:
        works.append("Notebooks 01 to 06 on drawn hands with backbone tiny, and their reports.")
    weights = [found for found in findings if found.section == "CLIP weights"]
    here = [found.name for found in weights if found.value.endswith("checksum right")]
    damaged = [found for found in weights if found.value.endswith("damaged")]
    if here:
        works.append(f"Without a network too: backbone {', '.join(here)}.")
    away = [found.name for found in weights if found.value == "not here"]
    if away:
        place = cache_folder() / "clip"
        fails.append(f"Without a network: backbone {', '.join(away)}; put OpenAI's files into {place} for that.")
    fails += [f"Backbone {found.name} without a network, for {found.value}: {found.remedy}." for found in damaged]
    gpu = [found for found in findings if found.name == "GPU"]
    if any(found.state == "ok" for found in gpu):
        works.append(f"Training OpenAI's models, on {gpu[0].value.split(',')[0]}.")
    elif gpu:
        fails.append(
            f"Training OpenAI's models in reasonable time (GPU: {gpu[0].value}): {gpu[0].remedy}; "
            "they can be evaluated, slowly."
        )
    little = [found for found in findings if found.section == "Folders" and found.state == "note"]
    fails += [f"Large data sets: little space in {found.value}: {found.remedy}." for found in little]
    missing = [found for found in findings if found.section == "Optional" and found.state == "note"]
    fails += [f"{found.name}: {found.remedy}." for found in missing]
    return works, fails
