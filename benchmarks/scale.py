"""Time and memory of `evaluate_split` as the data grow. `python -m benchmarks.scale [--most IMAGES] [--figure FILE]`.

Each size is a process of its own, so that its peak of memory is its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.side_by_side import peak_begins, status
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import evaluate_split

SIZES = (1_000, 4_000, 16_000, 64_000, 192_000, 550_000)
IMAGES, DRAWS, EMBEDDING = 16, 10, 128  # of a person, of query and gallery, numbers of an embedding
BLOCK = 2**24  # similarities of the bare product at once


def case(n: int, seed: int = 0) -> tuple[Features, Split]:
    """Embeddings of n images of people, 16 each, and ten draws of one gallery image a person."""
    rng = np.random.default_rng(seed)
    people = n // IMAGES
    person = np.repeat(np.arange(people), IMAGES)
    drawn = np.arange(people) * IMAGES + rng.integers(0, IMAGES, (DRAWS, people))
    gallery_in: list[list[str]] = [[] for _ in person]
    for draw, rows in enumerate(drawn.tolist()):
        for row in rows:
            gallery_in[row].append(str(draw))
    images = pd.DataFrame({
        "path": [f"{who:06d}/{row:07d}.jpg" for row, who in enumerate(person)], "aspect": "dorsal_r", "role": "test",
        "identity": [f"{who:06d}" for who in person], "capture": np.arange(len(person)),
        "gallery_in": [" ".join(draws) for draws in gallery_in],
    })  # fmt: skip
    meta = {"dataset": "random", "protocol": "test_only", "aspect": "dorsal_r", "seed": seed, "draws": DRAWS}
    split = Split.build(meta | {"cutoff": None, "unqueryable": [], "counts": {}, "notes": []}, images)
    centres = rng.normal(size=(people, EMBEDDING)).astype(np.float32)
    noise = rng.normal(size=(len(person), EMBEDDING)).astype(np.float32)
    return Features.normalised(images["path"], centres[person] + np.float32(1.7) * noise), split


def bare_product(features: Features, split: Split) -> None:
    """All cosines of all draws, in float32, and the largest of each query: the least that a ranking could do."""
    for draw in split.draws("aspect"):
        gallery, query = features.of(draw.gallery_paths), features.of(draw.query_paths)
        size = max(1, BLOCK // len(gallery))
        for start in range(0, len(query), size):
            (query[start : start + size] @ gallery.T).max(axis=1)


def measured(n: int) -> dict[str, float]:
    """CPU and wall seconds of the product and of the evaluation of n images, and MiB that it grows by."""
    features, split = case(n)
    found: dict[str, float] = {"images": n}
    bare_product(*case(1_000))  # wakes the threads
    for name, way in (("bare", bare_product), ("evaluation", evaluate_split)):
        before = peak_begins()
        cpu, wall = time.process_time(), time.perf_counter()
        way(features, split)
        found |= {f"{name}_cpu_s": time.process_time() - cpu, f"{name}_s": time.perf_counter() - wall}
        found[f"{name}_mib"] = status("VmHWM") - before
    return found


def draw(table: pd.DataFrame, file: Path) -> None:
    """Time and memory over the number of images, both axes in powers."""
    import matplotlib.pyplot as plt

    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, mark in (("evaluation", "o-"), ("bare", "s--")):
        label = "evaluate_split" if name == "evaluation" else "bare product and its maximum"
        time_axis.loglog(table["images"], table[f"{name}_cpu_s"], mark, label=label)
        memory_axis.loglog(table["images"], table[f"{name}_mib"].clip(lower=1), mark, label=label)
    time_axis.set(xlabel="images", ylabel="CPU seconds, ten draws")
    memory_axis.set(xlabel="images", ylabel="MiB beside the embeddings")
    time_axis.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Print a row a size, the slopes, and draw the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=16_000, help="images; 550000 takes the better part of an hour")
    parser.add_argument("--figure", type=Path, help="PNG or SVG")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one)))
        return
    rows = []
    print(
        f"{'images':>8} {'product, CPU s':>15} {'evaluation':>11} {'ratio':>7} {'product, MiB':>13} {'evaluation':>11}"
    )
    for n in [size for size in SIZES if size <= options.most]:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(n)]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        rows.append(row)
        ratio = row["evaluation_cpu_s"] / row["bare_cpu_s"]
        print(
            f"{n:>8,} {row['bare_cpu_s']:>15.2f} {row['evaluation_cpu_s']:>11.2f} {ratio:>6.1f}×"
            f" {row['bare_mib']:>13.0f} {row['evaluation_mib']:>11.0f}", flush=True,
        )  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("bare", "evaluation") if len(table) > 1 else ():
        slope = np.polyfit(np.log(table["images"]), np.log(table[f"{name}_cpu_s"]), 1)[0]
        print(f"CPU seconds of the {name} grow with the number of images to the power of {slope:.2f}")
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
