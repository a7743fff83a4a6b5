#!/usr/bin/env bash
# transformers: CLIP texts that were cut by hand before their end token all have one and the same embedding.
#
# Expected: without an end token the largest id is pooled, as in OpenAI's code, or the last place; such texts differ.
# Found: the place of the end token is searched by equality; where there is none, the search answers 0, the start token,
# which by the causal mask has seen nothing. All such prompts have a cosine of 1 to each other, and a zero-shot score
# of theirs compares the photograph with nothing.
# Versions: transformers 5.24.0, torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   four texts, cut, end put back: smallest cosine between two of them 0.1997
#   four texts, cut at 77        : smallest cosine between two of them 1.0000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
from torch.nn.functional import normalize
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

torch.manual_seed(0)
START, END = 49406, 49407
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
config = CLIPTextConfig(vocab_size=49408, bos_token_id=START, eos_token_id=END, projection_dim=32, **sizes)
model = CLIPTextModelWithProjection(config).eval()
words = torch.randint(320, 49000, (4, 100))
seen = {}
for name, texts in {
    "cut, end put back": torch.cat([torch.full((4, 1), START), words[:, :75], torch.full((4, 1), END)], 1),
    "cut at 77": torch.cat([torch.full((4, 1), START), words[:, :76]], 1),
}.items():
    with torch.no_grad():
        text = normalize(model(input_ids=texts).text_embeds)
    seen[name] = (text @ text.T).min().item()
    print(f"four texts, {name:17}: smallest cosine between two of them {seen[name]:.4f}")
assert seen["cut at 77"] > 0.9999 and seen["cut, end put back"] < 0.9, "texts without an end are told apart"
PY
