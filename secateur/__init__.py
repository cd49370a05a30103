"""Structured-pruning experiments on large language models."""

__version__ = "0.1.0"
