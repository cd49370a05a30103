"""The seven task sets, in the columns and label types that lm-eval's own task files read."""

import random
from collections.abc import Callable
from typing import Any

from secateur.pruning.world.facts import ACTIVITIES
from secateur.pruning.world.items import Item, chain_items, fact_items, how_to_items, what_happens_items
from secateur.pruning.world.scenes import Passage, Story, mention, stories, trait_passages

Row = dict[str, Any]
QUESTIONS = 240
"""How many questions each task has: divisible by 2 and 4, so that labels come out even."""
LETTERS = ("A", "B", "C", "D")
SPLITS: dict[str, str] = {
    "boolq": "validation",
    "piqa": "validation",
    "hellaswag": "validation",
    "winogrande": "validation",
    "arc_easy": "test",
    "arc_challenge": "test",
    "openbookqa": "test",
}
"""The split of each task that is scored."""


def _positions(rng: random.Random, choices: int) -> list[int]:
    """Where the right answer stands in each question: every place equally often."""
    places = [i % choices for i in range(QUESTIONS)]
    rng.shuffle(places)
    return places


def _with(wrong: list[str], answer: str, place: int) -> list[str]:
    return [*wrong[:place], answer, *wrong[place:]]


def _test_items(items: tuple[Item, ...], rng: random.Random) -> list[Item]:
    """Draw questions of the test side, no question twice."""
    candidates = [item for item in items if item.test]
    rng.shuffle(candidates)
    return list({item.question: item for item in candidates}.values())[:QUESTIONS]


def _lettered(name: str, items: tuple[Item, ...], rng: random.Random, column: str) -> list[Row]:
    rows: list[Row] = []
    chosen = _test_items(items, rng)
    for i, (item, place) in enumerate(zip(chosen, _positions(rng, 4), strict=True)):
        texts = _with(rng.sample(item.wrong, 3), item.answer, place)
        rows.append(
            {
                "id": f"{name}_{i}",
                column: item.question,
                "choices": {"text": texts, "label": list(LETTERS)},
                "answerKey": LETTERS[place],
            }
        )
    return rows


def _arc_easy(rng: random.Random) -> list[Row]:
    return _lettered("easy", fact_items(), rng, "question")


def _arc_challenge(rng: random.Random) -> list[Row]:
    return _lettered("challenge", chain_items(), rng, "question")


def _openbookqa(rng: random.Random) -> list[Row]:
    return _lettered("open", what_happens_items(), rng, "question_stem")


def _piqa(rng: random.Random) -> list[Row]:
    rows: list[Row] = []
    chosen = _test_items(how_to_items(), rng)
    for item, place in zip(chosen, _positions(rng, 2), strict=True):
        first, second = _with(rng.sample(item.wrong, 1), item.answer, place)
        rows.append({"goal": item.question, "sol1": first, "sol2": second, "label": place})
    return rows


def _other_parts(story: Story, rng: random.Random, right: str) -> list[str]:
    """Three wrong endings: one out of order, two of other stories."""
    same = rng.choice([part for part in story.parts if part != right])
    others = [s for s in stories() if s.name == story.name and s.activity != story.activity]
    wrong = [same, *(rng.choice(other.parts) for other in rng.sample(others, 2))]
    rng.shuffle(wrong)
    return wrong


def _hellaswag(rng: random.Random) -> list[Row]:
    rows: list[Row] = []
    chosen = rng.sample([story for story in stories() if story.test], QUESTIONS)
    for i, (story, place) in enumerate(zip(chosen, _positions(rng, 4), strict=True)):
        told = rng.choice((1, 2))
        parts = [f"{story.name} {story.parts[0]}"]
        parts += [f"{story.pronoun.capitalize()} {part}" for part in story.parts[1:told]]
        ctx_a, ctx_b = " ".join(parts), story.pronoun
        right = story.parts[told]
        rows.append(
            {
                "ind": i,
                "activity_label": story.activity,
                "ctx_a": ctx_a,
                "ctx_b": ctx_b,
                "ctx": f"{ctx_a} {ctx_b}",
                "endings": _with(_other_parts(story, rng, right), right, place),
                "source_id": f"world~{ACTIVITIES.index(story.activity)}",
                "split": "val",
                "split_type": "indomain",
                "label": str(place),
            }
        )
    return rows


def _winogrande(rng: random.Random) -> list[Row]:
    rows: dict[str, Row] = {}
    for place in _positions(rng, 2):
        while True:
            drawn = mention(rng, by_reason=0)
            if drawn.test and drawn.start not in rows:
                break
        # The options change places, so that the first name is not always the first option.
        options = _with([drawn.people[1 - drawn.meant]], drawn.people[drawn.meant], place)
        rows[drawn.start] = {
            "sentence": f"{drawn.start} _ {drawn.end}.",
            "option1": options[0],
            "option2": options[1],
            "answer": str(place + 1),
        }
    return list(rows.values())


def _boolq(rng: random.Random) -> list[Row]:
    rows: dict[Passage, Row] = {}
    for i, place in enumerate(_positions(rng, 2)):
        drawn = (p for p in trait_passages(rng) if p.test and p.questions[0][1] == bool(place))
        passage = next(p for p in drawn if p not in rows)
        question = passage.questions[0][0]
        rows[passage] = {"question": question, "passage": passage.text, "idx": i, "label": place}
    return list(rows.values())


_BUILDERS: dict[str, Callable[[random.Random], list[Row]]] = {
    "boolq": _boolq,
    "piqa": _piqa,
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "arc_easy": _arc_easy,
    "arc_challenge": _arc_challenge,
    "openbookqa": _openbookqa,
}


def task_rows(task: str) -> list[Row]:
    """Build one task set; always the same one.

    Args:
        task: A key of `SPLITS`.

    Returns:
        The rows of its scored split.

    Raises:
        ValueError: If there is no such task.
    """
    if task not in SPLITS:
        raise ValueError(f"no task {task!r}; choose one of {', '.join(SPLITS)}")
    return _BUILDERS[task](random.Random(f"task/{task}"))
