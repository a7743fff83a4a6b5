"""Embeddings laid out in a plane, for the eye."""

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features

FEWEST = 5


def embedding_map(features: Features, split: Split, most: int = 800, seed: int = 0) -> pd.DataFrame:
    """Test images of the split's own aspect in two dimensions by t-SNE of the cosine, started from the two main axes.

    Neighbours on the map are neighbours in the embedding; distances between groups, and the groups' sizes, mean
    nothing.

    Args:
        most: Images, at most: whole identities, those with the most images first.

    Returns:
        Columns path, identity, x, y; identities with the most images first.

    Source: van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR, 2008.
    """
    test = split.images[split.images["role"] == "test"]
    size = test.groupby("identity")["path"].transform("size")
    test = test.assign(size=size).sort_values(["size", "identity", "path"], ascending=[False, True, True])
    ends = test["size"].groupby(test["identity"], sort=False).first().cumsum()
    kept = ends[ends <= max(most, int(ends.iloc[0]))].index if len(ends) else ends.index
    shown = test[test["identity"].isin(kept)]
    if len(shown) < FEWEST:
        raise EvaluationError(f"{len(shown)} test images: a map needs at least {FEWEST}; take more data")
    # scaled to length 1, the squared Euclidean distance is 2 - 2 cosine: the same neighbours
    layout = TSNE(perplexity=min(30.0, (len(shown) - 1) / 3), init="pca", random_state=seed)
    points = layout.fit_transform(np.asarray(features.of(shown["path"]), np.float32))
    return pd.DataFrame(
        {"path": shown["path"].to_numpy(), "identity": shown["identity"].to_numpy(), "x": points[:, 0],
         "y": points[:, 1]}
    )  # fmt: skip
