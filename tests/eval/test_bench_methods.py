"""The comparison of methods: equal parameters, the same text, and a table that says what did not run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.eval import bench_methods, bench_torch_pruning
from secateur.pruning.files import read_json
from tests.pruning.commands import Place, place
from tests.pruning.conftest import build, text


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("bench"))


def words(there: Place, out: Path, methods: str) -> list[str]:
    """A comparison on a tiny model."""
    return [
        f"model={there.model}", f"train={there.text}", f"text={there.held_out}", f"methods={methods}", "ratios=0.1,0.9",
        "samples=4", "length=16", "window=16", "max_tokens=200", f"out={out}",
    ]  # fmt: skip


def test_rows_at_equal_parameters_and_reasons_for_what_is_missing(there: Place, tmp_path: Path) -> None:
    assert bench_methods.main(words(there, tmp_path, "random,taylor_mlp")) == 0
    rows = {(row["method"], row["ratio"]): row for row in read_json(tmp_path / "methods.json")["rows"]}
    channel = build("llama").layout.layers[0].channel_cost / build("llama").layout.total_parameters
    for method in ("random", "taylor_mlp"):
        found = rows[method, 0.1]
        assert 0.1 - channel <= found["removed"] <= 0.1 + 1e-4
        assert found["perplexity"] > 1
    assert rows["taylor_mlp", 0.9]["perplexity"] is None
    assert "budget.ratio=0.9" in rows["taylor_mlp", 0.9]["note"]
    assert rows["dense", 0.0]["removed"] == 0


def test_a_method_that_does_not_exist(
    there: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_methods.main(words(there, tmp_path, "magic")) == 2
    assert "torch_pruning_mlp" in capsys.readouterr().out
    assert bench_methods.main([]) == 2


def test_torch_pruning_is_told_to_meet_the_budget() -> None:
    """Bisection over its own ratio; its slopes are those of the sum of batch losses."""
    pytest.importorskip("torch_pruning")
    loaded = build("llama")
    ids = text(4).ids
    slopes = bench_torch_pruning.gradients(loaded, ids, 2)
    model: Any = build("llama").model
    (model(input_ids=ids[:2], labels=ids[:2]).loss + model(input_ids=ids[2:], labels=ids[2:]).loss).backward()
    wanted = dict(model.named_parameters())["model.layers.1.mlp.up_proj.weight"].grad
    torch.testing.assert_close(slopes["model.layers.1.mlp.up_proj.weight"], wanted)
    assert all(p.grad is None for p in loaded.model.parameters())
    cut = bench_torch_pruning.prune_to(loaded, slopes, 0.2, attention=False)
    layer = loaded.layout.layers[0]
    assert 0.2 - layer.channel_cost / loaded.layout.total_parameters < cut.ratio <= 0.2 + 1e-4
    widths = [x.mlp.up_proj.out_features for x in cut.model.model.layers]
    assert sum(widths) < 4 * 48
    assert all(x.self_attn.q_proj.out_features == 32 for x in cut.model.model.layers)
    assert bench_torch_pruning.parameters(loaded.model) == loaded.layout.total_parameters
    assert bool(torch.isfinite(cut.model(ids).logits).all())


def test_a_cut_that_does_not_end_is_stopped(
    there: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forever(*_: Any, **__: Any) -> None:
        while True:
            pass

    monkeypatch.setattr(bench_methods, "prune_to", forever)
    assert bench_methods.main([*words(there, tmp_path, "torch_pruning"), "limit=0.2"]) == 0
    rows = [row for row in read_json(tmp_path / "methods.json")["rows"] if row["method"] == "torch_pruning"]
    assert [row["note"] for row in rows] == ["no result after 0 s"] * 2
