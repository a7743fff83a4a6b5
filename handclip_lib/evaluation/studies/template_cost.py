"""What a template costs: its bytes, and how many comparisons a second this machine makes of them."""

from collections.abc import Mapping
from time import perf_counter

import numpy as np
import pandas as pd

from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.tables import result_table
from handclip_lib.machine import cores

PROBES, REFERENCES = 128, 2048  # of one timed product: 262,144 comparisons, a few milliseconds
ROUNDS = 5


def template_cost(features: Mapping[str, Features]) -> pd.DataFrame:
    """A row a model: dimensions, template_bytes (as it is kept, float32), comparisons_per_second, cores.

    A comparison is a cosine of two templates; the median of five products of 128 probes with 2048 references, made
    of the images at hand by turns. How long an image takes to become a template is not in it.
    """
    rows = []
    for model, some in features.items():
        probes, references = (np.resize(some.embeddings, (n, some.embeddings.shape[1])) for n in (PROBES, REFERENCES))
        seconds = []
        for _ in range(ROUNDS):
            start = perf_counter()
            probes @ references.T
            seconds.append(perf_counter() - start)
        rate = PROBES * REFERENCES / float(np.median(seconds))
        size = some.embeddings.shape[1] * some.embeddings.itemsize
        rows.append((model, some.embeddings.shape[1], size, int(float(f"{rate:.2g}")), cores()))
    return result_table(rows, columns=["model", "dimensions", "template_bytes", "comparisons_per_second", "cores"])
