"""Command-line words: flags, and `KEY=VALUE` in Hydra's grammar."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import OverrideType, QuotedString, Transformer

from secateur.pruning import overrides
from secateur.pruning.errors import ConfigError


@dataclass(frozen=True)
class Arguments:
    """What was typed.

    Attributes:
        values: Key -> the values given for it (several for `key=a,b` or `key=range(1,4)`).
        flags: Words that begin with `--`, without the dashes.
        words: The other words.
    """

    values: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()

    def one(self, key: str, default: Any = None) -> Any:
        """The single value of a key.

        Raises:
            ConfigError: Several were given.
        """
        given = self.values.get(key, (default,))
        if len(given) != 1:
            raise ConfigError(f"{key}={','.join(map(str, given))}: one value is expected")
        return given[0]


def parse(argv: list[str], flags: set[str], words: int = 0) -> Arguments:
    """Split the command line.

    Args:
        argv: The words after the sub-command.
        flags: The flags that exist, without dashes.
        words: How many words without `=` are allowed.

    Raises:
        ConfigError: A word is malformed or a flag does not exist.
    """
    given = [word for word in argv if word.startswith("-")]
    unknown = [word for word in given if word.removeprefix("--") not in flags and word != "-h"]
    if unknown:
        raise ConfigError(
            f"unknown option {', '.join(unknown)}; options: {', '.join(sorted('--' + f for f in flags))}"
        )
    pairs = [word for word in argv if "=" in word and not word.startswith("-")]
    rest = [word for word in argv if "=" not in word and not word.startswith("-")]
    if len(rest) > words:
        raise ConfigError(f"{rest[words]!r} is not understood; arguments have the form KEY=VALUE")
    found = frozenset("help" if word == "-h" else word.removeprefix("--") for word in given)
    return Arguments(dict(map(_pair, pairs)), found, tuple(rest))


def _pair(word: str) -> tuple[str, tuple[Any, ...]]:
    (override,) = overrides.parse([word])
    if override.type is not OverrideType.CHANGE:
        raise ConfigError(f"{word}: `+` and `~` are not possible here; set keys that exist (KEY=VALUE)")
    if override.is_sweep_override():
        return override.key_or_group, tuple(
            map(_bare, override.sweep_iterator(transformer=Transformer.identity))
        )
    return override.key_or_group, (_bare(override.value()),)


def _bare(value: Any) -> Any:
    """Texts without their quotes, however deep."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if isinstance(value, dict):
        return {str(_bare(key)): _bare(item) for key, item in value.items()}
    return value
