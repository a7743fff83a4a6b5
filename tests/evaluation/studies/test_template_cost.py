"""What a template costs."""

import numpy as np

from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.template_cost import template_cost


def test_bytes_are_those_of_the_array_and_time_is_measured():
    rng = np.random.default_rng(0)
    features = {name: Features.normalised("abc", rng.normal(size=(3, size))) for name, size in (("a", 8), ("b", 512))}
    found = template_cost(features).set_index("model")
    assert found["template_bytes"].tolist() == [features[name].embeddings[0].nbytes for name in "ab"] == [32, 2048]
    assert found["dimensions"].tolist() == [8, 512]
    assert (found["comparisons_per_second"] > 0).all()
