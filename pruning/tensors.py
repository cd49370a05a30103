"""Safetensors files: their errors on writing are those of any other file."""

from collections.abc import Generator
from contextlib import contextmanager

from safetensors import SafetensorError


@contextmanager
def disk_errors() -> Generator[None]:
    """Raise what safetensors says about a full or broken disk as the `OSError` that it is."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
