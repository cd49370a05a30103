"""Config values written as Hydra reads them on a command line, and paths on it taken as they stand."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from secateur.pruning.errors import ConfigError

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@%+-]*(?<!:)")
RESERVED = {"null", "true", "false", "nan", "inf"}
PATHS = ("out", "path", "text", "data_dir", "data_files", "tasks_path")
"""Last parts of the keys whose values are paths."""


def parse(words: Sequence[str]) -> list[Override]:
    """Command-line words in Hydra's grammar; a value that names a path is taken as it stands, odd characters and all.

    Raises:
        ConfigError: A word cannot be read; the message says how its value is quoted.
    """
    return [_parsed(protect(word)) for word in words]


def protect(word: str) -> str:
    """`key=value` with the value quoted when it names a path that Hydra would read as something else."""
    key, sign, value = word.partition("=")
    if not sign or PLAIN.fullmatch(value):
        return word
    last = key.split(".")[-1]
    if exists(value):
        return write(key, value) if last in PATHS or "/" in value else word
    found = _lexed(word) if last in PATHS else None
    missing = last in PATHS and found is None  # to be made, or refused where it is looked for
    swept = (
        found is not None and key == "out" and found.is_sweep_override()
    )  # there is one `out`, commas and all
    return write(key, value) if missing or swept else word


def exists(value: str) -> bool:
    """Whether a text names a file or folder."""
    try:
        return bool(value) and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _parsed(word: str) -> Override:
    found = _lexed(word)
    if found is None:
        key, sign, value = word.partition("=")
        advice = f"quote its value for the shell and for Hydra: {shlex.quote(write(key, value))}"
        raise ConfigError(f"{word} cannot be read; {advice if sign else 'give KEY=VALUE'}")
    return found


def _lexed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except HydraException:
        return None


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
