"""Embeddings in files of other programs: read in place of a model, and written for others, as .npz or Parquet."""

import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError
from handclip_lib.files import sha256_of, whole_file

RESOLUTION = 224  # pixels: of the photographs shown, and of those the trivial baselines are made of
PARQUET = "Parquet needs pyarrow, which is not installed: pip install 'handclip[parquet]', or use .npz"
OBJECTS = "it holds Python objects, which are not opened; save names as np.array(names, str)"
WANTED = (
    "wanted are an .npz of the arrays paths (text) and embeddings (a row an image), or of one vector an image under "
    "its name; or Parquet with the columns path (text) and embedding (lists)"
)


@dataclass(frozen=True)
class GivenEmbeddings:
    """What another program made of the photographs: it stands where a model stands, and encodes nothing.

    Attributes:
        paths: Names of the images as the file has them, or, after `under_paths`, their paths in the table.
        embeddings: float32 (n, size), not normalised.
        name, fingerprint, source: As those of a `Backbone`; the fingerprint is that of the file.
    """

    name: str
    paths: tuple[str, ...]
    embeddings: np.ndarray
    fingerprint: str
    source: str
    resolution: int = RESOLUTION
    reads_text: bool = False
    properties: None = None

    def covers(self, paths: Iterable[str]) -> bool:
        """Whether there is an embedding of each."""
        return set(paths) <= set(self.paths)

    def of(self, paths: Sequence[str]) -> np.ndarray:
        """Embeddings of some images, float32 (len(paths), size)."""
        place = {path: row for row, path in enumerate(self.paths)}
        return self.embeddings[[place[path] for path in paths]]


def read_embeddings(file: Path) -> GivenEmbeddings:
    """Embeddings by the name of their image, which is text and stays so.

    Raises:
        DataError: There is no such file, it is of another kind or holds Python objects, a name repeats, vectors differ
            in size, or hold NaN or infinity.
    """
    if not file.is_file():
        raise DataError(f"embeddings={str(file)!r} is no file; give the .npz or .parquet that holds them")
    try:
        names, vectors = (_read_parquet if file.suffix == ".parquet" else _read_npz)(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        said = OBJECTS if "allow_pickle" in str(error) else error  # numpy's own advice is to run them
        raise DataError(f"{file} holds no embeddings ({said}); {WANTED}") from error
    if not names:
        raise DataError(f"{file} holds no embeddings; {WANTED}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{file} has two embeddings of {name!r}; keep one an image")
        seen.add(name)
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        raise DataError(f"{file}: the embedding of {names[int(np.argmin(finite))]!r} holds NaN or infinity; mend it")
    fingerprint = sha256_of(file)[:16]
    return GivenEmbeddings(f"embeddings {file.stem}", tuple(names), vectors, fingerprint, f"file {file.name}")


def under_paths(model: Any, table: HandTable, split: Split) -> Any:
    """Given embeddings under the paths of a table; any other model as it is.

    A name is a path of the table, whatever folder stands before it and however a system writes it, or a file name that
    one image of the table has.
    Those of images that were left out are ignored.

    Raises:
        DataError: A name is that of no image, or of several; an image has two; or one that is evaluated has none.
    """
    if not isinstance(model, GivenEmbeddings):
        return model
    file = model.source.removeprefix("file ")
    paths = [*table.images["path"], *table.left_out["path"]]
    known, by_file_name = set(paths), dict[str, list[str]]()
    for path in paths:
        by_file_name.setdefault(_form(path).rsplit("/", 1)[-1], []).append(path)
    name_of: dict[str, str] = {}
    for name in model.paths:
        form = _form(name)
        same = by_file_name.get(form.rsplit("/", 1)[-1], [])
        found = [name] if name in known else [p for p in same if "/" not in form or f"/{form}".endswith(f"/{_form(p)}")]
        if len(found) != 1:
            meant = (
                f"several photographs, such as {found[0]} and {found[1]}" if found else f"no photograph of {table.root}"
            )
            raise DataError(
                f"{file}: {name!r} is the name of {meant}; name images by their path below the folder of the data"
            )
        if found[0] in name_of:
            raise DataError(
                f"{file}: {name_of[found[0]]!r} and {name!r} both are {found[0]}; keep one embedding an image"
            )
        name_of[found[0]] = name
    named = replace(model, paths=tuple(name_of))
    wanted = split.evaluated_paths()
    missing = [path for path in wanted if path not in name_of]
    if missing:
        raise DataError(
            f"{file} has no embedding of {missing[0]} ({len(missing)} of {len(wanted)} evaluated photographs); add them"
        )
    return named


def _form(name: str) -> str:
    """A path as any system writes it: a Mac parts é into two signs, and Windows has backslashes."""
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def write_embeddings(file: Path, paths: Sequence[str], identities: Sequence[str], embeddings: np.ndarray) -> None:
    """Write embeddings, float32 (n, size), with path and identity of each image; the file's suffix is its kind."""
    if file.suffix not in (".npz", ".parquet"):
        raise DataError(
            f"embeddings are written as .npz or .parquet, not {file.suffix or 'without a suffix'!r}: {file}"
        )
    if file.suffix == ".npz":
        with whole_file(file) as private:
            np.savez(private, paths=np.array(paths, str), identities=np.array(identities, str), embeddings=embeddings)
        return
    pa, parquet = _pyarrow()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    columns = {"path": pa.array(paths, pa.string()), "identity": pa.array(identities, pa.string())}
    with whole_file(file) as private:
        parquet.write_table(pa.table(columns | {"embedding": vectors}), private)


def _read_npz(file: Path) -> tuple[list[str], np.ndarray]:
    if not zipfile.is_zipfile(file):  # numpy would advise to run what is in it
        raise ValueError("it is no .npz")
    with np.load(file, allow_pickle=False) as arrays:
        if {"paths", "embeddings"} <= set(arrays.files):
            names, vectors = arrays["paths"], arrays["embeddings"]
            if names.dtype.kind != "U" or names.ndim != 1:
                raise ValueError(f"paths are {names.dtype} {names.shape} and not text: numbers lose their zeros")
            if vectors.ndim != 2 or len(vectors) != len(names):
                raise ValueError(f"embeddings have shape {vectors.shape} for {len(names)} paths")
            return names.tolist(), _real("embeddings", vectors)
        return _stacked(file, ((name, arrays[name]) for name in arrays.files))


def _read_parquet(file: Path) -> tuple[list[str], np.ndarray]:
    pa, parquet = _pyarrow()
    with parquet.ParquetFile(file) as opened:
        absent = {"path", "embedding"} - set(opened.schema_arrow.names)
        if absent:
            raise ValueError(f"it has no column {min(absent)}, but {', '.join(opened.schema_arrow.names[:9])}")
        table = opened.read(columns=["path", "embedding"])
    names, vectors = (table[name].combine_chunks() for name in ("path", "embedding"))
    if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        raise ValueError(f"path is {names.type} and not text: numbers lose their zeros")
    kind = vectors.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"embedding is {kind} and no list of numbers")
    if names.null_count or vectors.null_count:
        raise ValueError("a path or an embedding is missing (null)")
    found = names.to_pylist()
    sizes = vectors.value_lengths().to_numpy(zero_copy_only=False)
    _same_size(file, zip(found, sizes.tolist(), strict=True))
    flat = vectors.flatten()
    if flat.null_count:
        raise ValueError("a number of an embedding is missing (null)")
    return found, _real("embedding", flat.to_numpy(zero_copy_only=False)).reshape(len(found), -1)


def _stacked(file: Path, vectors: Iterable[tuple[str, np.ndarray]]) -> tuple[list[str], np.ndarray]:
    """Vectors by name as rows of one array, all of one size."""
    names, rows = [], []
    for name, vector in vectors:
        if vector.ndim != 1:
            raise ValueError(f"its array {name!r} has shape {vector.shape}")
        names.append(name)
        rows.append(_real(name, vector))
    _same_size(file, ((name, len(row)) for name, row in zip(names, rows, strict=True)))
    return names, np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _same_size(file: Path, sizes: Iterable[tuple[str, int]]) -> None:
    first: tuple[str, int] | None = None
    for name, size in sizes:
        first = first or (name, size)
        if size != first[1] or not size:
            found = f"{name!r} has {size} numbers, and {first[0]!r} {first[1]}"
            raise DataError(f"{file}: {found}; embeddings of one model have one size")


def _real(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {values.dtype} and no real numbers")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinity, which is refused by name
        return values.astype(np.float32, copy=False)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(PARQUET) from error
    return pyarrow, pyarrow.parquet
