"""Log lines for people: one per stage, on standard error."""

import logging
import os
import sys

OWN_HANDLERS = ("huggingface_hub", "datasets", "transformers")
"""Libraries that print their messages themselves: ours would print them a second time."""


def _not_printed_yet(record: logging.LogRecord) -> bool:
    """Asked of each record: `propagate` would not do, Transformers sets it anew when `CI` is set."""
    return record.name.partition(".")[0] not in OWN_HANDLERS


def configure_logging(verbose: bool) -> None:
    """Show our own messages; keep the libraries' to warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    handler.addFilter(_not_printed_yet)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    main = os.environ.get("RANK", "0") == "0"  # of several workers one speaks
    ours = logging.DEBUG if verbose else logging.INFO if main else logging.WARNING
    logging.getLogger("secateur").setLevel(ours)
    # the widths of a pruned model differ by layer, as its config says; reading the dense ones is meant
    logging.getLogger("transformers.integrations.heterogeneity.configuration_utils").setLevel(logging.ERROR)
    if "transformers" in sys.modules or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
