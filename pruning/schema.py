"""What every typed config shares: it is frozen, refuses unknown keys, and knows which values change a result."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from secateur.pruning.errors import ConfigError, StorageError
from secateur.pruning.files import read_json

LOCAL: dict[str, Any] = {"identity": False}
C = TypeVar("C", bound=BaseModel)


class Frozen(BaseModel):
    """Base of all configs: immutable, and unknown keys are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def identity(config: BaseModel) -> dict[str, Any]:
    """The part of a config that changes the result: what differs from the defaults, labels and places left out.

    A new option with a default therefore does not rename older runs.
    """
    result: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if name == "name" or (isinstance(extra, dict) and extra.get("identity") is False):
            continue
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            inner = identity(value)
            if inner:
                result[name] = inner
        elif field.is_required() or value != field.get_default(call_default_factory=True):
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def validate(schema: type[C], raw: dict[str, Any]) -> C:
    """Turn a composed config into its typed form.

    Raises:
        ConfigError: Naming every offending key with its value and what is allowed.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError("\n".join(["the config is not valid:", *lines])) from error


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"  {key}: unknown key (given: {item['input']!r}); `--cfg` prints the keys that exist"
    if item["type"] == "missing":
        return f"  {key}: is required"
    message = item["msg"].removeprefix("Value error, ")
    return (
        f"  {key or 'config'}={item['input']!r}: {message}"
        if key and not isinstance(item["input"], dict)
        else f"  {message}"
    )


def read_typed(path: Path, schema: type[C], what: str) -> C:
    """Read a JSON file of a known form.

    Raises:
        StorageError: The file is missing, damaged, or no `what` (a few words with the schema's number).
    """
    raw = read_json(path)
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(f"{path} is not {what}: {where}: {first['msg']}") from error
