"""Who in a gallery is most alike to each query, of embeddings in files: exact, whatever the gallery's size."""

import csv
from pathlib import Path

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.cosines import cosines
from handclip_lib.evaluation.ranking.reranking import nearest
from handclip_lib.evaluation.ranking.retrieval import PRODUCT_BYTES, embeddings_of
from handclip_lib.files import whole_file
from handclip_lib.models.embeddings import read_embeddings

COLUMNS = ("query", "rank", "gallery", "cosine")
AT_ONCE = 64  # queries, or more of a small gallery: each time the whole of it becomes float64


def search(query: Path, gallery: Path, file: Path, k: int) -> int:
    """Write the k gallery images most alike to each query as a CSV, the best first; how many rows.

    An image of one name in both files is not found in itself. Of equal cosines the first in the gallery's file comes
    first. A block of queries is multiplied with the whole gallery at a time.
    """
    probes, held = (
        Features.normalised(given.paths, given.embeddings) for given in map(read_embeddings, (query, gallery))
    )
    if not 1 <= k <= len(held.paths):
        raise EvaluationError(f"k={k}; choose from 1 to the {len(held.paths)} images of {gallery}")
    embeddings_of("query", probes.embeddings, held.embeddings)
    if {query.resolve(), gallery.resolve()} & {file.resolve()}:
        raise EvaluationError(f"{file} is one of the files that are read; write to another")
    place, written = {name: column for column, name in enumerate(held.paths)}, 0
    size = max(AT_ONCE, PRODUCT_BYTES // (4 * len(held.paths)))
    with whole_file(file) as private, private.open("w", encoding="utf-8", newline="") as opened:
        out = csv.writer(opened, lineterminator="\n")
        out.writerow(COLUMNS)
        for start in range(0, len(probes.paths), size):
            names = probes.paths[start : start + size]
            scores = cosines(probes.embeddings[start : start + size], held.embeddings)
            for row, name in enumerate(names):
                if name in place:
                    scores[row, place[name]] = -np.inf
            columns = nearest(scores, k)
            for name, found, cosine in zip(names, columns, np.take_along_axis(scores, columns, 1), strict=True):
                kept = [(column, score) for column, score in zip(found, cosine.tolist(), strict=True) if score >= -2]
                rows = [(name, n, held.paths[column], repr(score)) for n, (column, score) in enumerate(kept, 1)]
                out.writerows(rows)
                written += len(rows)
    return written
