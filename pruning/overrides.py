"""Config values written as Hydra reads them on a command line."""

import re
from typing import Any

from pruning.errors import ConfigError

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@%+~-]*(?<!:)")
RESERVED = {"null", "true", "false", "nan", "inf"}


def write(key: str, value: Any) -> str:
    """`key=value` such that Hydra reads exactly this value."""
    return f"{key}={encode(value)}"


def encode(value: Any) -> str:
    """A value in Hydra's override grammar.

    Raises:
        ConfigError: The value cannot be written on a command line.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{encode(inner)}" for key, inner in value.items()) + "}"
    raise ConfigError(f"{value!r} cannot be a config value; use numbers, texts, lists and mappings")


def _text(value: str) -> str:
    if "${" in value or "\n" in value:
        raise ConfigError(f"{value!r}: interpolations and line breaks cannot be passed to runs")
    if PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    quoted = re.sub(r"(\\*)'", lambda match: match.group(1) * 2 + "\\'", value)
    tail = len(quoted) - len(quoted.rstrip("\\"))
    return "'" + quoted + "\\" * tail + "'"
