"""What walks over segments leave for those below them: in a file without a name, so that its size is no matter.

The file lies in the temporary folder (`TMPDIR`) and is gone with the process, however that ends; memory holds one
batch.

Shapes: B batch, T tokens, D hidden.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

import torch

from secateur.pruning.errors import StorageError


@dataclass(frozen=True)
class _Place:
    offset: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


class Borders:
    """Hidden states [B, T, D] that enter segments, slopes [B, T, D] at their outputs, and arguments of the layers.

    Attributes:
        kept: Layers whose inputs are wanted.
        keywords: Shape of a batch -> keyword arguments of every layer, the same for all batches of a shape.
    """

    def __init__(self, kept: Iterable[int] = ()) -> None:
        self.kept = frozenset(kept)
        self.keywords: dict[torch.Size, dict[int, dict[str, Any]]] = {}
        self._places: dict[tuple[int | str, int], _Place] = {}
        self._end = 0
        self._opened: IO[bytes] | None = None

    def put_input(self, layer: int, batch: int, hidden: torch.Tensor) -> None:
        """Keep what enters a layer."""
        self._put((layer, batch), hidden)

    def input(self, layer: int, batch: int) -> torch.Tensor:
        """What entered a layer."""
        return self._get((layer, batch))

    def put_slope(self, batch: int, slope: torch.Tensor) -> None:
        """Keep the slope of a batch's loss (times its scale) at the border that was reached; the one above it goes."""
        self._put(("slope", batch), slope)

    def slope(self, batch: int) -> torch.Tensor:
        """The slope at the output of the segment that is walked."""
        return self._get(("slope", batch))

    def close(self) -> None:
        """Give the space back."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _file(self) -> Any:
        if self._opened is None:
            self._opened = tempfile.TemporaryFile(prefix="secateur-")  # noqa: SIM115 - its owner closes it
        return self._opened

    def _put(self, key: tuple[int | str, int], tensor: torch.Tensor) -> None:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(self._end, tensor.shape, tensor.dtype)
            self._end += place.size
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()

        def write() -> None:
            self._file.seek(place.offset)
            self._file.write(content.data)
            self._file.flush()

        _in_the_temporary_folder(write)

    def _get(self, key: tuple[int | str, int]) -> torch.Tensor:
        place = self._places[key]
        content = bytearray(place.size)

        def read() -> None:
            self._file.seek(place.offset)
            if self._file.readinto(content) != place.size:
                raise OSError("it is shorter than what was written")

        _in_the_temporary_folder(read)
        return torch.frombuffer(content, dtype=place.dtype).view(place.shape)


def _in_the_temporary_folder(work: Callable[[], None]) -> None:
    """Do it, or say what to do about a folder that does not take it."""
    try:
        work()
    except OSError as error:
        raise StorageError(
            f"cannot keep hidden states in the temporary folder {tempfile.gettempdir()}: {error}. Set TMPDIR to a "
            "folder with more room, or capture.segments=1, which keeps none and needs more memory"
        ) from error
