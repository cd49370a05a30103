"""Calibration text: packed or the study's way, seeded, nested, without padding, never evaluation text, cached."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from secateur.pruning.calibration import Samples, load_samples
from secateur.pruning.config import CalibrationConfig, TaylorConfig
from secateur.pruning.errors import DataError, StorageError
from secateur.pruning.leaks import NOTHING, Excluded
from secateur.pruning.world.text import calibration_documents
from tests.pruning.commands import cut_short, documents, tokenizer, write_jsonl

BOS, EOS, PAD = 1, 2, 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty documents of 24 words."""
    return write_jsonl(tmp_path / "text.jsonl", documents(60))


def samples(
    source: Path, count: int = 8, length: int = 16, exclude: Excluded = NOTHING, **options: Any
) -> Samples:
    """Samples of a file, through the cache beside it."""
    config = CalibrationConfig(path=str(source), **options)
    taylor = TaylorConfig(seq_len=length, num_samples=count)
    return load_samples(config, taylor, tokenizer(), source.parent / "cache", exclude)


def entries(source: Path) -> list[Path]:
    return sorted((source.parent / "cache" / "tokens").glob("*.safetensors"))


# --- packed


def test_packed_text_is_whole_documents_one_after_another_without_padding(source: Path) -> None:
    found = samples(source, count=93, length=16)
    assert found.ids.shape == (93, 16)
    assert found.ids.dtype == torch.int64
    assert bool((found.lengths == 16).all())
    assert bool(found.mask(slice(0, 93)).all())
    assert not bool((found.ids == PAD).any())
    stream = found.ids.flatten().tolist()
    starts = [i for i, token in enumerate(stream) if token == BOS]
    assert starts[:3] == [0, 25, 50]  # BOS and 24 words each
    known = {tuple(tokenizer()(text, add_special_tokens=False)["input_ids"]) for text in documents(60)}
    bodies = [tuple(stream[i + 1 : i + 25]) for i in starts[:-1]]
    assert set(bodies) <= known
    assert len(set(bodies)) == len(bodies)  # no document twice


def test_a_tokenizer_without_bos_ends_documents_with_eos(source: Path) -> None:
    plain = tokenizer()
    plain.bos_token = None
    config, taylor = CalibrationConfig(path=str(source)), TaylorConfig(seq_len=25, num_samples=2)
    found = load_samples(config, taylor, plain, source.parent / "cache")
    assert found.ids[:, -1].tolist() == [EOS, EOS]
    assert not bool((found.ids == BOS).any())


def test_fewer_samples_are_a_prefix_of_more(source: Path) -> None:
    for packing in ("packed", "study"):
        many = samples(source, count=32, packing=packing)
        few = samples(source, count=5, packing=packing)
        assert torch.equal(few.ids, many.ids[:5])
        assert torch.equal(few.lengths, many.lengths[:5])


def test_fewer_samples_of_the_world_are_a_prefix_of_more(tmp_path: Path) -> None:
    def world(count: int, seed: int = 0) -> torch.Tensor:
        config = CalibrationConfig(name="world", source="world", seed=seed)
        size = TaylorConfig(seq_len=16, num_samples=count)
        return load_samples(config, size, tokenizer(), tmp_path).ids

    assert calibration_documents(0, 300)[:50] == calibration_documents(0, 50)
    assert torch.equal(world(4), world(64)[:4])
    assert calibration_documents(1, 20) != calibration_documents(0, 20)


def test_seeds_shuffle_and_repeat(source: Path, tmp_path: Path) -> None:
    elsewhere = write_jsonl(tmp_path / "elsewhere" / "text.jsonl", documents(60))
    assert torch.equal(samples(source, seed=3).ids, samples(elsewhere, seed=3).ids)
    assert not torch.equal(samples(source, seed=3).ids, samples(source, seed=4).ids)
    first = samples(source).ids[0, 1:].tolist()
    in_file_order = tokenizer()(documents(60)[0], add_special_tokens=False)["input_ids"][:15]
    assert first != in_file_order


def test_short_documents_and_blank_lines(tmp_path: Path) -> None:
    texts = ["w4 w5", "w6\n\n\nw7", " \n", *documents(10)]
    source = write_jsonl(tmp_path / "text.jsonl", texts)
    everything = samples(source, count=1, length=17)
    assert everything.ids.shape == (1, 17)
    with pytest.raises(DataError, match="in 10 documents"):
        samples(source, count=99, min_chars=20)
    with pytest.raises(DataError, match="in 12 documents"):  # the blank one never counts
        samples(source, count=99)


# --- the study's way


def test_study_packing_takes_the_first_documents_cut_or_padded(tmp_path: Path) -> None:
    texts = ["w4 w5 w6", "short", *documents(3, words=30), "w9 w10"]
    source = write_jsonl(tmp_path / "text.jsonl", texts)
    found = samples(source, count=4, length=8, packing="study", min_chars=5)
    words = tokenizer()
    assert found.lengths.tolist() == [3, 8, 8, 8]  # the second is one token long: nothing to predict
    assert found.ids[0].tolist() == [4, 5, 6, PAD, PAD, PAD, PAD, PAD]
    assert found.ids[1].tolist() == words(texts[2])["input_ids"][:8]
    assert found.mask(slice(0, 1)).tolist() == [[True] * 3 + [False] * 5]
    with pytest.raises(DataError, match=r"num_samples=9 documents are wanted .* the text has 5"):
        samples(source, count=9, length=8, packing="study", min_chars=5)


# --- evaluation text


def test_evaluation_text_is_left_out(source: Path) -> None:
    texts = documents(60)
    seen = Excluded(tuple((text,) for text in texts[:20]))
    found = samples(source, count=60, length=16, exclude=seen)
    stream = found.ids.flatten().tolist()
    bodies = [stream[i + 1 : i + 25] for i, token in enumerate(stream) if token == BOS]
    forbidden = [tokenizer()(text, add_special_tokens=False)["input_ids"] for text in texts[:20]]
    assert not any(body in forbidden for body in bodies)
    assert found.left_out
    with pytest.raises(DataError, match="has 1000 in 40 documents"):
        samples(source, count=63, length=16, exclude=seen)


def test_calibration_on_the_evaluation_text_is_refused(source: Path) -> None:
    seen = Excluded(tuple((text,) for text in documents(60)[:40]))
    with pytest.raises(DataError, match=r"40 of 60 documents hold evaluation text.*training split"):
        samples(source, exclude=seen)
    assert entries(source) == []


# --- the cache


def test_cached_by_content(source: Path, tmp_path: Path) -> None:
    first = samples(source)
    (entry,) = entries(source)
    before = entry.stat().st_mtime_ns
    assert torch.equal(samples(source).ids, first.ids)
    assert samples(source).digest == first.digest
    assert (entries(source), entry.stat().st_mtime_ns) == ([entry], before)
    for change in ({"length": 8}, {"count": 4}, {"seed": 1}, {"packing": "study"}, {"min_chars": 5}):
        known = len(entries(source))
        samples(source, **change)  # type: ignore[arg-type]
        assert len(entries(source)) == known + 1, change
    write_jsonl(source, documents(60, seed=1))
    assert samples(source).digest != first.digest


def test_a_tokenizer_of_its_own_has_samples_of_its_own(source: Path) -> None:
    other = tokenizer()
    other.bos_token = None
    size = TaylorConfig(seq_len=16, num_samples=8)
    config = CalibrationConfig(path=str(source))
    found = [load_samples(config, size, words, source.parent / "cache") for words in (tokenizer(), other)]
    assert found[0].digest != found[1].digest


def test_a_cached_entry_cut_short(source: Path) -> None:
    first = samples(source)
    (entry,) = entries(source)
    for share in (0.9, 0.1, 0.0):
        cut_short(entry, share)
        with pytest.raises(StorageError, match=r"damaged.*Delete it and run the same command again"):
            samples(source)
    entry.unlink()
    assert samples(source).digest == first.digest


# --- files and the hub


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    texts = documents(12)
    path = tmp_path / f"text.{kind}"
    if kind == "txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    elif kind == "jsonl":
        write_jsonl(path, texts, field="body")
    else:
        pq.write_table(pa.table({"body": texts, "other": list(range(12))}), path)
    found = samples(path, count=4, length=25, field="body")
    words = {tuple(tokenizer()(text, add_special_tokens=False)["input_ids"]) for text in texts}
    if kind == "txt":  # one document
        assert found.ids[0, 0] == BOS
        assert not bool((found.ids[1:] == BOS).any())
        assert tuple(found.ids[0, 1:].tolist()) in words
    else:
        assert found.ids[:, 0].tolist() == [BOS] * 4
        assert {tuple(row) for row in found.ids[:, 1:].tolist()} <= words


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "w4 w5"}\n{"text": null}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"row 1 of column 'text' is None"):
        samples(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no rows"):
        samples(path)


def test_the_hub_without_internet(tmp_path: Path) -> None:
    config = CalibrationConfig(name="c4", source="hub", path="allenai/no-such-set-here")
    with pytest.raises(DataError, match=r"allenai/no-such-set-here.*calibration=text_file.*secateur fetch"):
        load_samples(config, TaylorConfig(), tokenizer(), tmp_path)


def test_too_short_says_how_much_there_is(source: Path) -> None:
    says = r"num_samples=100 x taylor.seq_len=16 needs 1600 tokens, the text has 1500 in 60 .*num_samples=93"
    with pytest.raises(DataError, match=says):
        samples(source, count=100)
    assert entries(source) == []
    assert samples(source, count=93).ids.shape == (93, 16)
