"""`secateur eval`: a finished run measured again keeps its own settings; the oracle agrees."""

from pathlib import Path

import pytest

from secateur.command import main
from secateur.eval.record import read_record

RUN = [
    "run", "model=tiny_llama", "method=magnitude", "eval.tasks=[boolq,arc_easy]", "eval.limit=6",
    "eval.ppl.max_tokens=600", "eval.baseline=false", "progress=false",
]  # fmt: skip


def test_a_run_is_measured_again_with_its_own_plan_and_settings(tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    assert main([*RUN, out]) == 0
    first = read_record(next(tmp_path.glob("tiny_llama-magnitude-*")))
    assert main(["eval", f"run={first.run_id}", "eval.limit=9", out]) == 0
    (again,) = [read_record(p) for p in tmp_path.glob("tiny_llama-magnitude-*") if p.name != first.run_id]
    assert again.config["eval"] == {**first.config["eval"], "limit": 9}
    assert again.parameters == first.parameters
    assert [x.kept_channels for x in again.layers] == [x.kept_channels for x in first.layers]
    assert again.metrics["boolq/acc"].n == 9
    assert again.metrics["world@128"].value == pytest.approx(first.metrics["world@128"].value, rel=1e-6)


def test_group_choices_lie_over_the_stored_settings(tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    assert main([*RUN, out]) == 0
    first = read_record(next(tmp_path.glob("tiny_llama-magnitude-*")))
    assert main(["eval", f"run={first.run_id}", "eval=ppl", out]) == 0
    (again,) = [read_record(p) for p in tmp_path.glob("tiny_llama-magnitude-*") if p.name != first.run_id]
    assert list(again.metrics) == ["world@128"]


def test_the_oracle_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--oracle", "--limit", "5", "--tasks", "boolq,piqa", "model=tiny_llama"]) == 0
    text = capsys.readouterr().out
    assert "greedy flags that differ: 0; scores that differ: 0" in text
    assert "20 requests" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["checkpoint=nowhere"], "no such folder"),
        (["model=tiny_llama"], "either checkpoint=DIR or run=ID"),
        (["run=x", "method=taylor"], "only eval, out and device"),
        (["run=nothing-here"], "does not exist"),
        (["--oracle", "--limit"], "--limit needs a value"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [f"out={tmp_path}" if w == "out" else w for w in words]
    assert main(["eval", *words]) == 1
    assert says in capsys.readouterr().err
