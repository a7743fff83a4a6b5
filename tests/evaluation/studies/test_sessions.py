"""Recognising people within a session and in another one, against a loop over the queries."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.data.audit import data_cautions
from handclip_lib.data.folder import read_folder
from handclip_lib.data.images import decode_images
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.drawn.dataset import draw_image, sitting_of
from handclip_lib.evaluation.features import Features, pixel_embeddings
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.studies.fusion import enrol_several, enrolled_paths
from handclip_lib.evaluation.studies.sessions import session_effect


def open_table(sessions: list[dict[str, int]]) -> HandTable:
    rows = [
        {"path": f"{who}/{session}/{n}.jpg", "identity": f"p{who}", "session": session}
        for who, own in enumerate(sessions)
        for session, count in own.items()
        for n in range(count)
    ]
    return HandTable.build("folder", Path("/photographs"), rows, {})


def features_of(split) -> Features:
    """A person's vector, moved by the session's and by noise."""
    rng = np.random.default_rng(0)
    centre = {name: rng.normal(size=6) for name in sorted({*split.images["identity"], *split.images["session"]})}
    rows = zip(split.images["identity"], split.images["session"], strict=True)
    return Features.normalised(
        split.images["path"], [centre[who] + centre[session] + rng.normal(size=6) for who, session in rows]
    )


@pytest.mark.parametrize("protocol", ["cross_session", "test_only"])
def test_both_figures_are_those_of_a_loop_over_queries(protocol):
    table = open_table([{"s1": 1 + n % 3, "s2": 1 + n % 4} for n in range(12)] + [{"s1": 2}])
    split = make_split(table, protocol=protocol, draws=3)
    features = features_of(split)
    vector = dict(zip(features.paths, features.embeddings, strict=True))
    session = dict(zip(table.images["path"], table.images["session"], strict=True))
    hits: dict[str, list[bool]] = {"another session": [], "the same session": []}
    tested = split.images[split.images["role"] == "test"]
    for trial in range(3):
        draw = split.draw(trial)
        gallery = dict(zip(draw.gallery_ids, draw.gallery_paths, strict=True))
        for path, who in zip(tested["path"], tested["identity"], strict=True):
            if path == gallery[who]:
                continue
            score = {other: float(vector[path] @ vector[enrolled]) for other, enrolled in gallery.items()}
            first = all(score[other] < score[who] for other in gallery if other != who)
            kind = "the same session" if session[path] == session[gallery[who]] else "another session"
            hits[kind].append(first)
    found = session_effect({"m": features}, split).set_index("queries")
    for kind, own in hits.items():
        assert found.loc[kind, "rank1"] == pytest.approx(np.mean(own))
        assert found.loc[kind, "n_query"] == pytest.approx(len(own) / 3), "a draw, as in every other table"
    if protocol == "cross_session":
        plain = evaluate_split(features, split).summary()
        assert plain["rank1"] == pytest.approx(found.loc["another session", "rank1"])
        assert plain["n_query"] == pytest.approx(found.loc["another session", "n_query"])
        assert plain["n_unqueryable"] == len(split.meta["unqueryable"])


def test_a_figure_that_mixes_sessions_says_so():
    table = open_table([{"s1": 2, "s2": 2} for _ in range(8)])
    mixed, parted = (make_split(table, protocol=protocol) for protocol in ("proportional", "cross_session"))
    assert data_cautions(parted) == []
    assert data_cautions(mixed) == [
        "Queries and their gallery images may be of one session: protocol cross_session parts them."
    ]


def test_without_sessions_there_is_no_row():
    split = make_split(open_table([{"": 3} for _ in range(6)]))
    assert session_effect({"m": features_of(split)}, split).empty


def test_several_are_enrolled_from_one_session_and_sought_in_the_others():
    split = make_split(open_table([{"s1": 3, "s2": 3} for _ in range(8)]), protocol="cross_session", draws=2)
    rows = split.images[split.images["role"] == "test"]
    session = dict(zip(rows["path"], rows["session"], strict=True))
    for trial in (0, 1):
        enrolled = enrolled_paths(rows, trial, 0, 3, across=True)
        assert {len(paths) for paths in enrolled.values()} == {3}
        for who, path in zip(split.draw(trial).gallery_ids, split.draw(trial).gallery_paths, strict=True):
            assert enrolled[who][0] == path
            assert len({session[p] for p in enrolled[who]}) == 1
    results = enrol_several(features_of(split), split, (1, 3))
    assert set(results["n_query"]) == {12.0}, "those of the other session, always"


def test_people_in_folders_of_sessions_are_recognised_as_in_one_folder_each(tmp_path):
    """As 138 photographs of a phone: its numbers go on, and begin again for everybody."""
    sizes = (18, 16, 14, 13, 12, 11, 11, 10, 10, 9, 7, 7)
    for who, size in enumerate(sizes):
        for n in range(size):
            image = Image.fromarray(draw_image(who, "palmar_r", n)[::3, ::3])
            for place in (f"flat/p{who}", f"nested/p{who}/session{1 + (n >= size // 2)}"):
                (tmp_path / place).mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / place / f"IMG_{n + 1:04d}.png")
    assert sum(sizes) == 138
    rank1 = []
    for name in ("flat", "nested"):
        table = read_folder(tmp_path / name)
        assert table.images["identity"].nunique() == 12
        split = make_split(table, protocol="test_only")
        images = decode_images(table.root, table.images["path"], 32, progress=False)
        rank1.append(evaluate_split(pixel_embeddings(images), split).summary()["rank1"])
    assert rank1[0] == rank1[1]


def test_drawn_hands_of_two_sittings_are_easier_within_one(tmp_path):
    """The light of a sitting stays, so pixels alone find a hand again there and hardly in another."""
    rows, pixels = [], []
    for who in range(16):
        sittings: dict[int, list[int]] = {}
        for n in range(12):
            sittings.setdefault(sitting_of(who, "dorsal_r", n, 0.5)[0], []).append(n)
        two = [numbers for numbers in sittings.values() if len(numbers) > 1][:2]
        for s, numbers in enumerate(two if len(two) == 2 else []):
            for n in numbers[:3]:
                rows.append({"path": f"{who}/{s}/{n}.png", "identity": f"p{who}", "session": f"session{s}"})
                pixels.append(draw_image(who, "dorsal_r", n)[::6, ::6].reshape(-1) / 255.0)
    table = HandTable.build("folder", tmp_path, rows, {})
    split = make_split(table, protocol="cross_session", draws=4)
    vectors = np.array(pixels) - np.mean(pixels, axis=1, keepdims=True)
    found = session_effect({"pixels": Features.normalised(table.images["path"], vectors)}, split)
    other, same = found.set_index("queries").loc[["another session", "the same session"], "rank1"]
    assert same > other + 0.2
