"""lm-eval's own HFLM, made resumable: the slow, trusted way to score, and the oracle of the fast one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models import huggingface

from secateur.eval.backbone import context_length
from secateur.eval.generations import Generations, generation_keys
from secateur.eval.parallel import add_up, world
from secateur.eval.quiet import quiet
from secateur.eval.store import Store, request_keys
from secateur.pruning.errors import DataError, NumericsError
from secateur.pruning.health import sick_weights
from secateur.pruning.progress import Bar

HFLM: Any = huggingface.HFLM  # its registering decorator hides the class from type checkers

LONGEST = 4096
"""No prompt of the seven tasks is longer; bounds the cost of a model that claims a context of 131,072."""
CHUNK = 1024
GENERATE_CHUNK = 256
COUNTERS: tuple[str, ...] = (
    "requests",
    "requests_computed",
    "requests_reused",
    "requests_clipped",
    "forward_tokens",
)


Request = tuple[Any, list[int], list[int]]


def clip(request: Request, max_length: int) -> Request:
    """The request with at most `max_length` continuation tokens, the last ones; HFLM would stop with an assertion."""
    name, context, continuation = request
    if len(continuation) <= max_length:
        return request
    whole = (context + continuation)[-(max_length + 1) :]
    return name, whole[:1], whole[1:]


class StoredHFLM(HFLM):
    """HFLM on a model in memory, with a store of finished requests.

    `logits_cache` is off, because lm-eval 0.4.13 reads the wrong positions when two requests have the same
    tokens but another split; the softmax is float32, because a bfloat16 one ties the choices of one question
    in ten.

    Attributes:
        counters: requests, requests_computed, requests_reused, requests_clipped (their continuation alone is longer
            than the model's context: only its end is scored), forward_tokens (padding included).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        store: Store | None = None,
        generations: Generations | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        options = {"logits_cache": False, "softmax_dtype": "float32", **options}
        training = model.training
        with quiet():
            super().__init__(
                pretrained=model,
                backend="causal",
                tokenizer=tokenizer,
                batch_size=batch_size,
                max_length=max_length or context_length(model, tokenizer, LONGEST),
                **options,
            )
        model.train(training)
        self.store = store if store is not None else Store(None, {})
        self.progress = progress
        self.generations = generations if generations is not None else Generations(None, {})
        self.counters = dict.fromkeys(COUNTERS, 0)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt, from the store where it has it; batches are those of a first call.

        Raises:
            DataError: Prompt and answer do not fit the model's context.
        """
        arguments: list[Any] = [request.args for request in requests]
        for _, settings in arguments:
            longest = int(settings.get("max_gen_toks", self.max_gen_toks))
            if longest >= self.max_length:
                raise DataError(
                    f"a task asks for answers of {longest} tokens, and the model reads {self.max_length} in all; "
                    f"give eval.max_gen_toks=N with a smaller N"
                )
        keys = generation_keys(arguments)
        training = self.model.training
        self.model.eval()
        self.counters["requests"] += len(keys)
        with Bar("texts", len(keys), show=self.progress and world().main) as bar:
            for start in range(0, len(keys), GENERATE_CHUNK):
                part = slice(start, start + GENERATE_CHUNK)
                if any(self.generations.get(key) is None for key in keys[part]):
                    with quiet():
                        texts: list[str] = super().generate_until(requests[part], disable_tqdm=True)
                    self.generations.add(keys[part], texts, keep=world().main)
                    self.counters["requests_computed"] += len(texts)
                else:
                    self.counters["requests_reused"] += len(keys[part])
                bar.advance(len(keys[part]))
        self.model.train(training)
        return [self.generations.get(key) or "" for key in keys]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood (nats) and greedy flag of each request, from the store where it has them."""
        arguments: list[Any] = [request.args for request in requests]
        pairs: list[tuple[str, str]] = [(context, continuation) for context, continuation in arguments]
        keys = request_keys(pairs)
        found, values, greedy = self.store.get(keys)
        found = (
            add_up(found.astype(np.float64)) == world().size
        )  # what every process knows: all split the same rest
        missing = int((~found).sum())
        self.counters["requests"] += len(pairs)
        self.counters["requests_computed"] += missing
        self.counters["requests_reused"] += len(pairs) - missing
        if missing:
            training = self.model.training
            self.model.eval()
            self.compute(pairs, keys, found, values, greedy)
            self.model.train(training)
        self.store.merge() if world().main else self.store.flush()
        self._check(values)
        return list(zip(values.tolist(), greedy.tolist(), strict=True))

    def _check(self, values: np.ndarray) -> None:
        """Refuse to choose answers by log-likelihoods [N] that are not finite: the first choice would win.

        Raises:
            NumericsError: Naming the weight that is to blame, where one is.
        """
        bad = int((~np.isfinite(values)).sum())
        if bad:
            why = sick_weights(self.model) or "its weights are finite: try model.dtype=bfloat16 or float32"
            raise NumericsError(f"{bad:,} of {len(values):,} log-likelihoods are NaN or infinite; {why}")

    def compute(
        self,
        pairs: Sequence[tuple[str, str]],
        keys: np.ndarray,
        found: np.ndarray,
        values: np.ndarray,
        greedy: np.ndarray,
    ) -> None:
        """Fill `values` and `greedy` in place where `found` is False.

        Chunks are cut from the full list, so that a resumed evaluation forms the same batches.
        """
        here = world()
        fresh, flags = np.zeros(len(pairs)), np.zeros(len(pairs))
        with Bar("lm-eval", len(pairs), show=self.progress and here.main) as bar:
            for number, start in enumerate(range(0, len(pairs), CHUNK)):
                part = slice(start, start + CHUNK)
                if number % here.size == here.rank and not found[part].all():
                    answers = self._score(pairs[part])
                    fresh[part] = [value for value, _ in answers]
                    flags[part] = [flag for _, flag in answers]
                    self.store.add(keys[part], fresh[part], flags[part] > 0)
                bar.advance(min(CHUNK, len(pairs) - start))
        missing = ~found
        values[missing] = add_up(fresh)[missing]
        greedy[missing] = add_up(flags)[missing] > 0

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        instances = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
        with quiet():
            return super().loglikelihood(instances, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        fitting = [clip(request, self.max_length) for request in requests]
        self.counters["requests_clipped"] += sum(
            len(a[2]) < len(b[2]) for a, b in zip(fitting, requests, strict=True)
        )
        return super()._loglikelihood_tokens(fitting, disable_tqdm=disable_tqdm, **options)

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.counters["forward_tokens"] += inps.numel()
        return super()._model_call(inps, *args, **kwargs)
