"""A command line of `key=value` words: taken apart, and run with errors as one message."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from secateur.pruning.errors import ConfigError, SecateurError


@dataclass
class Words:
    """A command line taken apart: `key=value` (every value kept), flags, and the rest."""

    values: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    flags: set[str] = field(default_factory=set[str])
    rest: list[str] = field(default_factory=list[str])

    def one(self, key: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        """The single value of a key.

        Raises:
            ConfigError: The key was given twice, or the value is not allowed.
        """
        given = self.values.get(key, [default])
        if len(given) > 1:
            raise ConfigError(f"{key} was given {len(given)} times: {', '.join(given)}. Give it once.")
        if allowed and given[0] not in allowed:
            raise ConfigError(f"{key}={given[0]}: is not one of {', '.join(allowed)}.")
        return given[0]


def parse(argv: list[str], keys: tuple[str, ...], flags: tuple[str, ...] = (), rest: int = 0) -> Words:
    """Take a command line apart.

    Raises:
        ConfigError: An unknown key or flag, an empty value, or the wrong number of other words.
    """
    words = Words()
    for word in argv:
        key, sign, value = word.partition("=")
        if word.startswith("--") and not sign:
            if word not in flags:
                raise ConfigError(
                    f"{word}: unknown flag. Known: {', '.join(flags) or 'none'}; --help shows examples."
                )
            words.flags.add(word)
        elif sign and key in keys:
            if not value:
                raise ConfigError(f"{key}= needs a value.")
            words.values.setdefault(key, []).append(value)
        elif sign and "/" not in key:
            raise ConfigError(f"{word}: unknown key {key}. Known: {', '.join(keys)}; --help shows examples.")
        else:
            words.rest.append(word)
    if len(words.rest) != rest:
        wanted = f"{rest} run(s)" if rest else "only key=value words"
        raise ConfigError(f"expected {wanted}, got {words.rest or 'none'}; --help shows examples.")
    return words


def run(argv: list[str], usage: str, work: Callable[[list[str]], None]) -> int:
    """Call a command; a wrong command line ends with 2, anything else that is the user's to mend with 1."""
    if not argv or any(word in ("-h", "--help", "help") for word in argv):
        print(usage, end="")
        return 0 if argv else 2
    try:
        work(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
