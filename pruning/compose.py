"""From command-line overrides to a plain config, through Hydra. No torch here."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from secateur import conf
from secateur.pruning.errors import ConfigError
from secateur.pruning.overrides import parse

CONF_DIR = Path(conf.__file__).resolve().parent


_NOISE = ("full_key", "object_type", "Config search path:", "provider=", "hydra.cc/docs")
"""Marks of the lines in Hydra's messages that are for its developers."""


def register(schema: type[BaseModel]) -> None:
    """Make every key of `schema`, with its default, the base that the files of `conf/` differ from."""
    ConfigStore.instance().store(name="schema", node=_defaults(schema))


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """Compose `conf/<name>.yaml` over the registered schema with `overrides` into plain dicts and lists.

    Raises:
        ConfigError: An override is malformed, names an unknown key or group option, or a value is missing.
    """
    GlobalHydra.instance().clear()
    words = [str(override.input_line) for override in parse(overrides)]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            return plain(hydra_compose(name, overrides=words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_message(error)) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a Hydra config and leave Hydra's own node out.

    Raises:
        ConfigError: A mandatory value (`???`) was not given.
    """
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config) if not str(key).startswith("hydra."))
    if missing:
        raise ConfigError("missing: " + ", ".join(f"{key}=..." for key in missing) + " must be given")
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key != "hydra"}


def amend(stored: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Change some values of a stored config: `group=NAME` lays a file of that group over it, `a.b=v` sets a value.

    Raises:
        ConfigError: An override is malformed, or names a group option that does not exist.
    """
    config = OmegaConf.create(stored)
    for word in overrides:
        key, _, name = word.partition("=")
        if (CONF_DIR / key).is_dir() and "." not in key:
            if name not in options(key):
                raise ConfigError(f"{word}: options are {', '.join(options(key))}")
            change = OmegaConf.create({key: OmegaConf.load(CONF_DIR / key / f"{name}.yaml")})
        else:
            (override,) = parse([word])
            change = OmegaConf.create({})
            OmegaConf.update(change, override.key_or_group, override.value())
        config = OmegaConf.merge(config, change)
    return plain(config)  # type: ignore[arg-type]


def options(group: str) -> list[str]:
    """Names that can be chosen for a config group, e.g. `options("model")`."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def describe(group: str, name: str) -> str:
    """The first comment of a config file: one sentence on what the option is."""
    for line in (CONF_DIR / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line[2:]
    return ""


def _defaults(schema: type[BaseModel]) -> dict[str, Any]:
    """Nested defaults of a schema; `???` where a value must be given."""
    result: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            result[name] = _defaults(kind)
        elif field.is_required():
            result[name] = "???"
        else:
            value = field.get_default(call_default_factory=True)
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def _message(error: Exception) -> str:
    """One readable message of Hydra's: the chain of causes, without its hints for developers."""
    lines = [
        line for line in str(error).splitlines() if line.strip() and not any(note in line for note in _NOISE)
    ]
    text = "\n".join(lines).replace(":\n\t", ": ").replace("\n\t", ", ")  # the options of a group on one line
    if "To append to your config use" in text:
        text = text.split("To append")[0].strip().rstrip(".")
        key = text.split("'")[1] if "'" in text else ""
        nearest = get_close_matches(key, _keys(ConfigStore.instance().load("schema.yaml").node), 3, 0.6)
        text += f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        text += "\n`--cfg` prints the keys that exist"
    return f"cannot compose the config: {text}"


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of everything below a node."""
    found: list[str] = []
    for name in node:
        missing = OmegaConf.is_missing(node, str(name))
        value = None if missing else node[name]
        path = f"{prefix}{name}"
        found += [path, *(_keys(value, f"{path}.") if isinstance(value, DictConfig) else [])]
    return found
