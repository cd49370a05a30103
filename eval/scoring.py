"""Score packed token trees with a model: log-likelihood and greedy flag of every distinct request.

The decoder runs on exactly the packs' tokens, without a KV cache; the head only on scored positions, in
chunks of rows, in float32. Results stay on the device until they are fetched in one copy.

R scored positions, E entries, U distinct requests, V vocabulary.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secateur.eval.attention import Kind, TreeMask, UnsupportedAttention, current, tree_attention
from secateur.eval.attention_flex import available, warm_up
from secateur.eval.backbone import Backbone, difference, take_apart
from secateur.eval.packs import Pack, group, make_pack
from secateur.eval.trie import MergeRule, Trees, build_trees
from secateur.pruning.memory import out_of_memory
from secateur.pruning.models.adapter import family_of

log = logging.getLogger(__name__)

CPU_TOKENS, DEVICE_TOKENS = 512, 16_384
_budgets: dict[str, int] = {}
"""Token budget per kind of device, lowered when memory ran out; the next model starts with it."""

Hidden = Callable[[Pack], torch.Tensor]


@dataclass(frozen=True)
class Scored:
    """Results of some packs.

    Attributes:
        requests: Distinct requests that are complete now [U'].
        values: Their log-likelihoods in nats [U'].
        greedy: Whether every token was the most likely one [U'].
    """

    requests: np.ndarray
    values: np.ndarray
    greedy: np.ndarray


class TreeScorer:
    """A model prepared for scoring trees.

    Where attention has to be compiled, that happens in the background; `settle` waits for it and ends the preparation.

    Attributes:
        budget: Most tokens per pack; halves when memory runs out.
        forward_tokens: Tokens that went through the model so far.

    Raises:
        NotSeparable: The model's logits are not those of decoder and head.
        UnsupportedAttention: No way to compute its attention over trees agrees with the model's own.
    """

    def __init__(self, model: Any, *, kind: Kind | None = None, budget: int | None = None) -> None:
        self.model = model
        self.backbone: Backbone = take_apart(model)
        device = self.backbone.device
        self.budget = (
            budget or _budgets.get(device.type) or (CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS)
        )
        self.forward_tokens = 0
        self._kinds: list[Kind] = [kind] if kind is not None else _kinds(device)
        self._kind: Kind | None = None
        self._warm: Future[None] | None = None
        if "flex" in self._kinds:
            self._warm = warm_up(model, device, next(self.backbone.decoder.parameters()).dtype)
        else:
            self.settle()

    @property
    def kind(self) -> Kind:
        """How attention is computed."""
        return self._kind or self.settle()

    def settle(self) -> Kind:
        """Choose the fastest way to compute attention that agrees with the model's own, once.

        Raises:
            UnsupportedAttention: There is none.
        """
        if self._kind is None:
            self._kind = self._choose()
        return self._kind

    @property
    def rho(self) -> float:
        """Linear FLOPs of a token over FLOPs of a (query, key) pair, to a power of two.

        Rounded, so that the pruned models of a grid share the dense model's plan.
        """
        linear = width = 0
        heads = family_of(self.model).attention.output.path
        for name, module in self.backbone.decoder.named_modules():
            if isinstance(module, torch.nn.Linear):
                linear += module.in_features * module.out_features
                width += module.in_features if name.endswith(heads) else 0
        return float(2 ** round(np.log2(max(linear / (2 * width), 1.0)))) if width and linear else 2.0**14

    def packs(self, trees: Trees, wanted: np.ndarray) -> list[np.ndarray]:
        """Packs that hold a wanted tree [M], as tree indices.

        They are formed from all trees, so that a resumed evaluation runs the same packs: rounding depends on them.
        """
        everything = group(trees.sizes, np.arange(len(trees.sizes)), self.budget)
        return [pack for pack in everything if wanted[pack].any()]

    @torch.inference_mode()
    def run(
        self, trees: Trees, packs: list[np.ndarray], fetch: Callable[[], bool], hidden: Hidden | None = None
    ) -> Iterator[Scored]:
        """Score trees; yields what is complete whenever `fetch` says so, and at the end.

        Args:
            trees: The plan.
            packs: Indices of the trees of each pack, from `packs`.
            fetch: Asked after each pack whether results shall come to the host now.
            hidden: Computes a pack's hidden states [T, D]; the decoder by default.
        """
        queue = packs[::-1]
        waiting: list[tuple[Pack, torch.Tensor, torch.Tensor]] = []
        with tree_attention(self.model):
            while queue:
                batch = queue.pop()
                try:
                    pack = make_pack(trees, batch)
                    waiting.append((pack, *self._score(pack, hidden)))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or len(batch) == 1:
                        raise
                    rest = np.concatenate([batch, *reversed(queue)])
                    queue = self._halve(trees, batch, rest)
                    continue
                self.forward_tokens += pack.tokens
                if fetch():
                    yield _collect(waiting)
                    waiting = []
        if waiting:
            yield _collect(waiting)

    def _halve(self, trees: Trees, failed: np.ndarray, rest: np.ndarray) -> list[np.ndarray]:
        """Packs of half the size for everything that is left."""
        tokens = int(trees.sizes[failed].sum())
        self.budget = max(1, min(self.budget, tokens) // 2)
        device = self.backbone.device
        _budgets[device.type] = self.budget
        if device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory at %d tokens per pass; continuing with %d", tokens, self.budget)
        queue = group(trees.sizes, rest, self.budget)
        queue.reverse()
        return queue

    def _score(self, pack: Pack, hidden: Hidden | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and hit of each entry [E], on the device."""
        at = torch.from_numpy(pack.rows)
        with self.backbone.only(at):
            states = self.hidden(pack) if hidden is None else hidden(pack)
        return self._entries(states[at.to(states.device)], pack)

    def hidden(self, pack: Pack, **inputs: Any) -> torch.Tensor:
        """Hidden states [T, D] of a pack after the final norm."""
        device = self.backbone.device
        if not inputs:
            inputs = {"input_ids": torch.from_numpy(pack.ids)[None].to(device)}
        positions = torch.from_numpy(pack.positions)[None].to(device)
        with current(TreeMask(pack, device, self.kind)):
            return self.backbone.hidden(position_ids=positions, **inputs)[0]

    def _entries(self, rows: torch.Tensor, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        values, hits = [], []
        bounds = pack.entry_rows
        for part in self.backbone.chunks(len(rows)):
            logits = self.backbone.logits(rows[part])
            first, last = np.searchsorted(bounds, [part.start, part.stop])
            at = torch.from_numpy(bounds[first:last] - part.start).to(logits.device)
            targets = torch.from_numpy(pack.entry_targets[first:last]).to(logits.device)
            normal, best = torch.logsumexp(logits, dim=-1), logits.argmax(dim=-1)
            values.append(logits[at, targets] - normal[at])
            hits.append(best[at] == targets)
        return torch.cat(values), torch.cat(hits)

    def _choose(self) -> Kind:
        """The first way that agrees with the model's own attention."""
        reasons: list[str] = []
        for kind in self._kinds:
            try:
                if kind == "flex" and self._warm is not None and (failure := self._warm.exception()):
                    raise UnsupportedAttention(str(failure)) from failure
                self._prove(kind)
            except (UnsupportedAttention, RuntimeError, NotImplementedError, LookupError) as error:
                self._kind = None
                reasons.append(f"{kind}: {error}")
                log.info("tree attention by %s is not used: %s", kind, error)
            else:
                return kind
        raise UnsupportedAttention("; ".join(reasons))

    @torch.inference_mode()
    def _prove(self, kind: Kind) -> None:
        """Compare logits over a small branching pack with the model's own on each sequence."""
        self._kind = kind
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        window = getattr(self.model.config.get_text_config(), "sliding_window", None) or 0
        length = max(12, window + 6 if window <= 256 else 0)
        rng = np.random.default_rng(7)
        base = rng.integers(0, vocabulary, length).tolist()
        ends = [rng.integers(0, vocabulary, 4).tolist() for _ in range(3)]
        encoded = [(base, ends[0]), (base, ends[1]), (base, ends[2][:2]), (base[: length // 2], ends[2])]
        trees = build_trees(encoded, length + 4, MergeRule(rho=2.0**20, min_share=1))
        pack = make_pack(trees, np.arange(len(trees.sizes)))
        with tree_attention(self.model):
            states = self.hidden(pack)
            ours = self.backbone.logits(states)
        for context, continuation in encoded:
            sequence = (context + continuation)[:-1]
            ids = torch.tensor([sequence], device=self.backbone.device)
            reference = self.model(input_ids=ids, use_cache=False).logits[0].float()
            worst, limit = difference(
                ours[_path(pack, sequence)], reference.to(ours.device), half=self.backbone.half
            )
            if not worst <= limit:
                raise UnsupportedAttention(
                    f"logits differ from the model's own by {worst:.3g} (limit {limit:.3g})"
                )


def _kinds(device: torch.device) -> list[Kind]:
    """Ways to compute attention that this device has, fastest first."""
    return ["flex", "gather"] if available(device) else ["gather"]


def _path(pack: Pack, sequence: list[int]) -> list[int]:
    """Nodes of a pack that spell a sequence: from each node, its child with the next token."""
    begins = (np.cumsum(pack.lengths) - pack.lengths).tolist()
    for begin in begins:
        path: list[int] = []
        node, stop = begin, int(pack.ends[begin])
        for token in sequence:
            while node < stop and pack.ids[node] != token:
                node = int(pack.ends[node])
            if node >= stop:
                break
            path.append(node)
            node, stop = node + 1, int(pack.ends[node])
        if len(path) == len(sequence):
            return path
    raise AssertionError("every sequence is in its pack")


def _collect(waiting: list[tuple[Pack, torch.Tensor, torch.Tensor]]) -> Scored:
    """Bring results to the host in one copy and add them up per request, in float64."""
    device = waiting[0][1].device
    both = torch.stack(
        [
            torch.cat([values.to(device) for _, values, _ in waiting]).double(),
            torch.cat([hits.to(device) for _, _, hits in waiting]).double(),
        ]
    )
    values, hits = both.cpu().numpy()
    requests, where = np.unique(
        np.concatenate([pack.entry_requests for pack, _, _ in waiting]), return_inverse=True
    )
    sums = np.bincount(where, weights=values, minlength=len(requests))
    misses = np.bincount(where, weights=1.0 - hits, minlength=len(requests))
    return Scored(requests, sums, misses == 0)
