"""An lm-eval task that is read, rendered and turned into requests once, whatever number of models it measures."""

from collections.abc import Iterator
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import create_iterator

PROMPT_OPTIONS = ("system_instruction", "apply_chat_template", "fewshot_as_multiturn", "chat_template")
FEWSHOT_SEED = 1234
"""lm-eval's default."""
Answer = dict[str, float]


class StoredTask(ConfigurableTask):
    """A stock task that keeps its documents, requests and rendered choices between models.

    lm-eval renders a template for every choice and target each time it asks; the documents never change, so
    here each is rendered once. What is computed from them stays lm-eval's.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._split_docs: dict[str, Any] = {}
        self._documents: list[dict[str, Any]] | None = None
        self._kept: frozenset[int] = frozenset()
        self._memo: dict[tuple[str, int], Any] = {}
        self._built: tuple[int | None, tuple[int, ...] | None, int, int] | None = None
        self.answers: list[Answer] = []
        super().__init__(config=config)

    def validation_docs(self) -> Any:
        """The validation split after the task's own processing, processed once."""
        return self._processed("validation", super().validation_docs)

    def test_docs(self) -> Any:
        """The test split after the task's own processing, processed once."""
        return self._processed("test", super().test_docs)

    def _processed(self, split: str, make: Any) -> Any:
        if split not in self._split_docs:
            self._split_docs[split] = make()
        return self._split_docs[split]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """All documents of the scored split, as plain dictionaries that live as long as the task."""
        if self._documents is None:
            self._documents = [dict(doc) for doc in self.eval_docs]
            self._kept = frozenset(map(id, self._documents))
        return self._documents

    def doc_iterator(
        self,
        *,
        rank: int = 0,
        limit: int | None = None,
        world_size: int = 1,
        samples: list[int] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, document): the first `limit` ones, or those that `samples` names, in file order."""
        docs = self.documents
        if samples:
            docs = [docs[i] for i in sorted(set(samples))]
            limit = None
        return create_iterator(enumerate(docs), rank=int(rank), limit=limit, world_size=int(world_size))

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests, or take those of the model before with their answers cleared."""
        samples = kwargs.get("samples")
        wanted = (
            kwargs.get("limit"),
            None if samples is None else tuple(samples),
            int(kwargs.get("rank", 0)),
            int(kwargs.get("world_size", 1)),
        )
        self.answers = []
        if self._built == wanted and self._instances:
            for instance in self._instances:
                instance.resps = []
                instance.filtered_resps = {}
            return
        self._instances = []
        self.set_fewshot_seed(FEWSHOT_SEED)  # the examples are drawn question by question
        prompt = {key: value for key, value in kwargs.items() if key in PROMPT_OPTIONS}
        chat = {
            key: value for key, value in prompt.items() if key in ("apply_chat_template", "chat_template")
        }
        for number, doc in self.doc_iterator(
            limit=wanted[0], samples=samples, rank=wanted[2], world_size=wanted[3]
        ):
            context = self.fewshot_context(
                doc, num_fewshot=self.config.num_fewshot or 0, gen_prefix=self.doc_to_prefix(doc), **prompt
            )
            made = self.construct_requests(
                doc=doc, ctx=context, metadata=(self.config.task, number, self.config.repeats), **chat
            )
            self._instances.extend(made if isinstance(made, list) else [made])
        self._built = wanted

    def process_results(self, doc: Any, results: Any) -> Any:
        """Score one question with lm-eval's code and keep its metrics for the per-question answers."""
        metrics = super().process_results(doc, results)
        self.answers.append(metrics)
        return metrics

    def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
        """The answer choices, rendered once per document."""
        if doc_to_choice is not None:
            return super().doc_to_choice(doc, doc_to_choice)
        return self._remember("choice", doc, super().doc_to_choice)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """The gold answer, rendered once per document."""
        if doc_to_target is not None:
            return super().doc_to_target(doc, doc_to_target)
        return self._remember("target", doc, super().doc_to_target)

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """The question, rendered once per document."""
        if doc_to_text is not None:
            return super().doc_to_text(doc, doc_to_text)
        return self._remember("text", doc, super().doc_to_text)

    def _remember(self, kind: str, doc: Any, make: Any) -> Any:
        if id(doc) not in self._kept:  # identities are stable only for documents that the task keeps
            return make(doc)
        key = (kind, id(doc))
        if key not in self._memo:
            self._memo[key] = make(doc)
        return self._memo[key]
