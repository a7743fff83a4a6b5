#!/usr/bin/env bash
# open_clip: `lock_image_tower(unlocked_groups=1)` trains the projection alone, no block of the transformer.
#
# Expected: the last block (with the norm behind it) stays trainable: "the last n layers", as papers write it.
# Found: groups are counted from the end, and the last is the projection by itself: 2 groups are one block, 3 are two.
# The text tower counts alike. "Only the last block was trained" with 1 is a linear probe.
# Versions: open_clip 3.3.0, torch 2.15.0, torchvision 0.29.2. Date: 2026-11-27.
# Output:
#   unlocked_groups=0: 0 block(s), and nothing
#   unlocked_groups=1: 0 block(s), and proj
#   unlocked_groups=2: 1 block(s), and proj, ln_post.weight, ln_post.bias
#   unlocked_groups=3: 2 block(s), and proj, ln_post.weight, ln_post.bias
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile open_clip_torch==3.3.0 torch==2.15.0 torchvision==0.29.2
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import open_clip

vision = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 32}
text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 3}
blocks = {}
for groups in (0, 1, 2, 3):
    model = open_clip.CLIP(32, vision, text)
    model.lock_image_tower(unlocked_groups=groups)
    names = [name for name, value in model.visual.named_parameters() if value.requires_grad]
    blocks[groups] = len({name.split(".")[2] for name in names if "resblocks" in name})
    others = [name for name in names if "resblocks" not in name]
    print(f"unlocked_groups={groups}: {blocks[groups]} block(s), and {', '.join(others) or 'nothing'}")
assert list(blocks.values()) == [0, 0, 1, 2], "groups are counted otherwise"
PY
