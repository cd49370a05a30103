"""What a model folder holds, before anything is loaded: an adapter, pickled or quantised weights. No torch."""

import json
from pathlib import Path
from typing import Any

from secateur.pruning.errors import ModelError

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
FOREIGN = (".gguf", ".h5", ".msgpack", ".onnx")
QUANTISED = ("quantization_config", "compression_config")


def check_folder(folder: Path, name: str) -> str:
    """The model type of a folder; `name` is how the user named it.

    Raises:
        ModelError: No whole model with safetensors weights lies here.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} is a PEFT adapter{_base(folder)}, not a whole model. Merge it first: "
            "PeftModel.from_pretrained(base, DIR).merge_and_unload().save_pretrained(NEW) writes a folder to give here"
        )
    config = _config(folder / "config.json")
    if "model_type" not in config:
        raise ModelError(f"{folder / 'config.json'} is damaged or names no model_type: copy it again")
    refuse_quantised(config, name)
    if not any(folder.glob("*.safetensors")):
        _refuse_weights(folder, name)
    return str(config["model_type"])


def refuse_quantised(config: dict[str, Any], name: str) -> None:
    """Refuse a config whose weights are packed integers or fp8.

    Raises:
        ModelError: It has a quantisation.
    """
    for key in QUANTISED:
        found = config.get(key)
        if found is not None:
            kind = found.get("quant_method", found.get("format")) if isinstance(found, dict) else None
            raise ModelError(
                f"{name}: its weights are quantised ({kind or key} in config.json); channels and heads are cut out of "
                "float weights only. Give the float16 or bfloat16 checkpoint, and quantise the pruned model afterwards"
            )


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist: give the folder of a Transformers model") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}): copy it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is damaged (it holds no JSON object): copy it again")
    return found


def _refuse_weights(folder: Path, name: str) -> None:
    """Say what to do with weights of another format; without any, Transformers says what is missing."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    pickled = [file for file in files if file.endswith(PICKLED) and file != "training_args.bin"]
    if pickled:
        raise ModelError(
            f"{name} has no safetensors, only pickled weights ({pickled[0]}), which may hold code and are not loaded. "
            "If you trust them, convert them once: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW), "
            "and copy the tokenizer's files"
        )
    foreign = [file for file in files if file.endswith(FOREIGN)]
    if foreign:
        raise ModelError(
            f"{name} has no safetensors, only {foreign[0]}: give the checkpoint that it was made from"
        )


def _base(folder: Path) -> str:
    path = folder / "adapter_config.json"
    try:
        return f" of {json.loads(path.read_text(encoding='utf-8'))['base_model_name_or_path']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
