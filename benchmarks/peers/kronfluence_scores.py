"""kronfluence's EK-FAC on given tokens: factors, then scores of queries against examples, timed."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

model_name, data, batch, threads, fisher, out = sys.argv[1:]
torch.set_num_threads(int(threads))

from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from transformers import AutoModelForCausalLM

given = json.loads(Path(data).read_text())
examples, queries = torch.tensor(given["examples"]), torch.tensor(given["queries"])
model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32).eval()
model.config.use_cache = False
linear = [
    name
    for name, module in model.named_modules()
    if isinstance(module, torch.nn.Linear) and name != "lm_head"
]


class NextToken(Task):
    def compute_train_loss(self, batch, model, sample=False):
        logits = model(input_ids=batch).logits[:, :-1].flatten(0, 1).float()
        wanted = batch[:, 1:].flatten()
        if sample:
            with torch.no_grad():
                wanted = torch.multinomial(torch.softmax(logits, dim=-1), 1)[:, 0]
        return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self):
        return linear


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


task = NextToken()
analyzer = Analyzer(
    "run", prepare_model(model, task), task, cpu=True, output_dir=out, disable_tqdm=True
)
factors = FactorArguments(strategy="ekfac", use_empirical_fisher=fisher == "empirical")
size = int(batch)
start = time.perf_counter()
analyzer.fit_all_factors("factors", Rows(examples), per_device_batch_size=size, factor_args=factors)
fitted = time.perf_counter()
analyzer.compute_pairwise_scores(
    "scores",
    "factors",
    query_dataset=Rows(queries),
    train_dataset=Rows(examples),
    per_device_query_batch_size=len(queries),
    per_device_train_batch_size=size,
    score_args=ScoreArguments(damping_factor=None),
)
done = time.perf_counter()
scores = analyzer.load_pairwise_scores("scores")["all_modules"].numpy()
np.save(Path(out) / "scores.npy", scores)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"fit": fitted - start, "scores": done - fitted, "peak_bytes": peak}))
