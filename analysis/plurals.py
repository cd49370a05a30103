"""`1 run`, `2 runs`: the texts write `run(s)` behind a number, and the number decides."""

import re

COUNTED = re.compile(r"(?<![\d.,])(\d[\d.,]*)((?: \[F\d+\])?(?: [a-z]+)?) ([a-z]+)\(s\)")


def plural(text: str) -> str:
    """The text with every `word(s)` behind a number in its one form."""
    return COUNTED.sub(lambda m: f"{m[1]}{m[2]} {m[3]}{'' if m[1] == '1' else 's'}", text)
