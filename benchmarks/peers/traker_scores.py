"""traker on given tokens with its CPU projector: features, their covariance, scores; timed."""

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

from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import BasicProjector, ProjectionType
from transformers import AutoModelForCausalLM

given = json.loads(Path(data).read_text())
examples, queries = torch.tensor(given["examples"]), torch.tensor(given["queries"])
model = AutoModelForCausalLM.from_pretrained(
    model_name, dtype=torch.float32, attn_implementation="eager"
).eval()
model.config.use_cache = False
linear = [
    name + ".weight"
    for name, module in model.named_modules()
    if isinstance(module, torch.nn.Linear) and name != "lm_head"
]


class NextToken(AbstractModelOutput):
    """The loss of one text; its weights are all 1, so that scores are those of the loss."""

    def __init__(self):
        super().__init__()

    @staticmethod
    def get_output(model, weights, buffers, ids):
        call = {"input_ids": ids[None]}
        logits = torch.func.functional_call(model, (weights, buffers), args=(), kwargs=call).logits
        return torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[1:], reduction="sum")

    def get_out_to_loss_grad(self, model, weights, buffers, batch):
        return torch.ones(len(batch[0]), 1)


parameters = dict(model.named_parameters())
size = sum(parameters[name].numel() for name in linear)


def projector():
    return BasicProjector(
        grad_dim=size,
        proj_dim=int(dimension),
        seed=0,
        proj_type=ProjectionType.rademacher,
        device="cpu",
        block_size=int(dimension),
        dtype=torch.float32,
    )


traker = TRAKer(
    model,
    NextToken(),
    len(examples),
    save_dir=out + "/trak",
    device="cpu",
    projector=projector(),
    proj_dim=int(dimension),
    use_half_precision=False,
    grad_wrt=linear,
    logging_level=logging.ERROR,
)
traker.load_checkpoint(model.state_dict(), 0)
start = time.perf_counter()
for part in examples.split(int(batch)):
    traker.featurize([part], num_samples=len(part))
traker.finalize_features()
features = time.perf_counter() - start
traker.projector = projector()  # it lets go of its matrix when the features are final
start = time.perf_counter()
traker.start_scoring_checkpoint("asked", model.state_dict(), 0, num_targets=len(queries))
for part in queries.split(int(batch)):
    traker.score([part], num_samples=len(part))
scores = traker.finalize_scores("asked")
asked = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
np.save(out + "/scores.npy", np.asarray(scores).T)
print(json.dumps({"features": features, "scores": asked, "peak_bytes": peak}))
