"""Where the shipped models and data lie. Light: imports neither torch nor the generator."""

from pathlib import Path

MODELS: tuple[str, ...] = ("tiny_llama", "tiny_qwen2", "tiny_mistral")
"""Names of the shipped models."""

_HERE = Path(__file__).resolve().parent


def model_dir(name: str) -> Path:
    """Return the folder of a shipped model, as ``from_pretrained`` takes it.

    Args:
        name: One of `MODELS`.

    Raises:
        ValueError: If no model of that name is shipped.
    """
    if name not in MODELS:
        raise ValueError(f"no shipped model {name!r}; choose one of {', '.join(MODELS)}")
    return _HERE / "models" / name


def data_dir() -> Path:
    """Return the folder with ``tasks/<task>/<split>.jsonl`` and ``text/world/test.jsonl``."""
    return _HERE / "data"
