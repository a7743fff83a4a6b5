#!/usr/bin/env bash
# torch: a sweep over weights inside one `autocast` block measures the first point at every point.
#
# Expected: after load_state_dict the model computes with the weights it holds; autocast only changes the precision.
# Found: autocast keeps its 16-bit copy of each weight that requires a gradient until the block ends, with no_grad too,
# and does not see that the weight was written over. So between a frozen and a tuned model (WiSE-FT) every share gives
# the first one's embeddings, a LoRA merged in the block changes nothing, and a training whose steps are inside it has
# the same loss for ever. Enter the block anew for each point, give cache_enabled=False, or requires_grad_(False).
# Versions: torch 2.13.0 (2.15.0 does the same), numpy 2.4.6. Date: 2026-11-27.
# Output:
#   one block: first number of the embedding at a share of 0, 0.5, 1: [0.281, 0.281, 0.281]
#   cache_enabled=False: first number of the embedding at a share of 0, 0.5, 1: [0.281, -0.824, -2.75]
#   requires_grad_(False): first number of the embedding at a share of 0, 0.5, 1: [0.281, -0.824, -2.75]
#   30 steps in one block: first loss 1.3152, last 1.3152
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
frozen = copy.deepcopy(model.state_dict())
tuned = {name: value + 0.3 * torch.randn_like(value) for name, value in frozen.items()}
image, target = torch.randn(4, 16), torch.randn(4, 8)


def sweep(**settings):
    first = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, **settings):
        for share in (0, 0.5, 1):
            model.load_state_dict({name: torch.lerp(frozen[name], tuned[name], share) for name in frozen})
            first.append(round(model(image)[0, 0].item(), 3))
    return first


found = {"one block": sweep(), "cache_enabled=False": sweep(cache_enabled=False)}
model.requires_grad_(False)
found["requires_grad_(False)"] = sweep()
model.requires_grad_(True)
for name, values in found.items():
    print(f"{name}: first number of the embedding at a share of 0, 0.5, 1: {values}")
model.load_state_dict(frozen)
optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
with torch.autocast("cpu", torch.bfloat16):
    for _ in range(30):
        loss = nn.functional.mse_loss(model(image).float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(f"30 steps in one block: first loss {losses[0]:.4f}, last {losses[-1]:.4f}")
assert len(set(found["one block"])) == 1 == len(set(losses)), "the block sees that weights have changed"
assert found["requires_grad_(False)"] == found["cache_enabled=False"] and len(set(found["cache_enabled=False"])) == 3
PY
