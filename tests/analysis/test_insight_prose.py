"""The prose by rules: nothing twice, no configuration, no idle decimals, advice that can be followed."""

import csv
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from test_insight_folder import write_foreign, write_runs
from test_insight_tools import SAMPLES, lm_eval, optimum

from secateur.analysis.insight.config import InsightConfig
from secateur.analysis.insight.contents import Report
from secateur.analysis.insight.narrative import SENTENCES
from secateur.analysis.insight.numbers import show
from secateur.analysis.insight.report import write_report
from secateur.analysis.insight.texts import read_words

BORDER = re.compile(r"(?<=[.!?])\s+|[。！？]|\n|\|")
WORDS = 6
OUTCOMES = {"acc", "acc_mean", "ppl", "tokens_per_second", "avg_ts", "latency", "throughput", "ttft_ms"}


def demo(folder: Path) -> None:
    write_runs(folder)
    for name in ("grids/_tasks/a.json", "grids/g-1/plan.json", "grids/_claims/a/1.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(
            json.dumps({"elapsed_s": [1, 9, 30], "config": {"ridge": [0.1, 10.0, 1000.0]}})
        )


def study(folder: Path) -> None:
    rows = [
        {"pruning_method": method, "taylor_seq_len": length, "acc_mean": 0.5 + 0.03 * m + 0.01 * (n * m % 3),
         "ppl": 12.0 - m + 0.7 * (n % 2), "elapsed_s": 100.0 * (n + 1)}
        for m, method in enumerate(("blockwise", "layerwise", "taylor")) for n, length in enumerate((16, 32, 64, 128))
    ]  # fmt: skip
    for model in ("llama", "qwen"):
        with (folder / f"{model}.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "acc_mean": row["acc_mean"] + (model == "qwen") * 0.02} for row in rows)


def harness(folder: Path) -> None:
    for model, shift in (("gpt2", 0.0), ("opt", 0.1)):
        (folder / f"results_{model}.json").write_text(json.dumps(lm_eval(model, shift)))


def optimum_benchmark(folder: Path) -> None:
    (folder / "benchmark.json").write_text(json.dumps(optimum()))


def llama_bench(folder: Path) -> None:
    (folder / "bench.json").write_text((SAMPLES / "llama_bench.json").read_text())


FOLDERS = (demo, study, harness, optimum_benchmark, llama_bench, write_foreign)


@pytest.fixture(scope="module", params=[(make, lang) for make in FOLDERS for lang in ("en", "zh")],
                ids=lambda param: f"{param[0].__name__}-{param[1]}")  # fmt: skip
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    make, lang = request.param
    folder = tmp_path_factory.mktemp("in")
    make(folder)
    out = str(tmp_path_factory.mktemp("out"))
    return write_report(InsightConfig(dir=str(folder), out=out, lang=lang))[0]


def sentences(made: Report) -> list[str]:
    text = "\n".join(checked.text for checked in made.narrative.values())
    parts = (" ".join(re.sub(r"\[F\d+\]|[*#`]|^\s*-", "", part).split()) for part in BORDER.split(text))
    word = "[\u4e00-\u9fff]" if made.config.lang == "zh" else r"\S+"
    return [part for part in parts if len(re.findall(word, part)) > WORDS]


def test_no_sentence_stands_twice(made: Report) -> None:
    verdicts = {text.strip(" 。") for text in read_words(made.config.lang)["verdict"].values()}
    said = [part for part in sentences(made) if part not in verdicts]
    assert said
    assert [part for part, times in Counter(said).items() if times > 1] == []


def test_the_summary_is_five_sentences_at_most(made: Report) -> None:
    text = made.narrative["summary"].text
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)|。", text)) <= SENTENCES


def test_nothing_is_said_of_configuration_or_bookkeeping(made: Report) -> None:
    for data in made.datasets:
        assert all(not name.startswith("grids/") for name in data.files)
    for item in made.findings:
        assert "config" not in item.measure
        assert "ridge" not in item.measure
        assert item.measure not in ("elapsed_s", "memory_bytes")


def test_outcomes_lead(made: Report) -> None:
    ranks = [item.rank for item in made.findings]
    assert ranks == sorted(ranks)
    if made.findings and made.findings[0].kind != "missing":
        assert made.findings[0].rank == 0


def test_no_more_than_two_decimals_beyond_the_error(made: Report) -> None:
    known = [claim for claim in made.facts.claims if claim.error > 0]
    for claim in known:
        decimals = len(show(claim).split()[0].rstrip("%").partition(".")[2])
        assert decimals <= max(0, -math.floor(math.log10(claim.error))) + 2, (show(claim), claim.error)


def test_every_advice_has_an_action_a_target_and_a_test(made: Report) -> None:
    text = made.narrative["advice"].text
    if not text.startswith("|"):
        assert text == read_words(made.config.lang)["advice_none"]
        return
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()[2:]]
    assert rows
    told = {word for item in made.findings for word in (*item.words.values(), item.measure) if word}
    for row in rows:
        assert len(row) == 5
        assert all(row)
        assert any(word.strip() in row[1] for word in told) or "{unreadable" in str(row), row[1]


def test_every_figure_has_its_fact_and_nothing_is_none(made: Report) -> None:
    assert made.failed == 0, [(v.figure.text, v.sentence) for t in made.narrative.values() for v in t.failed]
    text = "\n".join(checked.text for checked in made.narrative.values())
    assert not re.search(r"\bNone\b|\bnan\b", text)
    assert "守卫" not in text
