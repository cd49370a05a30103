"""Who writes: an endpoint or a local model."""

from secateur.analysis.insight.config import WriterConfig
from secateur.analysis.insight.endpoint import from_endpoint
from secateur.analysis.insight.local import from_folder
from secateur.analysis.insight.prompt import Prompt
from secateur.analysis.insight.streams import Written


def write(config: WriterConfig, prompt: Prompt) -> Written:
    """Have the text written.

    Raises:
        WriterError: The endpoint is not there, refuses, stalls, dies half-way, or gives no text.
    """
    return from_endpoint(config, prompt) if config.kind == "openai" else from_folder(config, prompt)
