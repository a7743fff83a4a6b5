"""What recognising people within one session is worth beside recognising them in another."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Draw, Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.retrieval import rank_features
from handclip_lib.evaluation.tables import result_table

SESSIONS = {"other": "another session", "same": "the same session"}
SHOWN = ("model", "queries", "rank1", "n_query", "n_identities")


def session_effect(features: Mapping[str, Features], split: Split) -> pd.DataFrame:
    """Rank-1 of queries of another session than their own gallery image is of, and of that same session.

    The galleries are those of the draws, whatever the protocol; each query is an image of a known session. Light,
    clothes and pose stay through a session, so the second figure says little about recognising people.

    Returns:
        Columns model, queries, rank1 in 0..1 with its interval over identities, `n_query` (queries a draw, a mean) and
        `n_identities`. No row where no session is known, and none for queries there are not.
    """
    rows = []
    known = (split.images.loc[split.images["role"] == "test", "session"] != "").all()
    for model, embeddings in features.items():
        for sessions, queries in SESSIONS.items() if known else ():
            draws = [split.draw(trial, sessions=sessions) for trial in range(split.meta["draws"])]
            asked = [draw for draw in draws if len(draw.query_paths)]
            if not asked:
                continue
            hits = [_hits(embeddings, draw) for draw in asked]
            people = np.concatenate([draw.query_ids for draw in asked])
            interval = identity_interval(np.concatenate(hits), people)
            row = {"model": model, "queries": queries, **interval.columns("rank1"), "n_query": len(people) / len(draws)}
            rows.append(row | {"n_identities": interval.n_identities})
    return result_table(rows, SHOWN, columns=[*SHOWN, "rank1_low", "rank1_high"])


def _hits(features: Features, draw: Draw) -> np.ndarray:
    """1 for each query found first, else 0: float64 (n_query,)."""
    query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
    return (rank_features(query, gallery, draw.query_ids, draw.gallery_ids).first_match_rank == 1).astype(np.float64)
