"""dattri's LoGra on given tokens: projected gradients, preconditioner, scores; timed."""

import json
import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

model_name, data, batch, threads, dimension, out = sys.argv[1:]
torch.set_num_threads(int(threads))
logging.basicConfig(level=logging.ERROR)

from dattri.algorithm.logra import LoGraAttributor
from dattri.task import AttributionTask
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

given = json.loads(Path(data).read_text())
model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32).eval()
model.config.use_cache = False
linear = [
    name
    for name, module in model.named_modules()
    if isinstance(module, torch.nn.Linear) and name != "lm_head"
]


def loss(model, batch, device="cpu"):
    ids = batch["input_ids"]
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum")


def loader(rows):
    items = [{"input_ids": torch.tensor(row), "labels": torch.tensor(row)} for row in rows]
    return DataLoader(items, batch_size=int(batch))


task = AttributionTask(
    loss_func=loss, target_func=loss, model=model, checkpoints=model.state_dict()
)
attributor = LoGraAttributor(
    task,
    layer_names=linear,
    hessian="eFIM",
    damping=0.1,
    device="cpu",
    proj_dim=int(dimension),
    offload="cpu",
    cache_dir=out + "/cache",
)
examples, queries = loader(given["examples"]), loader(given["queries"])
start = time.perf_counter()
attributor.cache(examples)
features = time.perf_counter() - start
start = time.perf_counter()
scores = attributor.attribute(examples, queries)
asked = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
np.save(out + "/scores.npy", scores.T.cpu().numpy())
print(json.dumps({"features": features, "scores": asked, "peak_bytes": peak}))
