"""Which code makes results: a digest of the sources that decide them, and the versions of what they stand on."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from secateur.pruning.config import RESULT_VERSION
from secateur.pruning.files import digest, file_digest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pruning", "eval")
LIBRARIES = ("torch", "transformers", "lm-eval", "tokenizers")


def library_versions() -> dict[str, str | None]:
    """Versions of the libraries that results depend on, without importing them; null when not installed here."""
    return {name: _version(name) for name in LIBRARIES}


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Digest of every source file that decides a result, of the result version and of the libraries."""
    files = sorted(path for package in SOURCES for path in (ROOT / package).rglob("*.py"))
    parts = {str(path.relative_to(ROOT)): file_digest(path) for path in files}
    return digest([RESULT_VERSION, library_versions(), parts], 12)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
