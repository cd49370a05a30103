"""The fast LM: lm-eval's log-likelihoods from packed token trees, for dense and pruned models alike.

A subclass of HFLM: tokenisation, truncation, rolling windows and generation are HFLM's; only the scoring of
token lists is replaced. Where a model cannot be scored that way (logits that are no plain head, attention
that trees do not cover), HFLM scores it, and `used` says so.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model

from secateur.eval.attention import Kind, UnsupportedAttention
from secateur.eval.backbone import NotSeparable
from secateur.eval.hflm import Request, StoredHFLM
from secateur.eval.parallel import add_up, shares, world
from secateur.eval.plans import get_plan, plan_key
from secateur.eval.prefix import PrefixReuse, reusing
from secateur.eval.scoring import Scored, TreeScorer
from secateur.eval.tokens import Encoded, encode_pairs, tokenizer_identity
from secateur.eval.trie import MergeRule, Trees, build_trees
from secateur.pruning.progress import Bar

log = logging.getLogger(__name__)


class FastLM(StoredHFLM):
    """HFLM's log-likelihoods for a fraction of its work.

    Attributes:
        used: `fast`, or `hflm` with the reason why this model cannot be scored by trees.
        scorer: The prepared model; None when HFLM scores it.
    """

    def __init__(
        self,
        model: Any = None,
        tokenizer: Any = None,
        *,
        cache: Path | None = None,
        kind: Kind | None = None,
        budget: int | None = None,
        reuse: PrefixReuse | None = None,
        pretrained: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(pretrained if model is None else model, tokenizer, **options)
        self.cache = cache
        self.reuse = reuse
        self.used = "fast"
        self.scorer: TreeScorer | None = None
        training = self.model.training
        self.model.eval()
        try:
            self.scorer = TreeScorer(self.model, kind=kind, budget=budget)
        except (NotSeparable, UnsupportedAttention) as error:
            self._give_up(error)
        self.model.train(training)

    def _give_up(self, reason: Exception) -> None:
        """Leave the model to HFLM."""
        self.scorer = None
        self.used = f"hflm ({reason})"
        log.warning("%s is scored by lm-eval's HFLM: %s", type(self.model).__name__, reason)

    def _settled(self) -> bool:
        """Whether trees score this model, now that its kernel is there."""
        try:
            if self.scorer is not None:
                self.scorer.settle()
        except UnsupportedAttention as error:
            self._give_up(error)
        return self.scorer is not None

    def compute(
        self,
        pairs: Sequence[tuple[str, str]],
        keys: np.ndarray,
        found: np.ndarray,
        values: np.ndarray,
        greedy: np.ndarray,
    ) -> None:
        """Fill `values` and `greedy` in place where `found` is False."""
        if self.scorer is None:
            super().compute(pairs, keys, found, values, greedy)
            return
        rule = MergeRule(self.scorer.rho)
        name = f"{tokenizer_identity(self.tokenizer)}-{self.prefix_token_id}-{self.add_bos_token}"
        key = plan_key(keys, name, self.max_length, rule)
        trees = get_plan(key, self.cache, lambda: encode_pairs(self, pairs), self.max_length, rule)
        if not self._settled():  # asked only now: a kernel is compiled while requests are tokenised
            super().compute(pairs, keys, found, values, greedy)
            return
        self.counters["requests_clipped"] += int(trees.clipped[0])
        needed = np.zeros(int(trees.inverse.max()) + 1, dtype=bool)
        needed[trees.inverse[~found]] = True

        def keep(scored: Scored) -> None:
            position = np.full(len(needed), -1)
            position[scored.requests] = np.arange(len(scored.requests))
            mine = np.flatnonzero((position[trees.inverse] >= 0) & ~found)
            at = position[trees.inverse[mine]]
            self.store.add(keys[mine], scored.values[at], scored.greedy[at])

        sums, flags = self.score_trees(trees, needed, keep, key)
        missing = ~found
        values[missing] = sums[trees.inverse][missing]
        greedy[missing] = flags[trees.inverse][missing]

    def score_trees(
        self, trees: Trees, needed: np.ndarray, keep: Any = None, plan: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score the distinct requests [U] that are needed.

        Args:
            trees: The plan.
            needed: Which distinct requests to score [U].
            keep: Called with results as they come to the host.
            plan: The plan's name, for prefix reuse.

        Returns:
            Log-likelihoods in nats [U] and greedy flags [U].
        """
        assert self.scorer is not None
        here = world()
        tree_of = np.searchsorted(trees.starts, trees.entry_nodes, side="right") - 1
        wanted = np.zeros(len(trees.sizes), dtype=bool)
        wanted[tree_of[needed[trees.entry_requests]]] = True
        packs = self.scorer.packs(trees, wanted)
        sums, flags = np.zeros(len(needed)), np.zeros(len(needed))
        if here.size > 1:
            sizes = trees.sizes
            costs = [float((sizes[pack] * (1.0 + sizes[pack] / self.scorer.rho)).sum()) for pack in packs]
            packs = [packs[i] for i in shares(costs, here.size)[here.rank]]
        before = self.scorer.forward_tokens
        total = int(sum(trees.sizes[pack].sum() for pack in packs))
        with Bar("tokens", total, show=self.progress and here.main) as bar:
            shown, asked = 0, time.monotonic()

            def fetch() -> bool:
                nonlocal shown, asked
                assert self.scorer is not None
                done = self.scorer.forward_tokens - before
                bar.advance(done - shown)
                shown = done
                due = time.monotonic() - asked >= self.store.flush_seconds
                asked = time.monotonic() if due else asked
                return due

            reuse = self.reuse if plan else None
            with reusing(self.scorer, trees, packs, plan, reuse) as hidden:
                for scored in self.scorer.run(trees, packs, fetch, hidden):
                    sums[scored.requests] = scored.values
                    flags[scored.requests] = scored.greedy
                    if keep is not None:
                        keep(scored)
                        self.store.flush()
        self.counters["forward_tokens"] += self.scorer.forward_tokens - before
        return add_up(sums), add_up(flags) > 0

    def _loglikelihood_tokens(
        self,
        requests: list[Request],
        disable_tqdm: bool = False,
        **options: Any,
    ) -> list[tuple[float, bool]]:
        if self.scorer is None or not self._settled():
            return super()._loglikelihood_tokens(requests, disable_tqdm, **options)  # pyright: ignore[reportPrivateUsage]  the hook
        encoded: list[Encoded] = [(context, continuation) for _, context, continuation in requests]
        trees = build_trees(encoded, self.max_length, MergeRule(self.scorer.rho))
        needed = np.ones(int(trees.inverse.max()) + 1, dtype=bool)
        sums, flags = self.score_trees(trees, needed)
        return list(zip(sums[trees.inverse].tolist(), flags[trees.inverse].tolist(), strict=True))


def score_pairs(lm: StoredHFLM, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """Log-likelihood (nats) and greedy flag of (context, continuation) texts."""
    return lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)


register_model("secateur")(FastLM)
