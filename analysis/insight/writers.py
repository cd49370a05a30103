"""Who writes: an endpoint or a local model."""

from analysis.insight.config import WriterConfig
from analysis.insight.endpoint import from_endpoint
from analysis.insight.local import from_folder
from analysis.insight.prompt import Prompt
from analysis.insight.streams import Written


def write(config: WriterConfig, prompt: Prompt) -> Written:
    """Have the text written.

    Raises:
        WriterError: The endpoint is not there, refuses, stalls, dies half-way, or gives no text.
    """
    return from_endpoint(config, prompt) if config.kind == "openai" else from_folder(config, prompt)
