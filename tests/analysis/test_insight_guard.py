"""What counts as a figure, when a fact agrees with it, and when a sentence speaks of that fact."""

from typing import Any

import pytest
import yaml

from secateur.analysis.insight.cells import parse_cell
from secateur.analysis.insight.claims import Claim, Facts
from secateur.analysis.insight.figures import find_figures
from secateur.analysis.insight.findings.base import Evidence
from secateur.analysis.insight.guard import chance, check
from secateur.analysis.insight.markup import clean, to_html, to_markdown
from secateur.analysis.insight.numerals import numeral_value
from secateur.analysis.insight.texts import read_words
from secateur.analysis.insight.units import UNITS, split_name

SPOT = (Evidence("a.csv", 3, "acc", 0.42131),)
ACC = ("acc", "accuracy", "准确率")
CLAIMS = (
    Claim(1, 101, None, ("files", "文件"), (), "files", (), "count"),
    Claim(2, 0.42131, UNITS["share"], ACC, ("tiny_llama", "taylor"), "best acc", SPOT),
    Claim(
        3, 40.168, UNITS["tokens/s"], ("throughput", "tokens/s", "吞吐"), ("gemma3",), "best throughput", SPOT
    ),
    Claim(4, 633.1, UNITS["ms"], ("ttft", "first token", "首词"), ("gemma3",), "ttft", SPOT),
    Claim(
        5,
        -20.04,
        UNITS["%"],
        ("throughput", "吞吐"),
        ("gemma3",),
        "change of throughput",
        SPOT,
        "change",
        True,
    ),
    Claim(6, 5.5e9, UNITS["bytes"], ("memory", "内存"), ("gemma3",), "memory", SPOT),
    Claim(7, 12345, None, ("rows", "行"), (), "rows", (), "count"),
    Claim(8, 3e-9, None, ("p", "method"), (), "p", SPOT, "F test"),
    Claim(9, 128, None, ("seq_len", "seq len"), (), "setting: seq_len", SPOT),
    Claim(10, 0.3, UNITS["share"], ACC, ("tiny_qwen2",), "worst acc", SPOT),
)
NAMES = frozenset({"tiny_llama", "gemma3_1b", "blockwise 64x128", "llama-3-8b"})
FACTS = Facts(CLAIMS, {}, (), NAMES)


def texts(text: str) -> list[str]:
    return [figure.text for figure in find_figures(text, NAMES)]


def linked(text: str) -> list[int | None]:
    return [verdict.claim.id if verdict.claim else None for verdict in check(text, FACTS).verdicts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234 files and 0.5 of 2.5e-3", ["1,234", "0.5", "2.5e-3"]),
        ("40.17tok/s, 633 ms, 5.5GB, 15%", ["40.17tok/s", "633 ms", "5.5GB", "15%"]),
        ("2.5 × 10^3 rows; -3.5; 12-15 ms", ["2.5 × 10^3", "-3.5", "12", "15 ms"]),
        ("三个文件, 百分之十五, 1.2万行, 一点二万毫秒", ["三", "百分之十五", "1.2万", "一点二万毫秒"]),
        ("准确率为４２％和٤٢", ["42%", "42"]),
        ("three files, twelve runs and five percent", ["three", "twelve", "five percent"]),
        ("acc=0.44 acc0.45 TTFT:633ms", ["0.44", "0.45", "633ms"]),
        ("| a | 7 |\n|--|--|", ["7"]),
        ("**0.5**, `0.6`, (0.7), ~0.8", ["0.5", "0.6", "0.7", "0.8"]),
        ("seq_len=128 and 16x64", ["128", "16", "64"]),
    ],
)
def test_what_is_a_figure(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "tiny_llama, gemma3_1b, Llama-3-8B, Qwen2.5-7B-Instruct, fp16, F1, gpt-4o and blockwise 64x128",
        "on 2025-11-14, 14 November 2025, Nov 14, 2025, 2025年11月14日, at 18:53:30, in 2025, 2024-2025",
        "the 1st, 2nd and 23rd run, 第3次, 第三次, Section 2, step 3, #4",
        "1. First\n2) Second\n## 3. Third\n- 4. Fourth\n**5. Fifth**",
        "see [F12] and 【F3、F4】 and https://example.com/1234",
        "one of the reasons, no one, 一个原因, 十分重要, 万一, 统一",
    ],
)
def test_what_is_none(text: str) -> None:
    assert texts(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The accuracy of tiny_llama is 0.42131.", 2), ("The accuracy of tiny_llama is 0.421.", 2),
        ("The accuracy of tiny_llama is 42.1%.", 2), ("tiny_llama 的准确率为百分之四十二。", 2),
        ("The accuracy of tiny_llama is 0.43.", None), ("The accuracy of tiny_llama is 0.422.", None),
        ("gemma3 has a throughput of 40.17 tok/s.", 3), ("gemma3 has a throughput of 40 tokens/s.", 3),
        ("gemma3 reaches its first token after 0.633 s.", 4), ("gemma3: ttft 633 ms", 4), ("gemma3: ttft 633 s", None),
        ("gemma3 takes 5.5 GB of memory.", 6), ("gemma3 takes 5500 MB of memory.", 6),
        ("gemma3 takes 5.12 GiB of memory.", 6),
        ("There are 12,345 rows.", 7), ("共有 1.2万 行。", 7), ("There are about 12,000 rows.", 7),
        ("There are 12,000 rows.", None),
        ("There are 101 files.", 1), ("There are 44 files.", None), ("There are 101 models.", None),
        ("At seq_len=128 it was so.", 9), ("At seq_len=256 it was so.", None),
    ],
)  # fmt: skip
def test_units_rounding_and_context(text: str, expected: int | None) -> None:
    assert linked(text) == [expected]


def test_a_true_number_of_something_else_is_struck_out() -> None:
    assert linked("The accuracy of tiny_qwen2 is 0.421.") == [None]
    assert linked("The latency of tiny_llama is 0.421.") == [None]
    assert check("The accuracy of tiny_qwen2 is 0.421.", FACTS).failed[0].reason == "context"
    assert linked("tiny_llama has acc 0.42131, tiny_qwen2 has acc 0.42131.") == [2, None]
    assert linked("| model | acc |\n|--|--|\n| tiny_qwen2 | 0.421 |\n| tiny_llama | 0.421 |") == [None, 2]


def test_citations_bind() -> None:
    assert linked("The accuracy of tiny_llama is 0.421 [F2].") == [2]
    assert linked("The accuracy of tiny_llama is 0.421 [F10].") == [None]
    assert linked("The accuracy of tiny_llama is 0.43 [F2].") == [None]
    assert linked("The throughput of gemma3 is 0.421 [F2].") == [None]  # the right number of another metric
    assert linked("The accuracy of tiny_llama is 0.421 [F999].") == [None]
    assert linked("method matters (p < 0.0001 [F8])") == [8]
    assert linked("method matters (p > 0.01 [F8])") == [None]


def test_changes_have_a_direction() -> None:
    assert linked("The throughput of gemma3 fell by 20%.") == [5]
    assert linked("The throughput of gemma3 rose by 20%.") == [None]
    assert linked("gemma3 的吞吐下降了 20%。") == [5]
    assert linked("gemma3 的吞吐提高了 20%。") == [None]
    assert linked("Throughput of gemma3: -20.0%") == [5]


def test_facts_that_the_writer_was_not_given_do_not_count() -> None:
    text = "The throughput of gemma3 is 40.17 tokens/s."
    assert check(text, FACTS, given=3).failed == ()
    assert len(check(text, FACTS, given=2).failed) == 1


def test_altered_figures_seldom_pass() -> None:
    text = (
        "The accuracy of tiny_llama is 0.4213. gemma3 has a throughput of 40.17 tok/s. There are 101 files."
    )
    checked = check(text, FACTS)
    assert not checked.failed
    passed, tried = chance(checked, FACTS)
    assert tried == 12
    assert passed == 0


def test_nothing_active_leaves_a_foreign_text() -> None:
    text = clean(
        "<img src=x onerror=y> [a](javascript:b) ![c](http://d) \ue0000\ue0011\ue002 \x1b[31m <b>bold</b> 44 files"
    )
    checked = check(text, FACTS)
    page, markdown = to_html(checked), to_markdown(checked)
    assert "<img" not in page
    assert "<a href" not in page
    assert "<b>" not in page
    assert "<b>" not in markdown
    assert "](javascript" not in markdown
    assert "\x1b" not in markdown
    assert "\ue000" not in page
    assert '<del class="struck"' in page
    assert "~~44~~" in markdown


def test_figures_are_marked_where_they_stand() -> None:
    checked = check(
        "acc of tiny_llama: **0.421** [F2] but `0.9`, and\n\n| x | acc |\n|--|--|\n| tiny_llama | 0.42 |\n",
        FACTS,
    )
    page = to_html(checked)
    assert '<strong><a class="fact" href="#F2"' in page
    assert "[F2]" not in page
    assert '<code><del class="struck" title="unknown">0.9</del></code>' in page
    assert "0.42</a></td>" in page


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("三千五百", 3500),
        ("一万二千", 12000),
        ("二〇二五", 2025),
        ("十二", 12),
        ("一百零三", 103),
        ("两亿", 2e8),
        ("零点五", 0.5),
    ],
)
def test_chinese_numerals(text: str, value: float) -> None:
    assert numeral_value(text)[0] == value


def test_cells_and_column_names_have_units() -> None:
    assert parse_cell("12.5 ms") == (12.5, UNITS["ms"])
    assert parse_cell("1,234") == (1234.0, None)
    assert parse_cell("15%") == (15.0, UNITS["%"])
    assert parse_cell("64-1024") is None
    assert parse_cell("v1.2") is None
    assert split_name("推理时间(ms)") == ("推理时间", UNITS["ms"])
    assert split_name("tokens_per_second")[1] == UNITS["tokens/s"]
    assert split_name("model")[1] is None


def keys(node: Any, prefix: str = "") -> dict[str, set[str]]:
    """Dotted key -> names of the fields in its text."""
    if isinstance(node, dict):
        return {k: v for name, inner in node.items() for k, v in keys(inner, f"{prefix}.{name}").items()}
    if isinstance(node, list):
        return {k: v for place, inner in enumerate(node) for k, v in keys(inner, f"{prefix}.{place}").items()}
    import re

    return {prefix: set(re.findall(r"\{(\w+!?)\}", str(node)))}


def test_both_languages_have_the_same_texts_and_fields() -> None:
    en, zh = keys(read_words("en")), keys(read_words("zh"))
    assert en.keys() == zh.keys()
    unlike = {key for key in en if en[key] - {"dataset"} != zh[key] - {"dataset"}}
    assert not unlike
    assert yaml.safe_dump(read_words("zh"), allow_unicode=True).count("，") > 20
