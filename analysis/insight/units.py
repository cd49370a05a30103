"""Units: how they are written, what they measure, and how they convert."""

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit: what it measures, and the factor to that quantity's base."""

    name: str
    measures: str
    factor: float = 1.0


def _units() -> dict[str, Unit]:
    table = [
        ("s", "time", 1, "s sec secs second seconds 秒"),
        ("ms", "time", 1e-3, "ms msec millisecond milliseconds 毫秒"),
        ("µs", "time", 1e-6, "us µs μs microsecond microseconds 微秒"),
        ("ns", "time", 1e-9, "ns nanosecond nanoseconds 纳秒"),
        ("min", "time", 60, "min mins minute minutes 分钟"),
        ("h", "time", 3600, "h hr hrs hour hours 小时"),
        ("bytes", "bytes", 1, "b byte bytes 字节"),
        ("kB", "bytes", 1e3, "kb kilobyte kilobytes"),
        ("MB", "bytes", 1e6, "mb megabyte megabytes"),
        ("GB", "bytes", 1e9, "gb gigabyte gigabytes"),
        ("TB", "bytes", 1e12, "tb terabyte terabytes"),
        ("KiB", "bytes", 2**10, "kib"),
        ("MiB", "bytes", 2**20, "mib"),
        ("GiB", "bytes", 2**30, "gib"),
        (
            "tokens/s",
            "tokens/s",
            1,
            "tokens/s tokens/sec tok/s tok/sec token/s t/s tokens/second tps 词元/秒 令牌/秒",
        ),
        ("tokens", "tokens", 1, "tokens token tok tokens 词元 令牌"),
        ("%", "share", 1e-2, "% percent pct 百分比 个百分点 百分点"),
        ("share", "share", 1, "share"),
        ("samples/s", "samples/s", 1, "samples/s samples/sec it/s req/s requests/s"),
        ("GFLOPS", "flops", 1e9, "gflops gflop/s"),
        ("TFLOPS", "flops", 1e12, "tflops tflop/s"),
        ("GB/s", "bytes/s", 1e9, "gb/s"),
        ("MB/s", "bytes/s", 1e6, "mb/s"),
        ("W", "power", 1, "w watt watts 瓦"),
        ("°C", "temperature", 1, "°c ℃"),
        ("×", "factor", 1, "x × 倍"),
    ]
    return {word: Unit(name, kind, factor) for name, kind, factor, words in table for word in words.split()}


UNITS = _units()
SHARE = UNITS["share"]
COUNT = Unit("", "count")
SUFFIXES = (
    (re.compile(r"(tokens?|toks?|tok)_?(per_?|/)(s|sec|second)$|(^|_)(tps|tok_s|tokens_s|toks)$"), "tokens/s"),
    (re.compile(r"(samples?|its?|reqs?|requests)_?(per_|/)(s|sec|second)$"), "samples/s"),
    (re.compile(r"(^|_)(ms|msec|millis|milliseconds)$"), "ms"), (re.compile(r"(^|_)(us|µs)$"), "us"),
    (re.compile(r"(^|_)(ns|nanos|nanoseconds)$"), "ns"),
    (re.compile(r"(^|_)(s|sec|secs|seconds)$|^elapsed(_time)?$"), "s"), (re.compile(r"_(min|minutes)$"), "min"),
    (re.compile(r"_h(ours)?$"), "h"), (re.compile(r"(^|_)bytes$"), "bytes"), (re.compile(r"_kb$"), "kb"),
    (re.compile(r"_mb$"), "mb"), (re.compile(r"_gb$"), "gb"), (re.compile(r"_mib$"), "mib"),
    (re.compile(r"_gib$"), "gib"), (re.compile(r"(^|_)(pct|percent)$|%$"), "%"),
)  # fmt: skip
BRACKET = re.compile(r"[(\[（【]\s*([^()\[\]（）【】]+?)\s*[)\]）】]\s*$")


def find_unit(text: str) -> Unit | None:
    """The unit that a text is, or None."""
    return UNITS.get(text.strip().lower().replace(" per ", "/"))


def split_name(column: str) -> tuple[str, Unit | None]:
    """A column name without its unit, and the unit: `推理时间(ms)` -> 推理时间, ms; `latency_ms` -> latency_ms, ms."""
    name = unicodedata.normalize("NFKC", column).strip()
    found = BRACKET.search(name)
    if found:
        unit = find_unit(found[1])
        if unit is not None:
            return name[: found.start()].strip(), unit
    plain = re.sub(r"[\s.\-]+", "_", name.lower())
    for pattern, word in SUFFIXES:
        if pattern.search(plain):
            return name, UNITS[word]
    return name, None
