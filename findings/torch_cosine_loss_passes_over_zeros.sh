#!/usr/bin/env bash
# torch: CosineEmbeddingLoss with targets 0 and 1 learns from the mated pairs alone, and the model collapses.
#
# Expected: `(person_a == person_b)` as a target is refused where -1 is wanted, or 0 means "not the same".
# Found: a target that is neither 1 nor -1 adds a loss of 0 and no gradient, so nothing pushes strangers apart: the loss
# falls to 0, better than it can with -1, while all people become one point. The mean is over all pairs, which hides it
# further. Give `2 * same - 1`.
# Versions: torch 2.13.0 (2.15.0 does the same), numpy 2.4.6. Date: 2026-11-27.
# Output:
#   targets 0 and 1: last loss 0.00, mean cosine of strangers 1.00
#   targets -1 and 1: last loss 0.04, mean cosine of strangers -0.04
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
person = torch.arange(20).repeat_interleave(10)
faces = (torch.randn(20, 32) + 1)[person] + 0.5 * torch.randn(200, 32)
collapsed = {}
for name, target_of in {"0 and 1": lambda same: same.long(), "-1 and 1": lambda same: 2 * same.long() - 1}.items():
    torch.manual_seed(1)
    model = nn.Linear(32, 16)
    optimizer, loss_of = torch.optim.Adam(model.parameters(), 0.03), nn.CosineEmbeddingLoss(margin=0.2)
    for _ in range(100):
        a, b = torch.randint(200, (2, 256))
        b[:128] = a[:128] // 10 * 10 + torch.randint(10, (128,))
        loss = loss_of(model(faces[a]), model(faces[b]), target_of(person[a] == person[b]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    units = nn.functional.normalize(model(faces), dim=1)
    strangers = (units @ units.T)[person[:, None] != person]
    collapsed[name] = strangers.mean().item()
    print(f"targets {name}: last loss {loss.item():.2f}, mean cosine of strangers {collapsed[name]:.2f}")
assert collapsed["0 and 1"] > 0.9 > 0.3 > collapsed["-1 and 1"], "targets of 0 count now"
PY
