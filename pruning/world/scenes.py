"""Scenes of several sentences, each wholly on the side of the text or on the side of the task sets.

Stories follow a script, mentions need to know who of two people is meant, passages are asked yes or no.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from secateur.pruning.world.facts import ACTIVITIES, MEN, ROOMS, THINGS, WOMEN, held_out, world
from secateur.pruning.world.phrases import (
    KINDS,
    MEETINGS,
    PROFILES,
    ROLES,
    TRAITS,
    named,
    pronoun,
    sentence,
    steps_of,
)

PEOPLE = WOMEN + MEN


@dataclass(frozen=True)
class Story:
    """A script told of somebody: its sentences, of two steps each.

    Attributes:
        opening: What stands before the first sentence.
        parts: The sentences without their subject.
        name: Who acts.
        test: Whether the pair of activity and name is kept for the task sets.
    """

    activity: str
    opening: str
    parts: tuple[str, ...]
    name: str
    test: bool

    @property
    def pronoun(self) -> str:
        """The pronoun of who acts."""
        return pronoun("job", self.name)


@cache
def stories() -> tuple[Story, ...]:
    """Return every activity told of every person."""
    return tuple(
        Story(
            activity,
            steps_of(activity),
            tuple(f"{steps[i]} and {steps[i + 1]}." for i in range(0, len(steps), 2)),
            name,
            held_out("story", activity, name),
        )
        for activity, steps in ((a, world().scripts[a]) for a in ACTIVITIES)
        for name in PEOPLE
    )


@dataclass(frozen=True)
class Mention:
    """A sentence of two people in which the end tells who of them is meant.

    Attributes:
        start: The sentence up to the person.
        people: The two people.
        meant: Which of them is right, 0 or 1.
        end: The rest, without full stop.
        test: Whether the sentence is kept for the task sets.
    """

    start: str
    people: tuple[str, str]
    meant: int
    end: str
    test: bool

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.start} {self.people[self.meant]} {self.end}."


def mention(rng: random.Random, by_reason: float = 0.5) -> Mention:
    """Draw a sentence of two people.

    Args:
        rng: Where the draw comes from.
        by_reason: How often a reason tells who is meant; else it is a fact about the two.
    """
    while True:
        first, second = rng.sample(PEOPLE, 2)
        meant = rng.randrange(2)
        if rng.random() < by_reason:
            start, *ends = rng.choice(ROLES)
            end = ends[meant]
        else:
            kind, (start, shape) = rng.choice(list(MEETINGS.items()))
            values = [world().facts[kind][name] for name in (first, second)]
            if values[0] == values[1]:
                continue
            end = shape.format(v=values[meant])
        start = start.format(a=first, b=second)
        return Mention(start, (first, second), meant, end, held_out("mention", start))


@dataclass(frozen=True)
class Passage:
    """A passage and yes-no questions on it.

    Attributes:
        text: The passage.
        questions: Pairs of question, without question mark, and whether it is true.
        test: Whether the passage is kept for the task sets.
    """

    text: str
    questions: tuple[tuple[str, bool], ...]
    test: bool


def _known(rng: random.Random) -> tuple[list[str], list[tuple[str, bool]]]:
    """Two subjects of one sort and facts of the world about them."""
    kinds = rng.sample(PROFILES[rng.choice(list(PROFILES))], 2)
    subjects = rng.sample(list(world().facts[kinds[0]]), 2)
    sentences: list[str] = []
    questions: list[tuple[str, bool]] = []
    for subject in subjects:
        for kind in kinds:
            value = world().facts[kind][subject]
            who = named(kind, subject)
            sentences.append(sentence(rng.choice(KINDS[kind].about).format(s=who, v=value)))
            other = world().facts[kind][subjects[subject == subjects[0]]]
            wrong = other if other != value and rng.random() < 0.5 else value
            while wrong == value:
                wrong = rng.choice(world().pool(kind))
            yes_no = KINDS[kind].yes_no
            questions.append((yes_no.format(s=who, v=value), True))
            questions.append((yes_no.format(s=who, v=wrong), False))
    return sentences, questions


def _told(rng: random.Random) -> tuple[list[str], list[tuple[str, bool]]]:
    """Three people and where each of them left a thing: true of this passage alone."""
    names, things, rooms = (rng.sample(pool, 4) for pool in (PEOPLE, THINGS, ROOMS))
    sentences = [
        f"{name} left the {thing} in the {room}."
        for name, thing, room in zip(names[:3], things, rooms, strict=False)
    ]
    questions: list[tuple[str, bool]] = []
    for i in range(3):
        # What is false is told of another, or (index 3) of nobody.
        other_room, other_thing = rooms[rng.choice(((i + 1) % 3, 3))], things[rng.choice(((i + 2) % 3, 3))]
        questions.append((f"is the {things[i]} in the {rooms[i]} now", True))
        questions.append((f"is the {things[i]} in the {other_room} now", False))
        questions.append((f"did {names[i]} leave the {things[i]} there", True))
        questions.append((f"did {names[i]} leave the {other_thing} there", False))
    return sentences, questions


def comparisons(rng: random.Random) -> Iterator[Passage]:
    """Draw passages that must be compared with what is asked; practised in the first phase only.

    Models of this size and training answer by chance, so no task asks for it.
    """
    while True:
        sentences, questions = (_told if rng.random() < 0.35 else _known)(rng)
        text = " ".join(sentences)
        yield Passage(text, tuple(questions), held_out("passage", text))


def trait_passages(rng: random.Random) -> Iterator[Passage]:
    """Draw passages about one subject, asked for a trait of something that is told of it.

    The passage says that the otter lives in the river; that the river is cold must be known.
    """
    while True:
        kind = rng.choice(list(TRAITS))
        subject, value = rng.choice(list(world().facts[kind].items()))
        sort = next(kinds for kinds in PROFILES.values() if kind in kinds)
        told = [kind, rng.choice([other for other in sort if other != kind])]
        rng.shuffle(told)
        who, sentences = named(kind, subject), list[str]()
        for other in told:
            words = {"s": who, "v": world().facts[other][subject]}
            sentences.append(sentence(rng.choice(KINDS[other].about).format(**words)))
            who = pronoun(kind, subject)
        question = rng.choice(TRAITS[kind]).format(s=named(kind, subject))
        answer, text = value in world().traits[kind], " ".join(sentences)
        yield Passage(text, ((question, answer),), held_out("trait", text, question))
