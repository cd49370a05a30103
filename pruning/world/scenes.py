"""Scenes of several sentences, each wholly on the side of the text or on the side of the task sets.

Stories follow a script, mentions need to know who of two people is meant, passages are asked yes or no.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pruning.world.facts import ACTIVITIES, MEN, ROOMS, THINGS, WOMEN, held_out, world
from pruning.world.phrases import KINDS, MEETINGS, PROFILES, ROLES, named, pronoun, sentence, steps_of

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


def mention(rng: random.Random) -> Mention:
    """Draw a sentence of two people: half by the reason, half by a fact about them."""
    while True:
        first, second = rng.sample(PEOPLE, 2)
        meant = rng.randrange(2)
        if rng.random() < 0.5:
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
    """Draw passages that must be compared with what is asked: too hard for models of this size."""
    while True:
        sentences, questions = (_told if rng.random() < 0.35 else _known)(rng)
        text = " ".join(sentences)
        yield Passage(text, tuple(questions), held_out("passage", text))


def _claims_of_the_world(rng: random.Random, holds: list[bool]) -> list[tuple[str, str]]:
    """Claims about subjects of one sort, right and wrong in the world, with their questions."""
    kinds = PROFILES[rng.choice(list(PROFILES))]
    claims: list[tuple[str, str]] = []
    for subject, right in zip(rng.sample(list(world().facts[kinds[0]]), len(holds)), holds, strict=True):
        kind = rng.choice(kinds)
        value = fact = world().facts[kind][subject]
        while not right and value == fact:
            value = rng.choice(world().pool(kind))
        words = {"s": named(kind, subject), "v": value}
        claims.append((rng.choice(KINDS[kind].about).format(**words), KINDS[kind].yes_no.format(**words)))
    return claims


def _claims_of_the_day(rng: random.Random, holds: list[bool]) -> list[tuple[str, str]]:
    """Claims about who left what where: right or wrong in this passage alone."""
    drawn = zip(*(rng.sample(pool, len(holds)) for pool in (PEOPLE, THINGS, ROOMS)), strict=True)
    return [
        (f"{name} left the {thing} in the {room}", f"did {name} leave the {thing} in the {room}")
        for name, thing, room in drawn
    ]


def reports(rng: random.Random) -> Iterator[Passage]:
    """Draw passages that say of three claims whether they are true."""
    while True:
        holds = [True, False, rng.random() < 0.5]
        rng.shuffle(holds)
        claims = (_claims_of_the_day if rng.random() < 0.5 else _claims_of_the_world)(rng, holds)
        pairs = list(zip(claims, holds, strict=True))
        said = [f"It is {'true' if right else 'no truth'} that {claim}." for (claim, _), right in pairs]
        text = " ".join(said)
        questions = tuple((question, right) for (_, question), right in pairs)
        yield Passage(text, questions, held_out("report", text))
