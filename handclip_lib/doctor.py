"""What is installed, what this machine has, and so what will work here and what will not, with the remedy."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

from handclip_lib.diagnosis import Diagnosis, Finding, verdict
from handclip_lib.places import cache_folder, project_root, reports_folder
from handclip_lib.runs.identity import PACKAGES
from handclip_lib.terminal import in_units

LITTLE_SPACE = 2_000_000_000
EXTRAS = {
    "numba": "counting ranks is compiled, otherwise it takes several times as long",
    "faiss": "a gallery of 100,000 images and more is searched fast, otherwise exactly and slowly",
    "submitit": "a sweep can go to a Slurm cluster",
    "playwright": "the tests of reports in a browser can run, with Chromium",
}
INSTALLED_BY = {"numba": "fast", "faiss": "fast", "submitit": "slurm"}
INSTALL = "install the pins: make test, or pip install -r requirements.txt -e ."
OTHER_TORCH = "install a torch for its CUDA, or a newer driver: https://pytorch.org/get-started/locally"
DATA_VARIABLES = ("HANDCLIP_TEST_DATA",)


def examine() -> Diagnosis:
    """Look at everything; nothing is written, downloaded or started."""
    looks = {
        "Software": _software, "Machine": _machine, "Folders": _folders, "CLIP weights": _weights, "Data": _data,
        "Optional": _extras, "Notebooks": _notebooks,
    }  # fmt: skip
    findings = tuple(finding for section, look in looks.items() for finding in _looked(section, look))
    works, fails = verdict(findings)
    return Diagnosis(findings, tuple(works), tuple(fails))


def _looked(section: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds; a package it needs may be what is broken."""
    try:
        yield from look()
    except (ImportError, OSError) as error:  # OSError: a library of a package's own is missing
        yield Finding(section, "could not look", str(error), "broken", INSTALL)


def _software() -> Iterator[Finding]:
    right = sys.version_info >= (3, 11)
    yield Finding(
        "Software", "python", f"{platform.python_version()}, {sys.executable}", *_broken(right, "3.11 is needed")
    )
    wanted = dict.fromkeys(PACKAGES) | _requirements()
    for name, requirement in wanted.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("Software", name, "not installed", "broken", INSTALL)
            continue
        if requirement is not None and not requirement.specifier.contains(version, prereleases=True):
            yield Finding("Software", name, f"{version}, and {requirement.specifier} is wanted", "broken", INSTALL)
        elif name in PACKAGES:
            yield Finding("Software", name, version)


def _requirements() -> dict[str, Requirement]:
    """What the installed package says it needs, extras left out."""
    try:
        lines = importlib.metadata.requires("handclip") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = [Requirement(line) for line in lines]
    return {need.name: need for need in found if need.marker is None or need.marker.evaluate({"extra": ""})}


def _machine() -> Iterator[Finding]:
    from handclip_lib.machine import cores, free_memory, total_memory

    yield Finding("Machine", "cores", f"{cores()} to use, {platform.machine()}")
    yield Finding("Machine", "memory", f"{in_units(total_memory())}, {in_units(free_memory())} free")
    import torch

    cuda = torch.version.cuda or "none: built for the CPU"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            text = f"{facts.name}, {in_units(facts.total_memory)}, CUDA of torch {cuda}"
            try:
                torch.ones(1, device=f"cuda:{number}").sum().item()
                yield Finding("Machine", "GPU", text)
            except RuntimeError as error:
                yield Finding("Machine", "GPU", f"{text}; it fails ({str(error).splitlines()[0]})", "note", OTHER_TORCH)
    elif shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        text = f"there is one that torch cannot use; CUDA of torch {cuda}"
        yield Finding("Machine", "GPU", text, "note", OTHER_TORCH)
    else:
        yield Finding("Machine", "GPU", "none", "note", "training runs on the CPU")


def _folders() -> Iterator[Finding]:
    for name, folder, variable in (
        ("reports", reports_folder(), "HANDCLIP_REPORTS"),
        ("cache", cache_folder(), "HANDCLIP_CACHE"),
    ):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        text, remedy = f"{folder}, {in_units(free)} free", f"name another folder in {variable}"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Finding("Folders", name, f"{folder} cannot be written", "broken", remedy)
        elif free < LITTLE_SPACE:
            yield Finding("Folders", name, text, "note", f"handclip clean, or {remedy}")
        else:
            yield Finding("Folders", name, text)


def _weights() -> Iterator[Finding]:
    from handclip_lib.backbone.load import TINY_WEIGHTS

    section = "CLIP weights"
    there = TINY_WEIGHTS.is_file()
    yield Finding(section, "tiny", "shipped" if there else "missing", *_broken(there, f"restore {TINY_WEIGHTS}"))
    folder = cache_folder() / "clip"
    for name, (file, checksum) in _published().items():
        path = folder / file
        if not path.is_file():
            yield Finding(section, name, "not here", "note", f"its first use downloads {file}")
        elif _sha256(path) == checksum:
            yield Finding(section, name, f"{path}, {in_units(path.stat().st_size)}, checksum right")
        else:
            yield Finding(section, name, f"{path} is damaged", "note", "delete it; it is downloaded again")


def _published() -> dict[str, tuple[str, str]]:
    """OpenAI's file and its SHA-256, which is a part of its address, by short name."""
    from handclip_lib.backbone.load import BACKBONES
    from handclip_lib.backbone.openai_clip import clip_package, published_file

    addresses: dict[str, str] = clip_package().clip._MODELS
    return {short: (published_file(full), addresses[full].split("/")[-2]) for short, full in BACKBONES.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _data() -> Iterator[Finding]:
    yield Finding("Data", "drawn hands", "drawn at their first use, and kept in the cache")
    for variable in DATA_VARIABLES:
        named = os.environ.get(variable)
        if named and Path(named).is_dir():
            yield Finding("Data", variable, f"{named}: {len(list(Path(named).iterdir()))} entries")
        elif named:
            yield Finding("Data", variable, f"{named} is no folder", "note", "name the folder of the photographs")
    yield Finding("Data", "your own", "handclip data check FOLDER says what is usable in it")


def _extras() -> Iterator[Finding]:
    for name, gain in EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            place = f"-e '.[{INSTALLED_BY[name]}]'" if name in INSTALLED_BY else name
            yield Finding("Optional", name, "not installed", "note", f"with it {gain}; pip install {place}")
        else:
            yield Finding("Optional", name, f"there: {gain}")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium:
        yield Finding("Optional", "chromium", chromium)
    else:
        remedy = "tests of reports in a browser are skipped; Debian: apt-get install chromium"
        yield Finding("Optional", "chromium", "not found", "note", remedy)


def _notebooks() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    folder = project_root() / "notebooks"
    count = len(list(folder.glob("0*.ipynb")))
    yield Finding(
        "Notebooks", "notebooks", f"{count} in {folder}", *_broken(count > 0, "work in the folder of the project")
    )
    remedy = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        started = spec.argv[0]
    except NoSuchKernel:
        yield Finding("Notebooks", "kernel python3", "not there", "broken", remedy)
        return
    except (ValueError, LookupError, TypeError) as error:
        yield Finding("Notebooks", "kernel python3", f"kernel.json is damaged ({error})", "broken", remedy)
        return
    version = sys.version_info
    if started in ("python", f"python{version[0]}", f"python{version[0]}.{version[1]}"):  # Jupyter takes its own Python
        yield Finding("Notebooks", "kernel python3", f"runs this Python, {sys.executable}")
    elif _same_environment(Path(shutil.which(started) or started), Path(sys.executable)):
        yield Finding("Notebooks", "kernel python3", f"runs this Python, {started}")
    else:
        remedy += f", or remove {spec.resource_dir}"
        found = f"runs another Python, {started}, and this is {sys.executable}"
        yield Finding("Notebooks", "kernel python3", found, "broken", remedy)


def _same_environment(one: Path, other: Path) -> bool:
    """Whether two commands are one Python: those of two environments may be links to one file."""
    return one.exists() and one.samefile(other) and one.parent.resolve() == other.parent.resolve()


def _broken(right: bool, remedy: str) -> tuple[str, str]:
    return ("ok", "") if right else ("broken", remedy)
