"""What a run of 05 left, for other programs: the model's embeddings, and its scores of queries with the gallery."""

from pathlib import Path

from handclip_lib.data.manifest import Split
from handclip_lib.errors import DataError
from handclip_lib.evaluation.exchange.score_files import write_scores
from handclip_lib.evaluation.ranking.saved_evaluation import load_evaluation
from handclip_lib.models.embeddings import write_embeddings


def export(folder: Path, embeddings: Path | None, scores: Path | None, form: str, draw: int | None) -> list[str]:
    """Write the files asked for, of the first model of a run, and say a line on each.

    Embeddings have length 1, and paths as the run's split has them; scores are those of `write_scores`.
    """
    saved = load_evaluation(folder)
    model, split, said = saved.models[0], Split.read(folder), []
    features = saved.features(model)
    if embeddings:
        rows = split.images.set_index("path")["identity"]
        write_embeddings(embeddings, features.paths, rows.loc[list(features.paths)].tolist(), features.embeddings)
        n, size = features.embeddings.shape
        said.append(f"{n} embeddings of {size} numbers by {model}: {embeddings}")
    if scores:
        if embeddings and scores.resolve() == embeddings.resolve():
            raise DataError(f"--scores and --embeddings both name {scores}; give each a file")
        n = write_scores(scores, features, split, form, draw)
        which = f"draw {draw}" if draw is not None else f"{split.meta['draws']} draws"
        said.append(f"{n:,} scores of {which} by {model}: {scores}")
    return said
