"""What evaluation costs beside the model: lm-eval's own loop and ours, with a model that costs nothing.

The model's answer to a request is the sum of its continuation's token ids modulo 97, so that both sides can be
compared to the last digit.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from secateur.eval.bench_setup import MAX_LENGTH, Shape, data_dir, prompts, train_tokenizer
from secateur.eval.config import TASKS, EvalConfig
from secateur.eval.data import data_folder, task_file
from secateur.eval.fast_lm import FastLM
from secateur.eval.harness import run_tasks
from secateur.eval.hflm import StoredHFLM
from secateur.eval.quiet import quiet
from secateur.eval.seven import SPLIT, STOCK
from secateur.eval.store import Store
from secateur.eval.tasks import forget_tasks, load_tasks
from secateur.eval.trie import Trees

NOTHING = Shape("zero cost", 32_000, 8, 8, 1, 1, 1)
MODULUS = 97


class FreeHFLM(StoredHFLM):
    """HFLM whose model costs nothing; lm-eval's own `loglikelihood` around it."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """lm-eval's, without our store."""
        return super(StoredHFLM, self).loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, **options: Any) -> Any:
        return [(-float(sum(continuation) % MODULUS), False) for _, _, continuation in requests]


class FreeFastLM(FastLM):
    """The fast LM whose model costs nothing."""

    def score_trees(
        self, trees: Trees, needed: np.ndarray, keep: Any = None, plan: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same answers as `FreeHFLM`, for all distinct requests."""
        from secateur.eval.scoring import Scored

        sums = np.bincount(trees.entry_requests, weights=trees.entry_targets, minlength=len(needed))
        values, flags = -(sums % MODULUS), np.zeros(len(needed), dtype=bool)
        if keep is not None:
            keep(Scored(np.arange(len(needed)), values, flags))
        return values, flags


def overhead(console: Console) -> None:
    """Print the CPU seconds of lm-eval's default loop and of ours, first and second model."""
    texts = prompts(1.0)
    tokenizer = train_tokenizer()
    count = sum(map(len, texts.values()))
    model = NOTHING.build()
    theirs, expected = _lm_eval(model, tokenizer)
    table = Table(title=f"harness overhead, {count} requests, zero-cost model, CPU seconds")
    table.add_column("side")
    table.add_column("seconds", justify="right")
    table.add_row("lm-eval's simple_evaluate", f"{theirs:.1f}")
    forget_tasks()
    config = EvalConfig(data_dir=data_dir())
    with tempfile.TemporaryDirectory() as folder:
        for number in ("first", "second"):
            start = time.process_time()
            store = Store(Path(folder) / number, {"model": number})
            lm = FreeFastLM(model, tokenizer, max_length=MAX_LENGTH, cache=Path(folder), store=store)
            results = run_tasks(lm, load_tasks(config), config)
            table.add_row(f"ours, {number} model", f"{time.process_time() - start:.1f}")
            ours = {name: metric.value for name, metric in results.metrics.items() if name in expected}
            assert ours == expected, "both sides score the same"
    console.print(table)


def _lm_eval(model: Any, tokenizer: Any) -> tuple[float, dict[str, float]]:
    """CPU seconds and scores of `simple_evaluate` as its users call it, with local data."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = data_folder(EvalConfig(data_dir=data_dir()))
    assert folder is not None
    root = Path(lm_eval.__file__).parent / "tasks"
    with tempfile.TemporaryDirectory() as temporary:
        for name in TASKS:
            path = task_file(folder, name)
            unused = {f"{split}_split": None for split in ("training", "validation", "test")}
            settings = {
                "include": str(root / STOCK[name]),
                "task": f"{name}_local",
                "dataset_path": "parquet" if path.suffix == ".parquet" else "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": {SPLIT[name]: str(path)}},
                **unused,
                f"{SPLIT[name]}_split": SPLIT[name],
            }
            Path(temporary, f"{name}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        start = time.process_time()
        lm = FreeHFLM(model, tokenizer, max_length=MAX_LENGTH)
        with quiet():
            manager = TaskManager(include_path=temporary)
            call: Any = lm_eval.simple_evaluate
            results: Any = call(model=lm, tasks=[f"{name}_local" for name in TASKS], task_manager=manager)
        seconds = time.process_time() - start
    scores: dict[str, float] = {}
    for name in TASKS:
        for key in ("acc", "acc_norm"):
            value = results["results"][f"{name}_local"].get(f"{key},none")
            if value is not None:
                scores[f"{name}/{key}"] = float(value)
    return seconds, scores
