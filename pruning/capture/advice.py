"""What to do when memory runs out in a calibration pass: everything named here keeps the scores as they are."""

from collections.abc import Generator
from contextlib import contextmanager

from secateur.pruning.capture.views import Level
from secateur.pruning.config import CaptureConfig
from secateur.pruning.errors import MemoryLimitError
from secateur.pruning.memory import out_of_memory


@contextmanager
def memory_advice(config: CaptureConfig, level: Level, segments: int, layers: int) -> Generator[None]:
    """Turn an allocator's error into one message that names the options left.

    Raises:
        MemoryLimitError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        accumulates = level.weight_gradients or level == Level.CURVATURE
        options = [
            f"capture.segments={min(2 * segments, layers)}" if accumulates and segments < layers else "",
            ""
            if config.gradient_checkpointing or level < Level.GATE
            else "capture.gradient_checkpointing=true",
            "capture.offload=true" if accumulates and not config.offload else "",
        ]
        left = ", ".join(option for option in options if option)
        advice = (
            f"The scores stay the same with {left}, each on its own or together"
            if left
            else "All that keeps the scores is in use already"
        )
        raise MemoryLimitError(
            f"memory ran out in the calibration pass: {first.rstrip('.')}. {advice}. "
            "taylor.batch_size and taylor.seq_len lower it too, and are other experiments"
        ) from error
