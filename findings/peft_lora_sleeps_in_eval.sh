#!/usr/bin/env bash
# peft on torch's TransformerEncoderLayer: the LoRA adapter is trained, and `eval()` computes without it.
#
# Expected: with dropout 0 an adapted model gives the same output in train and in eval mode, and after merging.
# Found: in eval mode torch's layer takes a fused path that reads the weights itself, past peft's wrapper, and so those
# of the frozen base. The loss falls in training, the evaluated embeddings are the base model's to 1e-6, and the merged
# checkpoint is the adapted one again. It is so with and without no_grad, for the MLP and for the attention.
# Versions: peft 0.21.2, transformers 5.24.0, torch 2.13.0, numpy 2.4.6. Date: 2026-11-27.
# Output:
#   adapted linear1 and linear2, largest difference to the base model:
#     train 2.161592, eval 0.000001, eval, no_grad 0.000001, merged, eval 2.161592
#   adapted self_attn, largest difference to the base model:
#     train 2.676555, eval 0.000001, eval, no_grad 0.000001, merged, eval 2.676555
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile peft==0.21.2 transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
base = nn.TransformerEncoder(layer, 2).eval()
patches = torch.randn(3, 7, 64)
with torch.no_grad():
    plain = base.train()(patches)
gap = {}
for target in (["linear1", "linear2"], ["self_attn"]):
    settings = LoraConfig(target_modules=target, r=4, init_lora_weights=False)
    model = get_peft_model(copy.deepcopy(base), settings)
    outputs = {"train": model.train()(patches).detach(), "eval": model.eval()(patches).detach()}
    with torch.no_grad():
        outputs["eval, no_grad"] = model(patches)
        outputs["merged, eval"] = model.merge_and_unload().eval()(patches)
    gap[target[0]] = {mode: (value - plain).abs().max().item() for mode, value in outputs.items()}
    print(f"adapted {' and '.join(target)}, largest difference to the base model:")
    print("  " + ", ".join(f"{mode} {value:.6f}" for mode, value in gap[target[0]].items()))
for modes in gap.values():
    assert modes["train"] > 0.1 and modes["merged, eval"] > 0.1, "the adapter does nothing at all"
    assert modes["eval"] < 1e-5 and modes["eval, no_grad"] < 1e-5, "the adapter now works in eval mode"
PY
