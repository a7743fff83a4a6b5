"""What an evaluation leaves for a later comparison: the rank of every query, and the embeddings."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from handclip_lib.data.manifest import Split
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.features import Features, is_baseline
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file, write_text

logger = logging.getLogger("handclip")
PER_QUERY, EMBEDDINGS = "per_query.csv", "embeddings.safetensors"
TEXT = ("model", "gallery", "path", "identity", "match_path", "wrong_path")
NUMBERS = {
    "draw": np.int64, "first_match_rank": np.int64, "average_precision": np.float64,
    "average_precision_trapezoid": np.float64, "hit": np.float64, "match_score": np.float32,
    "wrong_score": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation as `save_evaluation` left it.

    Attributes:
        checksum, task, knows_content: Of the split.
        data_root: Folder of the photographs, as the run was given it; "" for drawn hands.
        models: Their names, the model of interest first.
        per_query: Rows of `ProtocolResult.per_query`, with model, gallery and average_precision_trapezoid.
    """

    folder: Path
    checksum: str
    task: str
    knows_content: bool
    data_root: str
    burst: int
    models: tuple[str, ...]
    n_gallery: dict[str, int]
    per_query: pd.DataFrame

    @property
    def run(self) -> str:
        """Id of the run."""
        return self.folder.name

    def queries(self, model: str, gallery: str) -> pd.DataFrame:
        """What each query found, a row a draw and query."""
        if model not in self.models:
            raise EvaluationError(f"{self.run} evaluated no {model!r}; choose from {', '.join(self.models)}")
        if gallery not in self.n_gallery:
            some = f"choose from {', '.join(self.n_gallery)} (all needs photographs of other aspects)"
            raise EvaluationError(f"{self.run} has no gallery {gallery!r}; {some}")
        rows = self.per_query
        return rows[(rows["model"] == model) & (rows["gallery"] == gallery)].reset_index(drop=True)

    def features(self, model: str) -> Features:
        """Embeddings of the evaluated images, read when they are asked for."""
        facts, tensors = _embeddings(self.folder, [model])
        if model not in tensors:
            raise EvaluationError(f"{self.run} kept no embeddings of {model!r}; it has {', '.join(facts['embedded'])}")
        return Features(tuple(facts["paths"]), tensors[model])


def save_evaluation(
    folder: Path, results: Sequence[ProtocolResult], features: Mapping[str, Features], split: Split
) -> None:
    """Write `per_query.csv` and `embeddings.safetensors`, each whole or not at all.

    The embeddings of trivial baselines are left out: they would be most of the file, and are soon made again.
    """
    models = list(dict.fromkeys(result.model for result in results))
    missing = [model for model in models if model not in features]
    if missing:
        raise EvaluationError(f"no features of {', '.join(missing)} were given; give those that were evaluated")
    paths = split.evaluated_paths()
    text = _csv(results)
    embedded = [model for model in models if not is_baseline(model)]
    facts = {
        "checksum": split.checksum, "burst": results[0].burst, "models": models, "embedded": embedded, "paths": paths,
        "n_gallery": {result.gallery: result.draws[0].n_gallery for result in results},
        "per_query": hashlib.sha256(text.encode()).hexdigest(),
    }  # fmt: skip
    tensors = {model: np.ascontiguousarray(features[model].of(paths), np.float32) for model in embedded}
    write_text(folder / PER_QUERY, text)
    with whole_file(folder / EMBEDDINGS) as private:
        safetensors.numpy.save_file(tensors, private, {"handclip": json.dumps(facts), **UNSEALED})
        seal(private)


def load_evaluation(folder: Path) -> SavedEvaluation:
    """Read what `save_evaluation` wrote; files that are damaged, or not of one evaluation and split, are refused."""
    facts, _ = _embeddings(folder, [])
    try:
        data = (folder / PER_QUERY).read_bytes()
        if hashlib.sha256(data).hexdigest() != facts["per_query"]:
            raise ValueError(f"{PER_QUERY} is not the one that was written")
        text = pd.read_csv(StringIO(data.decode()), dtype=str, keep_default_na=False, lineterminator="\n")
        per_query = text[[*TEXT, *NUMBERS]].astype(NUMBERS)
        split = Split.read(folder)
        if split.checksum != facts["checksum"]:
            raise ValueError(f"it was made on split {facts['checksum'][:12]}, not {split.checksum[:12]}")
    except (OSError, KeyError, ValueError, TypeError, DataError) as error:
        raise EvaluationError(_broken(folder, str(error))) from error
    return SavedEvaluation(
        folder, split.checksum, split.task, split.knows_content, _data_root(folder), facts["burst"],
        tuple(facts["models"]), facts["n_gallery"], per_query,
    )  # fmt: skip


def _data_root(folder: Path) -> str:
    try:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["parameters"]["data_root"])
    except (OSError, KeyError, ValueError, TypeError):
        return ""


def _csv(results: Sequence[ProtocolResult]) -> str:
    """All rows; pandas writes the shortest text that reads back as the same number."""
    tables = []
    for result in results:
        trapezoid = [draw.average_precision_trapezoid[draw.first_match_rank > 0] for draw in result.draws]
        table = result.per_query.assign(average_precision_trapezoid=np.concatenate(trapezoid))
        table.insert(0, "model", result.model)
        table.insert(1, "gallery", result.gallery)
        tables.append(table)
    return pd.concat(tables).to_csv(index=False, lineterminator="\n")


def _embeddings(folder: Path, models: Sequence[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """The facts of the header, and the embeddings of some of the models."""
    file = folder / EMBEDDINGS
    if not file.is_file():
        raise EvaluationError(_broken(folder, f"there is no {EMBEDDINGS}"))
    try:
        if not is_sealed(file):
            logger.warning("%s was written without a checksum: whether it is damaged is not known", file)
        with safetensors.safe_open(file, "numpy") as opened:
            facts = json.loads((opened.metadata() or {})["handclip"])
            tensors = {model: opened.get_tensor(model) for model in models if model in facts["embedded"]}
            wanted = {"checksum", "burst", "models", "embedded", "paths", "n_gallery", "per_query"}
            if wanted - set(facts) or any(len(rows) != len(facts["paths"]) for rows in tensors.values()):
                raise ValueError("its header is not of an evaluation")
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise EvaluationError(_broken(folder, f"{EMBEDDINGS}: {error}")) from error
    return facts, tensors


def _broken(folder: Path, why: str) -> str:
    return f"run {folder.name} has no evaluation that can be compared ({why}); run it again with handclip run … --force"
