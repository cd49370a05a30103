"""Question items that practice in the training text and the task sets share, split into two sides.

An item is on one side for good: by a hash of what it asks, never by a draw. So the text can practise
freely on its side, and no question of a task can appear in it.
"""

from dataclasses import dataclass
from functools import cache

from secateur.pruning.world.facts import ACTIONS, EVENTS, THINGS, held_out, world
from secateur.pruning.world.phrases import (
    CHAINS,
    HOW_TO,
    HOW_TO_ANSWERS,
    KINDS,
    WHAT_HAPPENS,
    named,
    sentence,
)


@dataclass(frozen=True)
class Item:
    """One question with its answer.

    Attributes:
        question: The prompt.
        answer: The right answer.
        wrong: Every wrong answer that may stand beside it.
        test: Whether the item is kept for the task sets.
    """

    question: str
    answer: str
    wrong: tuple[str, ...]
    test: bool


def _item(question: str, answer: str, answers: list[str], key: tuple[str, ...]) -> Item:
    wrong = tuple(sorted(set(answers) - {answer}))
    return Item(sentence(question, ""), answer, wrong, held_out(*key))


@cache
def fact_items() -> tuple[Item, ...]:
    """Questions for one fact: every kind, subject and wording."""
    items: list[Item] = []
    for kind, phrases in KINDS.items():
        answers = [phrases.answer.format(v=v) for v in world().pool(kind)]
        for subject, value in world().facts[kind].items():
            for question in phrases.questions:
                asked = question.format(s=named(kind, subject))
                items.append(_item(asked, phrases.answer.format(v=value), answers, (asked,)))
    return tuple(items)


@cache
def chain_items() -> tuple[Item, ...]:
    """Questions in two steps: a fact about the animal, worker, friend or town of a person."""
    items: list[Item] = []
    for (first, second), who in CHAINS.items():
        phrases = KINDS[second]
        answers = [phrases.answer.format(v=v) for v in world().pool(second)]
        for subject, middle in world().facts[first].items():
            value = phrases.answer.format(v=world().facts[second][middle])
            for question in phrases.questions:
                asked = question.format(s=who.format(s=subject))
                items.append(_item(asked, value, answers, (asked,)))
    return tuple(items)


@cache
def how_to_items() -> tuple[Item, ...]:
    """Which tool does something to a thing: by way of what the thing is made of."""
    items: list[Item] = []
    for action in ACTIONS:
        tools = [tool for (other, _), tool in world().tools.items() if other == action]
        for thing in THINGS:
            tool = world().tools[action, world().facts["material"][thing]]
            items += [
                _item(
                    question.format(action=action, thing=thing),
                    answer.format(tool=tool),
                    [answer.format(tool=other) for other in tools],
                    ("how to", action, thing),
                )
                for question in HOW_TO
                for answer in HOW_TO_ANSWERS
            ]
    return tuple(items)


@cache
def what_happens_items() -> tuple[Item, ...]:
    """What becomes of a thing: by way of what it is made of."""
    items: list[Item] = []
    for event in EVENTS:
        outcomes = [out for (other, _), out in world().outcomes.items() if other == event]
        for thing in THINGS:
            outcome = world().outcomes[event, world().facts["material"][thing]]
            for stem in WHAT_HAPPENS:
                asked = stem.format(event=event, thing=thing)
                items.append(_item(asked, outcome, outcomes, ("happens", event, thing)))
    return tuple(items)
