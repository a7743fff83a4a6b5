import numpy as np
import pytest

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.studies.fusion import fusion_table, refined


@pytest.mark.parametrize("people", [8, 40])
def test_each_way_stands_beside_the_plain_figure(people, tmp_path):
    rows = [{"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(people) for n in range(4)]
    split = make_split(HandTable.build("folder", tmp_path, rows, {}), "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    centres = {identity: rng.normal(size=8) for identity in split.images["identity"]}
    noise = rng.normal(size=(len(split.images), 8))
    features = Features.normalised(split.images["path"], [centres[i] for i in split.images["identity"]] + noise)
    found = refined(features, split, bootstrap=50)
    plain = evaluate_split(features, split, bootstrap=50)
    np.testing.assert_array_equal(found[0].rank1.estimate, plain.rank1.estimate)
    table = fusion_table(found)
    assert table["name"].str.split(" ").str[0].tolist() == ["plain", "k-reciprocal", "αQE"]
    for trial in range(3):
        draw = split.draw(trial)
        query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
        k1 = min(20, len(query) + len(gallery) - 1)
        ranked = retrieval_metrics(rerank_similarity(query, gallery, k1, 6), draw.query_ids, draw.gallery_ids)
        assert ranked.map == found[1].draws[trial].map
        moved = alpha_query_expansion(query, gallery, 3) @ gallery.T
        assert retrieval_metrics(moved, draw.query_ids, draw.gallery_ids).map == found[2].draws[trial].map
