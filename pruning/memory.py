"""Peak memory of one pass: resident memory of this process, and what the accelerator's allocator held. Bytes."""

import gc
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Memory before a pass and its peak; None where it cannot be known."""

    host_before: int | None
    host_peak: int | None
    device_before: int | None
    device_peak: int | None

    def where(self) -> tuple[int | None, int | None]:
        """Before and peak where the model is: the device's if there is one, else the host's."""
        if self.device_before is not None:
            return self.device_before, self.device_peak
        return self.host_before, self.host_peak

    def growth(self) -> int:
        """Bytes above those before the pass; 0 where it cannot be known."""
        before, peak = self.where()
        return 0 if before is None or peak is None else peak - before


class Meter:
    """Starts at its creation; `peak()` reads."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._resets = reset_host_peak()
        self._host = resident()
        self._before: int | None = None
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = int(torch.cuda.memory_allocated(self._device))

    def peak(self) -> Peak:
        """What was reached since the start."""
        device = None if self._device is None else int(torch.cuda.max_memory_allocated(self._device))
        return Peak(self._host, host_peak() if self._resets else None, self._before, device)


def resident() -> int:
    """Resident memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)


def reset_host_peak() -> bool:
    """Set this process's peak back to its resident memory (Linux); whether that worked."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def host_peak() -> int | None:
    """Largest resident memory since the last reset, bytes."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text


def available(device: torch.device) -> int | None:
    """Bytes that can still be taken on a GPU, those included that PyTorch holds unused; None for other devices."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def give_back() -> None:
    """Free what nobody refers to any more, on the host and on a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
