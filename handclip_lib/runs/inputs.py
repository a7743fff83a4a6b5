"""What a run reads: photographs and labels, weights, earlier runs, each named by its content."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, get_args

from handclip_lib.data.content import content_keys, data_files
from handclip_lib.errors import BackboneError, DataError, RunError
from handclip_lib.parameters.backbones import BackboneName, folder_of, of_library
from handclip_lib.parameters.notebooks import Analysis
from handclip_lib.parameters.parts import Parameters
from handclip_lib.parameters.sets import named_sets
from handclip_lib.places import HD_IDENTITIES, LABELS, METADATA, PHOTOGRAPHS, TRAINED_ON, find_data_root, reports_folder
from handclip_lib.runs.record import CHECKPOINTS, PROMPTS_OF, TRAININGS, find_run, read_record

C = TypeVar("C", bound=Parameters)
EARLIER = {"prompt_run": PROMPTS_OF, "trained_run": TRAININGS}
"""Parameters that name an earlier run, and whose runs they take."""
LEFT = ("text_features.safetensors", "best.safetensors", "split.csv", "split.json")
"""What later runs read of a run: its digest is that of these files, of those of `TRAINED_ON`, and its parameters."""
EVALUATED = ("run.json", "per_query.csv", "embeddings.safetensors", "split.csv", "split.json")
"""What an analysis reads of a run."""


def what_is_read(config: Parameters, *, progress: bool = True) -> dict[str, str]:
    """A digest of all that a run of these parameters reads, by the parameter that names it; of 06, by run.

    What is not there has a digest too. Published weights need none: their name says what they are, and a file that
    differs from its published checksum is not used. Drawn hands are their parameters and the library.
    """
    read, given = {}, config.model_dump()
    if isinstance(config, Analysis):
        for folder in sorted((reports_folder() / "runs").glob("0[1-5]_*")):
            record = read_record(folder) or {}
            status = record.get("status", "damaged")
            known = {} if status == "running" else contents(folder, EVALUATED)
            read[folder.name] = f"{status} {_digest(json.dumps([record.get('started'), known], sort_keys=True))}"
        return read
    if given.get("data_root") and given["dataset"] != "drawn":
        read["data_root"] = _data(given["dataset"], given["data_root"], progress)
    if beside := [one for one in named_sets(given.get("extra_data", "")) if one.data_root]:
        read["extra_data"] = _digest("\0".join(_data(one.dataset, one.data_root, progress) for one in beside))
    for name, path in (("weights", given.get("weights")), ("embeddings", given.get("embeddings")),
                       ("backbone", folder_of(str(given.get("backbone"))))):  # fmt: skip
        if path:
            read[name] = _file(path)
    for name in EARLIER:
        if given.get(name):
            earlier = _earlier_run(config, name)
            read[name] = f"{earlier.name} {_left(earlier)}" if earlier else "absent"
    return read


def as_opened(config: C) -> C:
    """The parameters, with aspect "unspecified" where the photographs they name record none.

    Raises:
        DataError: It is not plain how the photographs are read.
    """
    given = config.model_dump()
    dataset = given.get("dataset")
    if dataset in (None, "drawn", "11k") or "data_root" not in given:
        return config
    from handclip_lib.data.open import OPENED_BY, open_dataset  # pandas and Pillow, for those who name photographs

    images = open_dataset(**{name: given[name] for name in OPENED_BY}).images
    return config if (images["aspect"] != "").any() else config.model_copy(update={"aspect": "unspecified"})


def earlier_runs(config: Parameters) -> dict[str, str]:
    """Id of each earlier run that the parameters name now, by its notebook: `inputs` of a record."""
    found = [_earlier_run(config, name) for name in EARLIER if getattr(config, name, "")]
    return {folder.name.partition("-")[0]: folder.name for folder in found if folder}


def model_parameters(config: Parameters) -> Mapping[str, Any]:
    """The parameters that say which model it is: of a run that takes a trained one, the training's own."""
    folder = _earlier_run(config, "trained_run") if getattr(config, "trained_run", "") else None
    return ((read_record(folder) or {}).get("parameters") if folder else None) or config.model_dump()


def input_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the data set and the earlier runs that parameters, checked or not, name; with the remedy."""
    found = []
    if given.get("data_root") and isinstance(given["data_root"], str):
        try:
            root, dataset = find_data_root(given["data_root"]), given.get("dataset")
            needed = {"11k": (METADATA, PHOTOGRAPHS), "hd": (HD_IDENTITIES,), "csv": (LABELS,)}.get(str(dataset), ())
            if not all((root / name).exists() for name in needed):
                from handclip_lib.data.open import open_dataset

                open_dataset(str(dataset), str(root))  # it says what is missing, and which folder may be meant
        except DataError as error:
            found.append(str(error))
    found += _extra_faults(given)
    folder = given.get("download_root")
    if isinstance(folder, str) and Path(folder).is_file():
        found.append(f"download_root={folder!r} is a file: name the folder it is in, or say -p weights {folder}")
    embeddings = given.get("embeddings")
    if embeddings and isinstance(embeddings, str) and not _is_file(embeddings):
        found.append(f"embeddings={embeddings!r} is no file; give the .npz or .parquet that holds them")
    for name, notebooks in EARLIER.items():
        if given.get(name) and isinstance(given[name], str):
            try:
                usable_run(given[name], *notebooks)
            except RunError as error:
                found.append(f"{name}: {error}")
    return found


def _extra_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the data sets of `extra_data`, as far as no photograph has to be looked at."""
    sets = named_sets(text) if isinstance(text := given.get("extra_data"), str) else ()
    if not sets:
        return []
    from handclip_lib.data.open import READERS, open_extra

    found, seen = [], dict[Path, str]()
    with suppress(DataError, TypeError):
        seen[find_data_root(str(given.get("data_root"))).resolve()] = "data_root"
    for one in sets:
        if one.dataset not in READERS or not one.data_root:
            continue  # the parameters' own faults say so
        try:
            root = find_data_root(one.data_root).resolve()
            if root in seen:
                both = f"{root} is the folder of {seen[root]} too, and each of its people would be two"
                raise DataError(f"{both}; leave one out, and give the aspect all for all its aspects")
            seen[root] = str(one)
            open_extra(one, str(given.get("aspect")), identity=str(given.get("identity", "auto")))
        except DataError as error:
            found.append(f"extra_data={str(one)!r}: {error}")
    return found


def weights_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the file of weights and the size of the images; torch is imported where they are named."""
    backbone, weights = given.get("backbone"), given.get("weights")
    size = re.fullmatch(r"(\d+)x(\d+)", str(given.get("input_size")))
    known, another = backbone in get_args(BackboneName), of_library(str(backbone)) is not None
    if not isinstance(weights, str) or not ((known and (weights or size)) or another) or given.get("embeddings"):
        return []
    from handclip_lib.backbone.load import check_weights
    from handclip_lib.backbone.properties import Given

    said = Given(*(given.get(name, usual) for name, usual in zip(Given._fields, Given(), strict=True)))
    try:
        wanted = (int(size[1]), int(size[2])) if size else None
        check_weights(str(backbone), weights, wanted, said, texts="n_ctx" in given)
    except (BackboneError, RuntimeError) as error:  # RuntimeError: `~name` of a user who does not exist
        return [f"weights={weights!r}: {error}" if weights else str(error)]
    return []


def refuse_other_input(config: Parameters, record: Mapping[str, Any]) -> None:
    """Refuse, by a RunError, to end a run whose input is another than when it began, by its record.

    Runs of an analysis that have begun or ended since are no change: it looked at those there were.
    """
    inputs = record.get("inputs") or {}
    latest = {name: notebooks for name, notebooks in EARLIER.items() if getattr(config, name, "") == "latest"}
    meant = {name: inputs[one] for name, notebooks in latest.items() for one in notebooks if one in inputs}
    now = what_is_read(config.model_copy(update=meant), progress=False)
    read = (record.get("read") or {}).items()
    changed = [name for name, key in read if not key.startswith("running") and now.get(name) != key]
    if changed:
        raise RunError(
            f"what {' and '.join(changed)} names changed while this run went on, so its figures may be of neither "
            "what was there nor what is: run it again, and leave the files alone meanwhile"
        )


def usable_run(name: str, *notebooks: str) -> Path:
    """As `find_run`; a RunError, too, where a file that later notebooks take is gone or was replaced since."""
    folder = find_run(reports_folder() / "runs", name, *notebooks)
    record = read_record(folder) or {}
    needed, again = CHECKPOINTS[record["notebook"]], f"run {record['notebook'][:2]} again"
    if not (folder / needed).is_file():
        raise RunError(f"{folder.name} left no {needed}, or it was removed; {again}")
    left = record.get("left")
    left = left if isinstance(left, dict) else {}
    now = contents(folder, tuple(left))
    for file in left:
        if now.get(file) != left[file]:
            raise RunError(
                f"{file} in {folder} is not the file that {folder.name} left: it was replaced or damaged since; "
                f"{again} with --force, or give a file of weights of your own with -p weights"
            )
    return folder


def contents(folder: Path, names: tuple[str, ...] = ()) -> dict[str, str]:
    """Content keys of those files of a folder that are there; of those that later runs read where none are named."""
    names = names or (*LEFT, *sorted(str(file.relative_to(folder)) for file in folder.glob(f"{TRAINED_ON}/*/*")))
    keys = zip(names, content_keys(folder, names, progress=False), strict=True)
    return {name: key for name, key in keys if key != "absent"}


def _earlier_run(config: Parameters, name: str) -> Path | None:
    """The folder of the run that a parameter of `EARLIER` names; None where it names none that can be used."""
    try:
        return find_run(reports_folder() / "runs", getattr(config, name), *EARLIER[name])
    except (AttributeError, RunError):
        return None


def _data(dataset: str, data_root: str, progress: bool) -> str:
    """Of all files that opening a data set looks at."""
    from handclip_lib.data.decoder import file_fault, is_image

    try:
        root = find_data_root(data_root)
    except DataError:
        return "absent"
    paths = data_files(dataset, root)
    # what another reader may open once it is installed, a run does not read before
    closed = [is_image(path) and bool(file_fault(path)) for path in paths]
    lines = zip(paths, content_keys(root, paths, progress), closed, strict=True)
    return _digest("\0".join(f"{path}\0{'' if shut else key}" for path, key, shut in lines))


def _file(typed: str) -> str:
    """Of the weights at a path, and of the files beside them that say how they compute."""
    from handclip_lib.backbone.configs import files_of

    try:
        path = Path(typed).expanduser()
    except RuntimeError:  # `~name` of a user who does not exist
        return "absent"
    keys = [content_keys(file.parent, [file.name])[0] for file in files_of(path)]
    return keys[0] if len(keys) == 1 else _digest("\0".join(keys))


def _is_file(typed: str) -> bool:
    with suppress(RuntimeError):  # `~name` of a user who does not exist
        return Path(typed).expanduser().is_file()
    return False


def _left(folder: Path) -> str:
    """Of what a run left, its parameters, and the weights that one of PromptSG needs beside its own."""
    parameters = (read_record(folder) or {}).get("parameters") or {}
    weights = _file(parameters["weights"]) if parameters.get("weights") else ""
    return _digest(json.dumps([parameters, weights, contents(folder)], sort_keys=True))


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
