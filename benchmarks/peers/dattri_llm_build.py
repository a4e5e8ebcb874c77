"""dattri-llm's capture to disk on given tokens, in its fastest (invasive) mode."""

import json
import os
import re
import sys
import time
from pathlib import Path

import torch

model_name, data, batch, threads, dtype, out = sys.argv[1:]
torch.set_num_threads(int(threads))

from dattri_llm import GradientStorageManager, HookManager, HookManagerConfig, OffloadCallback
from transformers import AutoModelForCausalLM

rows = json.loads(Path(data).read_text())
model = AutoModelForCausalLM.from_pretrained(model_name, dtype=getattr(torch, dtype)).eval()
model.config.use_cache = False
linear = [
    name
    for name, module in model.named_modules()
    if isinstance(module, torch.nn.Linear) and name != "lm_head"
]
for name, parameter in model.named_parameters():
    parameter.requires_grad_(name.removesuffix(".weight") in linear)
projection = {"style": "logra", "proj_dim": 16, "proj_max_batch_size": 8, "proj_type": "normal"}
config = HookManagerConfig(
    capture_style="materialized",
    invasive_linear_io=["^" + re.escape(name) + "$" for name in linear],
    projection_kwargs={"__default__": projection},
)


def nll(logits, ids):
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    labels = ids[:, 1:].reshape(-1)
    return torch.nn.functional.cross_entropy(flat, labels, reduction="sum", ignore_index=-100)


manager = GradientStorageManager(out + "/store")
callback = OffloadCallback(offload_interval=1, file_manager=manager, recording_type="per_batch")
hooks = HookManager(model, config=config, callbacks=[callback])
start = time.perf_counter()
with hooks.collect():
    for first in range(0, len(rows), int(batch)):
        part = rows[first : first + int(batch)]
        longest = max(map(len, part))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in part])
        model.zero_grad(set_to_none=True)
        nll(model(input_ids=ids).logits, ids).backward()
hooks.remove()
seconds = time.perf_counter() - start
stored = sum(
    os.path.getsize(os.path.join(folder, file))
    for folder, _, files in os.walk(out + "/store")
    for file in files
)
print(json.dumps({"seconds": seconds, "bytes": stored / len(rows)}))
