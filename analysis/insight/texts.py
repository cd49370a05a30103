"""The words of the report: one YAML file per language, the same keys in each."""

import re
from functools import cache
from importlib import resources
from typing import Any

import yaml

from secateur.analysis.insight.claims import Claim
from secateur.analysis.insight.numbers import show
from secateur.analysis.plurals import plural

CITED = re.compile(r"\{(\w+)!\}")


@cache
def read_words(lang: str) -> dict[str, Any]:
    """Read `texts/<lang>.yaml`."""
    path = resources.files("secateur.analysis.insight") / "texts" / f"{lang}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


class Words:
    """All words of one language; a missing key is an error of ours and raises KeyError."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self._data = read_words(lang)

    def node(self, key: str) -> Any:
        """What stands under a dotted key."""
        node: Any = self._data
        for part in key.split("."):
            node = node[part]
        return node

    def __call__(self, key: str, **values: Any) -> str:
        """The text under a dotted key, with `values` put in."""
        text = str(self.node(key))
        return plural(text.format(**values)) if values else text

    def known(self, group: str, text: str) -> str:
        """A text of our own in this language; what comes from elsewhere (a library's message) as it is."""
        return str(self._data[group].get(text, text))

    def say(self, text: str, claims: dict[str, Claim], values: dict[str, str]) -> str:
        """A sentence whose `{name!}` become figures with their citations: `0.42 [F7]`; changes without their sign."""
        figures = {
            name: f"{show(claim).lstrip('-' * claim.signed)} [F{claim.id}]" for name, claim in claims.items()
        }
        told = CITED.sub(lambda m: "{" + m[1] + "__}", text).format(
            **values, **{f"{name}__": figure for name, figure in figures.items()}
        )
        return plural(told)
