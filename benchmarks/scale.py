"""Time and memory of the ranking as the data grow. `python -m benchmarks.scale [--most IMAGES] [--figure FILE]`.

Half of each person's images are of another aspect, so that there are two galleries, and both are ranked. Each size is
a process of its own, so that its peak of memory is its own. A sample of the queries is ranked the plain way as well.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.side_by_side import peak_begins, status
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.protocol import ProtocolResult, evaluate_models
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics

SIZES = (1_024, 4_096, 16_384, 65_536, 196_608, 555_680)  # the last is HaGRID's: 34,730 people
IMAGES, DRAWS, EMBEDDING = 16, 10, 128  # of a person, of query and gallery, numbers of an embedding
BLOCK = 2**24  # similarities of the bare product at once
BARE_DRAWS = 2**33  # similarities of a draw, from which the bare product of one draw counts for all
SAMPLE = 300  # queries of each gallery that are ranked the plain way


def case(n: int, aspects: int = 2, seed: int = 0, of_person: int = IMAGES) -> tuple[Features, Split]:
    """Embeddings of n images of people, so many each, and ten draws of one gallery image a person and aspect."""
    rng = np.random.default_rng(seed)
    people, each = n // of_person, of_person // aspects
    person, aspect = np.repeat(np.arange(people), of_person), np.arange(people * of_person) // each % aspects
    drawn = np.arange(people * aspects) * each + rng.integers(0, each, (DRAWS, people * aspects))
    gallery_in: list[list[str]] = [[] for _ in person]
    for draw, rows in enumerate(drawn.tolist()):
        for row in rows:
            gallery_in[row].append(str(draw))
    images = pd.DataFrame({
        "path": [f"{who:06d}/{row:07d}.jpg" for row, who in enumerate(person)],
        "aspect": np.array(["dorsal_r", "palmar_r"])[aspect], "role": np.array(["test", "other"])[aspect],
        "identity": [f"{who:06d}" for who in person], "capture": np.arange(len(person)),
        "gallery_in": [" ".join(draws) for draws in gallery_in],
    })  # fmt: skip
    meta = {"dataset": "random", "protocol": "test_only", "aspect": "dorsal_r", "seed": seed, "draws": DRAWS}
    split = Split.build(meta | {"cutoff": None, "unqueryable": [], "counts": {}, "notes": []}, images)
    centres = rng.normal(size=(people, EMBEDDING)).astype(np.float32)
    noise = rng.normal(size=(len(person), EMBEDDING)).astype(np.float32)
    return Features.normalised(images["path"], centres[person] + np.float32(1.7) * noise), split


def galleries(split: Split) -> tuple[str, ...]:
    return ("aspect", "all") if "other" in set(split.images["role"]) else ("aspect",)


def bare_product(features: Features, split: Split, draws: int = DRAWS, names: Sequence[str] = ()) -> None:
    """All cosines of the draws, in float32, and the largest of each query: the least that a ranking could do."""
    for name in names or galleries(split):
        for trial in range(draws):
            draw = split.draw(trial, name)
            gallery, query = features.of(draw.gallery_paths), features.of(draw.query_paths)
            size = max(1, BLOCK // len(gallery))
            for start in range(0, len(query), size):
                (query[start : start + size] @ gallery.T).max(axis=1)


def check_sample(results: list[ProtocolResult], features: Features, split: Split) -> None:
    """Rank, and score of the best match and of the best other, of some queries of every draw: by the plain way."""
    rng = np.random.default_rng(1)
    for result in results:
        for trial in range(DRAWS):
            draw, found = split.draw(trial, result.gallery), result.per_query
            table, gallery = found[found["draw"] == trial].set_index("path"), features.of(draw.gallery_paths)
            chosen = np.sort(rng.permutation(len(draw.query_paths))[: SAMPLE // DRAWS])
            query, rows = features.of(draw.query_paths[chosen]), table.loc[draw.query_paths[chosen]]
            scores, own = cosines(query, gallery), draw.query_ids[chosen, None] == draw.gallery_ids
            plain = retrieval_metrics(scores.copy(), draw.query_ids[chosen], draw.gallery_ids, tie=TIE)
            assert (rows["first_match_rank"] == plain.first_match_rank).all(), (result.gallery, trial)
            for column, kept in (("match_score", own), ("wrong_score", ~own)):
                assert (rows[column] == np.where(kept, scores, -np.inf).max(1)).all(), (result.gallery, trial, column)


def measured(n: int, aspects: int) -> dict[str, float]:
    """CPU and wall seconds of the product and of the evaluation of n images, and MiB that it grows by."""
    features, split = case(n, aspects)
    firsts = [split.draw(0, name) for name in galleries(split)]
    most = max(len(draw.query_paths) * len(draw.gallery_paths) for draw in firsts)
    draws = DRAWS if most < BARE_DRAWS else 1
    found: dict[str, float] = {"images": n}
    bare_product(*case(1_024))  # wakes the threads
    results: list[ProtocolResult] = []
    ways = {
        "bare": lambda: bare_product(features, split, draws),
        "evaluation": lambda: results.extend(evaluate_models({"model": features}, split)),
    }
    for name, way in ways.items():
        before, times = peak_begins(), DRAWS // draws if name == "bare" else 1
        cpu, wall = time.process_time(), time.perf_counter()
        way()
        found |= {
            f"{name}_cpu_s": times * (time.process_time() - cpu),
            f"{name}_s": times * (time.perf_counter() - wall),
        }
        found[f"{name}_mib"] = status("VmHWM") - before
    check_sample(results, features, split)
    return found | {"rank1": float(results[0].rank1.estimate)}


def draw(table: pd.DataFrame, file: Path) -> None:
    """Time and memory over the number of images, both axes in powers."""
    import matplotlib.pyplot as plt

    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, mark in (("evaluation", "o-"), ("bare", "s--")):
        label = "ranking" if name == "evaluation" else "bare product and its maximum"
        time_axis.loglog(table["images"], table[f"{name}_cpu_s"], mark, label=label)
        memory_axis.loglog(table["images"], table[f"{name}_mib"].clip(lower=1), mark, label=label)
    time_axis.set(xlabel="images", ylabel="CPU seconds, ten draws")
    memory_axis.set(xlabel="images", ylabel="MiB beside the embeddings")
    time_axis.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Print a row a size, the slopes, and draw the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=16_384, help="images; 555680 takes the better part of an hour")
    parser.add_argument("--aspects", type=int, choices=(1, 2), default=2, help="1: all 16 of one aspect, one gallery")
    parser.add_argument("--figure", type=Path, help="PNG or SVG")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.aspects)))
        return
    rows = []
    print(
        f"{'images':>8} {'product, CPU s':>15} {'evaluation':>11} {'ratio':>7} {'product, MiB':>13} {'evaluation':>11}"
    )
    for n in [size for size in SIZES if size <= options.most]:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(n), "--aspects", str(options.aspects)]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        rows.append(row)
        ratio = row["evaluation_cpu_s"] / row["bare_cpu_s"]
        print(
            f"{n:>8,} {row['bare_cpu_s']:>15.2f} {row['evaluation_cpu_s']:>11.2f} {ratio:>6.1f}×"
            f" {row['bare_mib']:>13.0f} {row['evaluation_mib']:>11.0f}", flush=True,
        )  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("bare", "evaluation") if len(table) > 1 else ():
        last = table.tail(2)
        slope = np.polyfit(np.log(last["images"]), np.log(last[f"{name}_cpu_s"]), 1)[0]
        print(f"CPU seconds of the {name} grow with the images to the power of {slope:.2f} between the last two sizes")
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
