"""A tiny model folder with its tokenizer, text files, and `secateur` as a user calls it."""

import io
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from secateur.command import main
from secateur.pruning.errors import SecateurError
from tests.conftest import ROOT
from tests.pruning.conftest import build

WORDS = [f"w{i}" for i in range(4, 61)]
"""The vocabulary of the tiny models: ids 4 to 60; 0 to 3 are pad, BOS, EOS and unknown."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {word: 4 + i for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[attr-defined]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def save_model(folder: Path, name: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A random model of a variant with its tokenizer, as Transformers writes them."""
    loaded = build(name, seed=seed, **changes)
    model: Any = loaded.model
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def documents(count: int, words: int = 24, seed: int = 0) -> list[str]:
    """Random documents of `words` words each."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=words)) for _ in range(count)]


def write_jsonl(path: Path, texts: Sequence[str], field: str = "text") -> Path:
    """Documents as one JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Place:
    """A folder with all that a run needs."""

    folder: Path
    model: Path
    text: Path
    held_out: Path

    @property
    def out(self) -> Path:
        """Where runs go."""
        return self.folder / "runs"

    def arguments(self, *overrides: str) -> list[str]:
        """A run on this model and text: prune only, unless told otherwise."""
        return [
            "model=local", f"model.path={self.model}", "model.dtype=float32", "calibration=text_file",
            f"calibration.path={self.text}", "taylor.seq_len=16", "taylor.num_samples=8", "taylor.batch_size=2",
            "eval=none", "device=cpu", f"out={self.out}", *overrides,
        ]  # fmt: skip

    def perplexity(self, window: int = 16) -> list[str]:
        """Overrides that measure perplexity on the held-out text."""
        return ["eval=ppl", f"eval.ppl.text={self.held_out}", f"eval.ppl.window={window}"]


def place(folder: Path, name: str = "llama", text_documents: int = 60, **changes: Any) -> Place:
    """Make a model, a calibration text and a held-out text below `folder`."""
    return Place(
        folder,
        save_model(folder / "net", name, **changes),
        write_jsonl(folder / "calibration.jsonl", documents(text_documents)),
        write_jsonl(folder / "held_out.jsonl", documents(20, seed=99)),
    )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(*argv: str) -> Outcome:
    """`secateur ARGV` in this process; logging and environment come back as they were."""
    root, environment = logging.getLogger(), dict(os.environ)
    handlers, level = list(root.handlers), root.level
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(list(argv))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
    return Outcome(code, out.getvalue(), err.getvalue())


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child process: one thread, offline, this checkout importable."""
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, **threads, "PYTHONPATH": path, **extra}


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """`secateur ARGV` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "secateur", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        **options,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240) -> Outcome:
    """Wait for a process."""
    out, err = process.communicate(timeout=seconds)
    return Outcome(process.returncode, out, err)


def records(out: Path) -> list[dict[str, Any]]:
    """Every finished record below an output folder, by name of the run."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*/record.json"))]


def only_record(out: Path) -> dict[str, Any]:
    """The one finished pruned run of an output folder."""
    (record,) = [record for record in records(out) if record["kind"] == "pruned"]
    return record


def leftovers(folder: Path) -> list[str]:
    """Temporary files that were not cleaned up."""
    return [str(path) for path in folder.rglob("*.tmp")] if folder.is_dir() else []


def spoiled(model: Path, to: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a model folder with something wrong with it."""
    shutil.copytree(model, to)
    change(to)
    return to


def cut_short(path: Path, share: float = 0.7) -> None:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def refused(here: Place, *overrides: str, says: tuple[str, ...], command: str = "run") -> str:
    """Run, and check how it is refused: exit code, one message with these words, nothing half-written."""
    argv = here.arguments(*overrides) if command == "run" else list(overrides)
    outcome = call(command, *argv)
    message = outcome.err[outcome.err.index(f"secateur {command}: ") :]
    assert outcome.code == 1
    for word in says:
        assert word in message, message
    assert "Traceback" not in outcome.err
    assert len(message.splitlines()) <= 20
    assert leftovers(here.out) == []
    assert list(here.out.glob("*/record.json")) == []
    return message


def one_line(error: SecateurError) -> None:
    """An error says something, on one line that can be read."""
    message = str(error)
    assert message
    assert "\n" not in message
    assert len(message) < 1000, message
