"""What belongs to the whole process comes back as it was: random numbers, threads, defaults, environment, Hydra."""

import logging
import os
import random
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from transformers.utils import logging as transformers_logging


@contextmanager
def undisturbed() -> Generator[None]:
    """Run a call of the API in defaults of its own, and leave the process as it was found, whatever happens.

    Inside, gradients can be taken (even below `torch.no_grad`) and the default dtype is float32.
    """
    with ExitStack() as stack:
        stack.callback(_restore, _state())
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        torch.set_default_dtype(torch.float32)
        yield


def _state() -> dict[str, Any]:
    root = logging.getLogger()
    store: dict[str, Any] = ConfigStore.instance().repo
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002  (the one that others may have seeded)
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "environment": dict(os.environ),
        "handlers": list(root.handlers),
        "level": root.level,
        "bars": transformers_logging.is_progress_bar_enabled(),
        "hydra": GlobalHydra.instance().hydra,
        "schema": store.get("schema.yaml"),
    }


def _restore(state: dict[str, Any]) -> None:
    random.setstate(state["random"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.get_num_threads() != state["threads"]:
        torch.set_num_threads(state["threads"])
    torch.set_default_dtype(state["dtype"])
    for name in set(os.environ) - set(state["environment"]):
        del os.environ[name]
    os.environ.update(state["environment"])
    root = logging.getLogger()
    root.handlers[:] = state["handlers"]
    root.setLevel(state["level"])
    if state["bars"]:
        transformers_logging.enable_progress_bar()
    GlobalHydra.instance().hydra = state["hydra"]
    store: dict[str, Any] = ConfigStore.instance().repo
    if state["schema"] is None:
        store.pop("schema.yaml", None)
    else:
        store["schema.yaml"] = state["schema"]
