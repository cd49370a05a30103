"""The words of the reports: one YAML file per language, the same keys in each."""

from functools import cache
from importlib import resources
from typing import Any

import yaml

from secateur.analysis.plurals import plural

LANGUAGES = ("en", "zh")


@cache
def read_texts(name: str) -> dict[str, Any]:
    """Read `texts/<name>.yaml`."""
    text = (resources.files("secateur.analysis") / "texts" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


class Texts:
    """All texts of one language; a missing key is an error of ours and raises KeyError."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self._data = read_texts(lang)

    def __call__(self, key: str, **values: Any) -> str:
        """The text under a dotted key, with `values` put in."""
        node: Any = self._data
        for part in key.split("."):
            node = node[part]
        return plural(str(node).format(**values)) if values else str(node)

    def get(self, key: str, default: str) -> str:
        """The text under a dotted key, or `default` (names that come from data: metrics, config keys)."""
        try:
            return self(key)
        except (KeyError, TypeError):
            return default
