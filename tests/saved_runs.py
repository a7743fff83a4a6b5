"""Small evaluations on disk, for the tests of what reads them."""

from functools import cache
from pathlib import Path

import numpy as np

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import ProtocolResult, evaluate_models
from handclip_lib.evaluation.ranking.saved_evaluation import SavedEvaluation, load_evaluation, save_evaluation

SIZES = (3, 4, 5, 9, 4, 6, 6, 3, 5, 8, 4, 7)


def small_split(seed: int = 0, aspects: tuple[str, ...] = ("dorsal_r", "palmar_r")) -> Split:
    rows = [
        {"path": f"{aspect}_{identity}_{n}.jpg", "identity": f"{identity:03d}", "aspect": aspect}
        for aspect in aspects
        for identity, size in enumerate(SIZES)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), aspects[0], "proportional", seed, 3)


def features_of(split: Split, noise: float, seed: int = 0) -> Features:
    """Embeddings that are nearer to each other within an identity the less noise there is."""
    rng = np.random.default_rng(seed)
    people = split.images["identity"].astype(int).to_numpy()
    centres = np.random.default_rng(7).normal(size=(len(SIZES), 6))[people]
    return Features.normalised(split.images["path"], centres + noise * rng.normal(size=centres.shape))


_SPLITS: dict[str, Split] = {}


@cache  # the same few are asked for by many tests
def _evaluated(checksum: str, noise: float, seed: int, name: str) -> tuple[dict[str, Features], list[ProtocolResult]]:
    split = _SPLITS[checksum]
    features = {name: features_of(split, noise, seed), "trivial baseline: pixels": features_of(split, 3.0, 99)}
    return features, evaluate_models(features, split)


def evaluated(
    folder: Path, noise: float = 1.0, seed: int = 0, split: Split | None = None, name: str = "tiny"
) -> tuple[SavedEvaluation, list[ProtocolResult], dict[str, Features]]:
    """Evaluate a model and a floor, keep it in a folder, and read it back."""
    split = split or small_split()
    _SPLITS.setdefault(split.checksum, split)
    features, results = _evaluated(split.checksum, noise, seed, name)
    folder.mkdir(parents=True, exist_ok=True)
    split.write(folder)
    save_evaluation(folder, results, features, split)
    return load_evaluation(folder), list(results), dict(features)
