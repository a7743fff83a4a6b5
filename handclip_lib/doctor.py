"""What is installed, what this machine has, and so what will work here and what will not, with the remedy."""

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from packaging.requirements import Requirement

from handclip_lib.backbone.published import addresses, published
from handclip_lib.files import sha256_of
from handclip_lib.machine import cores, free_memory, total_memory
from handclip_lib.parameters.parts import BackboneName
from handclip_lib.places import STUDY, cache_folder, project, project_root, reports_folder
from handclip_lib.runs.identity import PACKAGES
from handclip_lib.study import is_stripped
from handclip_lib.terminal import in_units, one_line

LITTLE_SPACE = 2_000_000_000
EXTRAS = {
    "numba": ("'handclip[fast]'", "counting ranks is compiled, otherwise it takes several times as long"),
    "pillow_heif": ("'handclip[heif]'", "photographs of telephones (.heic) are read, otherwise left out by name"),
    "open_clip": ("'handclip[open_clip]'", "SigLIP, EVA02-CLIP, MobileCLIP, PE are backbones: open_clip:NAME"),
    "timm": ("'handclip[timm]'", "timm's image models are backbones, DINOv2 and DINOv3 among them: timm:NAME"),
    "transformers": ("'handclip[transformers]'", "folders of Hugging Face are backbones: hf:FOLDER"),
    "submitit": ("'handclip[slurm]'", "a sweep can go to a Slurm cluster"),
    "playwright": ("playwright", "the tests of reports in a browser can run, with Chromium"),
}
INSTALL = "install HandCLIP again with its dependencies; in a checkout: make test"
OTHER_TORCH = "install a torch for its CUDA, or a newer driver: https://pytorch.org/get-started/locally"
GPUS = (Path("/dev/nvidia0"), Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""NVIDIA's, under WSL too, and AMD's: without one of them there is no need to import torch, which takes seconds."""
DATA_VARIABLE = "HANDCLIP_TEST_DATA"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: "ok", "note" (something optional is missing) or "broken" (nothing works then)."""

    name: str
    value: str
    state: str = "ok"
    remedy: str = ""
    section: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings in the order they were looked at, and in sentences what will work here and what will not."""

    findings: tuple[Finding, ...]
    works: tuple[str, ...]
    fails: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is broken."""
        return all(finding.state != "broken" for finding in self.findings)

    def as_json(self) -> str:
        """The same for programs."""
        return json.dumps({"sound": self.sound} | asdict(self), indent=1)

    def __str__(self) -> str:
        """The same for a person: a section each, `!` before what is missing, `X` before what is broken."""
        marks = {"ok": " ", "note": "!", "broken": "X"}
        lines: list[str] = []
        for section in dict.fromkeys(finding.section for finding in self.findings):
            lines += ["", section]
            for found in (finding for finding in self.findings if finding.section == section):
                remedy = f": {found.remedy}" if found.remedy else ""
                lines.append(f"  {marks[found.state]} {found.name.ljust(18)} {found.value}{remedy}")
        lines += ["", "What will work", *(f"  {text}" for text in self.works)]
        lines += ["", "What will not", *(f"  {text}" for text in self.fails or ("nothing that was looked at",))]
        return "\n".join(map(one_line, lines[1:]))


def examine() -> Diagnosis:
    """Look at everything; nothing is written, downloaded or started."""
    looks = {
        "Software": _software, "Machine": _machine, "Folders": _folders, "CLIP weights": _weights, "Data": _data,
        "Optional": _extras, "Notebooks": _notebooks,
    }  # fmt: skip
    found = tuple(replace(one, section=section) for section, look in looks.items() for one in _looked(look))
    return Diagnosis(found, *_verdict(found))


def _verdict(findings: tuple[Finding, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What will work, and what will not, each in a sentence; the latter with its remedy."""

    def of(section: str, ending: str = "", state: str = "") -> list[Finding]:
        return [f for f in findings if section == f.section and f.value.endswith(ending) and state in f.state]

    works, broken = [], [found for found in findings if found.state == "broken"]
    fails = [f"Anything, before this is mended: {found.name}: {found.value}: {found.remedy}." for found in broken]
    if not broken:
        works.append("Notebooks 01 to 06 on drawn hands with backbone tiny, and their reports.")
    if here := of("CLIP weights", "checksum right"):
        works.append(f"Without a network too: backbone {', '.join(found.name for found in here)}.")
    if away := ", ".join(found.name for found in of("CLIP weights", "not here")):
        fails.append(f"Without a network: backbone {away}; put OpenAI's files into {cache_folder() / 'clip'} for that.")
    for found in of("CLIP weights", "damaged"):
        fails.append(f"Backbone {found.name} without a network, for {found.value}: {found.remedy}.")
    gpu = [found for found in findings if found.name == "GPU"]
    if any(found.state == "ok" for found in gpu):
        works.append(f"Training OpenAI's models, on {gpu[0].value.split(',')[0]}.")
    elif gpu:
        slow = f"Training OpenAI's models in reasonable time (GPU: {gpu[0].value}): {gpu[0].remedy}"
        fails.append(f"{slow}; they can be evaluated, slowly.")
    little = of("Folders", state="note")
    fails += [f"Large data sets: little space in {found.value}: {found.remedy}." for found in little]
    fails += [f"{found.name}: {found.remedy}." for found in of("Optional", state="note")]
    return tuple(works), tuple(fails)


def _looked(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds; a package it needs may be what is broken."""
    try:
        yield from look()
    except (ImportError, OSError) as error:  # OSError: a library of a package's own is missing
        yield Finding("could not look", str(error), "broken", INSTALL)


def _software() -> Iterator[Finding]:
    right = sys.version_info >= (3, 11)
    yield Finding("python", f"{platform.python_version()}, {sys.executable}", *_broken(right, "3.11 is needed"))
    needs = []
    with suppress(importlib.metadata.PackageNotFoundError):
        needs = [Requirement(line) for line in importlib.metadata.requires("handclip") or []]
    wanted = {need.name: need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
    for name, requirement in (dict.fromkeys(PACKAGES) | wanted).items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", "broken", INSTALL)
            continue
        if requirement is not None and not requirement.specifier.contains(version, prereleases=True):
            yield Finding(name, f"{version}, and {requirement.specifier} is wanted", "broken", INSTALL)
        elif name in PACKAGES:
            yield Finding(name, version)


def _machine() -> Iterator[Finding]:
    yield Finding("cores", f"{cores()} to use, {platform.machine()}")
    yield Finding("memory", f"{in_units(total_memory())}, {in_units(free_memory())} free")
    device = next(filter(Path.exists, GPUS), None)
    if device is None and sys.platform == "linux" and "torch" not in sys.modules:
        _load_torch()
        yield Finding("GPU", "none", "note", "training runs on the CPU")
        return
    import torch

    cuda = torch.version.cuda or "none: built for the CPU"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            text = f"{facts.name}, {in_units(facts.total_memory)}, CUDA of torch {cuda}"
            try:
                torch.ones(1, device=f"cuda:{number}").sum().item()
                yield Finding("GPU", text)
            except RuntimeError as error:
                yield Finding("GPU", f"{text}; it fails ({str(error).splitlines()[0]})", "note", OTHER_TORCH)
    elif device:
        yield Finding("GPU", f"there is one that torch cannot use; CUDA of torch {cuda}", "note", OTHER_TORCH)
    else:
        yield Finding("GPU", "none", "note", "training runs on the CPU")


def _load_torch() -> None:
    """Load torch's libraries, so that one that is missing is told of; `import torch` takes five times as long.

    Raises:
        ImportError: torch is not installed.
        OSError: One of its libraries cannot be loaded.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ImportError("torch is not installed")
    for name in ("libtorch_global_deps.so", "libtorch_python.so"):  # in the order, and for all, as torch does
        library = Path(spec.origin).parent / "lib" / name
        if library.is_file():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _folders() -> Iterator[Finding]:
    for name, folder in (("reports", reports_folder()), ("cache", cache_folder())):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free, remedy = shutil.disk_usage(there).free, f"name another folder in HANDCLIP_{name.upper()}"
        text = f"{folder}, {in_units(free)} free"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Finding(name, f"{folder} cannot be written", "broken", remedy)
        elif free < LITTLE_SPACE:
            yield Finding(name, text, "note", f"handclip clean, or {remedy}")
        else:
            yield Finding(name, text)


def _weights() -> Iterator[Finding]:
    tiny = Path(__file__).parent / "backbone" / "tiny.safetensors"
    there = tiny.is_file()
    yield Finding("tiny", "shipped" if there else "missing", *_broken(there, f"restore {tiny}"))
    for name, (file, checksum) in _published().items():
        path = cache_folder() / "clip" / file
        if not path.is_file():
            yield Finding(name, "not here", "note", f"its first use downloads {file}")
        elif sha256_of(path) == checksum:
            yield Finding(name, f"{path}, {in_units(path.stat().st_size)}, checksum right")
        else:
            yield Finding(name, f"{path} is damaged", "note", "delete it; it is downloaded again")


def _published() -> dict[str, tuple[str, str]]:
    """OpenAI's file and its SHA-256, by short name; without the models themselves, which import torch."""
    theirs = {re.sub(r"\W|px$", "", name.lower()): published(name)[::2] for name in addresses()}
    ours = {name: name.replace("_", "") for name in get_args(BackboneName)}
    return {name: theirs[plain] for name, plain in ours.items() if plain in theirs}


def _data() -> Iterator[Finding]:
    yield Finding("drawn hands", "drawn at their first use, and kept in the cache")
    named = os.environ.get(DATA_VARIABLE)
    if named and Path(named).is_dir():
        yield Finding(DATA_VARIABLE, f"{named}: {len(list(Path(named).iterdir()))} entries")
    elif named:
        yield Finding(DATA_VARIABLE, f"{named} is no folder", "note", "name the folder of the photographs")
    yield Finding("your own", "handclip data check FOLDER says what is usable in it")


def _extras() -> Iterator[Finding]:
    for name, (place, gain) in EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            yield Finding(name, "not installed", "note", f"with it {gain}; pip install {place}")
        else:
            yield Finding(name, f"there: {gain}")
    if chromium := next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None):
        yield Finding("chromium", chromium)
    else:
        remedy = "tests of reports in a browser are skipped; Debian: apt-get install chromium"
        yield Finding("chromium", "not found", "note", remedy)


def _notebooks() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    here, folder = project(), project_root() / "notebooks"
    count = len(list(folder.glob("0*.ipynb")))
    whose = "" if here else ", as packaged: handclip init FOLDER makes a study of your own"
    yield Finding("notebooks", f"{count} in {folder}{whose}", *_broken(count > 0, "handclip init --update brings them"))
    if here and (here / STUDY).is_file() and not is_stripped(here):
        remedy = "handclip init --update has git leave out what notebooks showed"
        yield Finding("git", f"{here} is kept in git with all that notebooks show, photographs too", "note", remedy)
    remedy, version = f"{sys.executable} -m ipykernel install --sys-prefix", sys.version_info
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        started = spec.argv[0]
    except NoSuchKernel:
        yield Finding("kernel python3", "not there", "broken", remedy)
    except (ValueError, LookupError, TypeError) as error:
        yield Finding("kernel python3", f"kernel.json is damaged ({error})", "broken", remedy)
    else:
        if started in ("python", f"python{version[0]}", f"python{version[0]}.{version[1]}"):
            started = sys.executable  # Jupyter takes its own Python
        one, other = Path(shutil.which(started) or started), Path(sys.executable)
        # two commands are one Python where they are one file in one folder: those of two environments may be links
        if one.exists() and one.samefile(other) and one.parent.resolve() == other.parent.resolve():
            yield Finding("kernel python3", f"runs this Python, {started}")
        else:
            found = f"runs another Python, {started}, and this is {sys.executable}"
            yield Finding("kernel python3", found, "broken", f"{remedy}, or remove {spec.resource_dir}")


def _broken(right: bool, remedy: str) -> tuple[str, str]:
    return ("ok", "") if right else ("broken", remedy)
