"""Chinese numerals: 三千五百毫秒, 一点二万个词元, 百分之十五, 两个文件."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

DIGITS = {
    "零": 0,
    "〇": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
PLACES = {"十": 10, "百": 100, "千": 1000}
GROUPS = {"万": 10**4, "亿": 10**8}
COUNTED = (
    "文件|模型|方法|运行|记录|异常|单元|实验|数据集|任务|发现|矛盾|格式|测量|结果|组合|变化|因素|事实|配置"
)
_ANY = "零〇一二两三四五六七八九十百千万亿"
NUMERAL = re.compile(
    rf"(?P<percent>百分之)?(?P<number>[{_ANY}]+(?:点[{_ANY}]+)?)(?P<unit>毫秒|秒|分钟|小时|字节|词元|令牌|倍|个百分点)?"
)
THING = re.compile(rf"\s?(?:个|份|次|组|条|种|项|行|类|台)?[^\s，。；、\d]{{0,3}}?(?:{COUNTED})")
PERCENT_DIGITS = re.compile(r"百分之(?=\d)")


@dataclass(frozen=True)
class Numeral:
    """A numeral of a text; `unit` is `%` after 百分之."""

    start: int
    end: int
    value: float
    step: float
    unit: str


def numerals(text: str) -> Iterator[Numeral]:
    """Every numeral that measures or counts something; 一 alone is an article and none."""
    for match in NUMERAL.finditer(text):
        number, unit = match["number"], match["unit"] or ""
        if match["percent"]:
            unit = "%"
        elif not unit and (number == "一" or not THING.match(text, match.end())):
            continue
        value, step = numeral_value(number)
        yield Numeral(match.start(), match.end(), value, step, "%" if unit == "个百分点" else unit)


def numeral_value(text: str) -> tuple[float, float]:
    """Value of a numeral and what its last digit is worth: 一点二万 -> (12000, 1000)."""
    scale = 1.0
    if "点" in text and text[-1] in GROUPS:
        scale, text = float(GROUPS[text[-1]]), text[:-1]
    whole, _, decimals = text.partition("点")
    value, step = float(_whole(whole)), 1.0
    for place, char in enumerate(decimals, 1):
        value += DIGITS.get(char, 0) * 10.0**-place
        step = 10.0**-place
    return value * scale, step * scale


def _whole(text: str) -> int:
    if text and all(char in DIGITS for char in text):  # 二〇二五
        return int("".join(str(DIGITS[char]) for char in text))
    total, group, digit = 0, 0, 0
    for char in text:
        if char in DIGITS:
            digit = DIGITS[char]
        elif char in PLACES:
            group += (digit or (1 if not group else 0)) * PLACES[char]
            digit = 0
        else:
            total = (total + group + digit) * GROUPS[char] if group or digit or total else GROUPS[char]
            group, digit = 0, 0
    return total + group + digit
