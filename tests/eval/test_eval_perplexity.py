"""Perplexity protocols against the plain loops that papers use."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur.eval.backbone import take_apart
from secateur.eval.config import EvalConfig, PerplexityConfig
from secateur.eval.perplexity import metric_of, perplexity, texts_of, tokenize, window_losses
from secateur.eval.protocols import parse, protocols
from secateur.eval.word_perplexity import pages_of, word_perplexity
from secateur.pruning.documents import single_breaks
from secateur.pruning.errors import DataError
from tests.eval.conftest import CONTEXT, cut, make_model, make_tokenizer
from tests.families import FAMILIES


def wanda_loop(model: Any, ids: torch.Tensor, window: int) -> float:
    """locuslab/wanda, lib/eval.py: window by window, mean cross-entropy times window, summed and divided."""
    count = ids.numel() // window
    losses = []
    for i in range(count):
        inputs = ids[:, i * window : (i + 1) * window]
        logits = model(inputs).logits
        loss = torch.nn.CrossEntropyLoss()(
            logits[:, :-1].reshape(-1, logits.shape[-1]), inputs[:, 1:].reshape(-1)
        )
        losses.append(loss.float() * window)
    return float(torch.exp(torch.stack(losses).sum() / (count * window)))


def study_loop(model: Any, ids: torch.Tensor, window: int, stride: int) -> float:
    """Overlapping windows, every token of each counted, exp of the mean of the windows' losses."""
    losses, total = [], ids.shape[1]
    for begin in range(0, total, stride):
        end = min(begin + window, total)
        part = ids[:, begin:end]
        losses.append(model(part, labels=part).loss)
        if end == total:
            break
    return float(torch.exp(torch.stack(losses).mean()))


def measured(model: Any, tokenizer: Any, data_dir: Path, name: str) -> float:
    config = EvalConfig(data_dir=str(data_dir), ppl=PerplexityConfig(protocols=(name,)))
    value = perplexity(model, tokenizer, config, protocols(config)[0])[0].value
    assert value is not None
    return value


def wikitext_ids(tokenizer: Any, data_dir: Path) -> torch.Tensor:
    config = EvalConfig(data_dir=str(data_dir))
    return torch.from_numpy(
        tokenize(texts_of(config, parse("wikitext2@64")), tokenizer, parse("wikitext2@64"))
    )[None]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_wanda_loop(family: str, tokenizer: Any, data_dir: Path) -> None:
    model = cut(make_model(family), "uneven")
    ids = wikitext_ids(tokenizer, data_dir)
    with torch.no_grad():
        expected = wanda_loop(model, ids, 64)
    assert measured(model, tokenizer, data_dir, "wikitext2@64") == pytest.approx(expected, rel=1e-5)


def test_equals_the_study_loop(tokenizer: Any, data_dir: Path) -> None:
    model = make_model("llama")
    ids = wikitext_ids(tokenizer, data_dir)
    assert ids.shape[1] % 16 != 0  # a shorter last window takes part
    with torch.no_grad():
        expected = study_loop(model, ids, 64, 16)
    ours = measured(model, tokenizer, data_dir, "wikitext2@64/16-recount")
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours != pytest.approx(measured(model, tokenizer, data_dir, "wikitext2@64"), rel=1e-5)


def test_head_in_small_chunks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.eval.backbone import Backbone

    model = make_model("llama")
    ids = torch.randint(0, 320, (5, 40), generator=torch.Generator().manual_seed(0))
    whole = window_losses(model, ids)
    plain = Backbone.chunks
    monkeypatch.setattr(Backbone, "chunks", lambda self, rows: plain(self, rows, 4 * 320 * 3))
    assert len(list(take_apart(model).chunks(10))) == 4
    assert np.allclose(window_losses(model, ids, batch_tokens=40), whole, rtol=1e-6)


def test_bfloat16_losses_are_float32(tokenizer: Any) -> None:
    """The head's logits are 16 bit, their log-softmax is not: many distinct losses, close to the exact ones."""
    ids = torch.randint(0, 320, (4, 100), generator=torch.Generator().manual_seed(0))
    exact = window_losses(make_model("llama"), ids)
    half = window_losses(make_model("llama").bfloat16(), ids)
    assert np.abs(half / exact - 1).max() < 0.02
    assert not np.array_equal(half, torch.from_numpy(half).bfloat16().double().numpy())


def test_own_text_is_packed_with_bos(tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "validation.jsonl").write_text(
        '{"story": "the cat\\n\\n\\nsat \\n"}\n{"story": "on a mat"}\n' * 40
    )
    config = EvalConfig(
        ppl=PerplexityConfig(
            text=str(folder / "validation.jsonl"), window=32, field="story", blank_lines="single"
        )
    )
    (protocol,) = protocols(config)
    assert protocol.name == "stories@32"
    texts = texts_of(config, protocol)
    assert texts[0] == "the cat\nsat"
    bos, plain = tokenizer.bos_token_id, make_tokenizer(bos=False)
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[:2])
    assert tokenize(texts, tokenizer, protocol)[: len(first) + len(second) + 3].tolist() == [
        bos,
        *first,
        bos,
        *second,
        bos,
    ]
    assert tokenize(texts[:1], plain, protocol).tolist() == [*first, plain.eos_token_id]
    metric, tokens = perplexity(make_model("llama"), tokenizer, config, protocol)
    assert metric.n == tokens // 32 * 31
    assert single_breaks("a\n \n\nb\n\n") == "a\nb"


def test_txt_file_and_its_name(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("the cat sat on a warm mat " * 40)
    config = EvalConfig(ppl=PerplexityConfig(text=str(path), window=16, max_tokens=100))
    (protocol,) = protocols(config)
    assert protocol.name == "novel@16"
    assert perplexity(make_model("llama"), tokenizer, config, protocol)[1] == 96


def test_non_finite_is_null_with_a_note(tokenizer: Any, data_dir: Path) -> None:
    model = make_model("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    config = EvalConfig(data_dir=str(data_dir), ppl=PerplexityConfig(protocols=("wikitext2@64",)))
    metric, _ = perplexity(model, tokenizer, config, protocols(config)[0])
    assert metric.value is None
    assert "NaN" in str(metric.note)
    per_word, _ = word_perplexity(model, tokenizer, EvalConfig(data_dir=str(data_dir)))
    for found in (metric, per_word):
        assert found.value is None
        assert "model.norm.weight holds 1 NaN of 32 values" in str(found.note)
    assert metric_of(np.array([800.0, 800.0]), 10).value is None
    assert metric_of(np.array([math.log(2.0)] * 3), 10).value == pytest.approx(2.0)


def test_window_beyond_the_context(tokenizer: Any, data_dir: Path) -> None:
    with pytest.raises(DataError, match=f"exceeds the model's context of {CONTEXT}"):
        measured(make_model("llama"), tokenizer, data_dir, "wikitext2@161")


def test_a_window_that_fits_is_measured_beside_one_that_does_not(tokenizer: Any, data_dir: Path) -> None:
    config = EvalConfig(
        data_dir=str(data_dir), ppl=PerplexityConfig(protocols=("wikitext2@64", "wikitext2@161"))
    )
    short, long = protocols(config)
    metric, _ = perplexity(make_model("llama"), tokenizer, config, short)
    assert metric.value is not None
    with pytest.raises(DataError, match="161 tokens exceeds"):
        perplexity(make_model("llama"), tokenizer, config, long)


def test_word_perplexity_is_lm_evals(tokenizer: Any, data_dir: Path) -> None:
    """Against the definition: BOS as prefix, disjoint windows, words of the original page."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    model = make_model("llama")
    config = EvalConfig(data_dir=str(data_dir))
    pages = pages_of(texts_of(config, parse("wikitext2@64")))
    assert len(pages) == 3
    total = words = 0.0
    for page in pages:
        ids = tokenizer(wikitext_detokenizer({"page": page}))["input_ids"]
        assert len(ids) > CONTEXT
        words += len(page.split()) + 2  # the empty pieces at both ends count as words there
        whole = [tokenizer.bos_token_id, *ids]
        done = 0
        while done < len(ids):
            stop = min(done + CONTEXT, len(ids))
            start = max(0, stop - CONTEXT)
            logits = model(torch.tensor([whole[start:stop]])).logits[0].log_softmax(-1)
            targets = torch.tensor(whole[start + 1 : stop + 1])
            total += float(logits.gather(1, targets[:, None])[done - start :].double().sum())
            done = stop
    metric, _ = word_perplexity(model, tokenizer, config)
    assert metric.value == pytest.approx(math.exp(-total / words), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wikitext2", "is no perplexity protocol"),
        ("wikitext2@", "is no perplexity protocol"),
        ("wikitext2@1", "window of 2 tokens or more"),
        ("wikitext2@64/0-recount", "1 <= stride <= window"),
        ("wikitext2@64/65-recount", "1 <= stride <= window"),
    ],
)
def test_names_that_are_no_protocol(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(name)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("stories260K", 3.62), ("babyllama-tok105-940K", 2.05)])
def test_real_models(
    name: str, expected: float, assets: Path, real_model: Callable[[str], tuple[Any, Any]]
) -> None:
    """The first 64 windows of TinyStories validation."""
    model, tokenizer = real_model(name)
    settings = PerplexityConfig(
        text=str(assets / "text/tinystories/validation.parquet"),
        window=256,
        blank_lines="single",
        max_tokens=64 * 256,
    )
    config = EvalConfig(ppl=settings)
    (protocol,) = protocols(config)
    assert protocol.name == "tinystories@256"
    value = perplexity(model, tokenizer, config, protocol)[0].value
    assert value == pytest.approx(expected, rel=0.03)
