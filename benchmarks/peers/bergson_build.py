"""bergson's index build on given tokens: its collecting pass alone is timed."""

import json
import sys
import time
from pathlib import Path

import torch

model, data, batch, threads, dtype, out = sys.argv[1:]
torch.set_num_threads(int(threads))

import bergson.build as stage
from bergson import DataConfig, IndexConfig, PreprocessConfig, load_gradients
from datasets import Dataset

rows = json.loads(Path(data).read_text())
Dataset.from_dict({"input_ids": rows}).save_to_disk(out + "/data")
seconds = []
collect = stage.collect_gradients


def timed(*given, **named):
    start = time.perf_counter()
    result = collect(*given, **named)
    seconds.append(time.perf_counter() - start)
    return result


stage.collect_gradients = timed
config = IndexConfig(
    run_path=out + "/index",
    model=model,
    overwrite=True,
    projection_dim=16,
    projection_target="per_module",
    token_batch_size=int(batch) * max(map(len, rows)),
    data=DataConfig(dataset=out + "/data", truncation=True),
    precision="bf16" if dtype == "bfloat16" else "fp32",
)
stage.build(config, PreprocessConfig())
features = load_gradients(out + "/index")
print(json.dumps({"seconds": seconds[0], "bytes": features.nbytes / len(rows)}))
