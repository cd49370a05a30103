"""Keep lm-eval's and datasets' chatter out of our logs while their code runs."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

import datasets

LOGGERS = ("lm_eval", "transformers.tokenization_utils_base")


@contextmanager
def quiet() -> Generator[None]:
    """Silence warnings of lm-eval and tokenizers and the bars of `datasets`; errors still show."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    bars = datasets.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
