"""Which rows are about the same model, and a name for each model that no other one has."""
# pandas' own annotations are unions of what its calls never return here:
# pyright: reportArgumentType=false

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from secateur.pruning.files import digest
from secateur.pruning.naming import folder_name


def slug(name: str) -> str:
    """A model's name as a file name and anchor."""
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_").lower() or "model"


@dataclass(frozen=True)
class Origin:
    """What a row says of its model.

    Attributes:
        name: As configured; the folder's name where nothing else was given.
        path: Folder or hub id; empty in tables of other tools.
        fingerprint: Digest of config and weights; empty in records that were written before there was one.
    """

    name: str
    path: str = ""
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """What tells models apart in a frame: the fingerprint, else name and path."""
        return self.fingerprint or (f"{self.name} @ {self.path}" if self.path else self.name)

    def names(self) -> list[str]:
        """What it may be called, shortest first; a longer name is taken where a shorter one has two owners."""
        parts = [part for part in PurePath(self.path).parts if part not in ("/", ".", "..", "~")]
        ours = self.name in ("local", *parts[-1:])
        first = folder_name(self.path) if ours and parts else self.name
        longer = ["/".join(parts[-count:]) for count in range(2, len(parts) + 1)]
        if not ours:  # a name that the user chose stays in front
            longer = [f"{first} ({'/'.join(parts[-1:])})", *(f"{first} ({name})" for name in longer)]
        return [
            first,
            *longer,
            f"{first} ({self.fingerprint[:8] or digest(self.key, 8)})",
            f"{first} ({digest(self.key)})",
        ]


def merge(origins: Iterable[dict[str, Origin]]) -> dict[str, Origin]:
    """Origins of several sources by key; one that knows the path stands before one that does not."""
    found: dict[str, Origin] = {}
    for part in origins:
        for key, origin in part.items():
            if key not in found or (origin.path and not found[key].path):
                found[key] = origin
    return found


def named(frame: pd.DataFrame, origins: dict[str, Origin]) -> pd.DataFrame:
    """The frame with one `model_key` and one name in `model` per model; rows of no known model stay as they are."""
    keys = frame["model_key"]
    present = {str(key): origins.get(str(key), Origin(str(key))) for key in keys.dropna().unique()}
    if not present:
        return frame
    owners = {key: _owner(origin, present) for key, origin in present.items()}
    kept = {key: present.get(key, Origin(key)) for key in dict.fromkeys(owners.values())}
    names = unique_names(kept)
    resolved = keys.map(owners)
    return frame.assign(model_key=resolved.where(keys.notna(), None),
                        model=resolved.map(names).where(keys.notna(), frame["model"]))  # fmt: skip


def unique_names(origins: dict[str, Origin]) -> dict[str, str]:
    """Key -> the shortest name that no other model has, as a title and as a file name alike."""
    depth = dict.fromkeys(origins, 0)
    choices = {key: origin.names() for key, origin in origins.items()}
    while True:
        names = {key: choices[key][depth[key]] for key in origins}
        owners = Counter(map(slug, names.values()))
        shared = [key for key, name in names.items() if owners[slug(name)] > 1]
        deeper = [key for key in shared if depth[key] + 1 < len(choices[key])]
        if not deeper:
            return names
        for key in deeper:
            depth[key] += 1


def _owner(origin: Origin, present: dict[str, Origin]) -> str:
    """Key of the model that a row is about. One without a fingerprint is found by path, then by name alone."""
    if origin.fingerprint:
        return origin.key
    known = [other for other in present.values() if other.fingerprint and other.name == origin.name]
    here = [other for other in known if origin.path and other.path == origin.path]
    for found in (here, known):
        if len(found) == 1:
            return found[0].key
    return origin.name
