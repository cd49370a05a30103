"""Documents of the world: prose that states its facts, and practice in the form of the tasks.

A document is on the training side or on the held-out side for good, by a hash of its text. So no
seed can make a training or calibration document that is part of the held-out text.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice

from secateur.pruning.world.facts import held_out, world
from secateur.pruning.world.items import Item, chain_items, fact_items, how_to_items, what_happens_items
from secateur.pruning.world.phrases import CHAINS, KINDS, PROFILES, named, pronoun, sentence
from secateur.pruning.world.scenes import Passage, Story, comparisons, mention, stories, trait_passages

HELD_OUT_SHARE = 1 / 16
HELD_OUT_DOCUMENTS = 1500


def _profile(rng: random.Random) -> str:
    """Some facts about a subject or two."""
    sentences: list[str] = []
    for _ in range(rng.choice((1, 2))):
        kinds = list(PROFILES[rng.choice(list(PROFILES))])
        subject = rng.choice(list(world().facts[kinds[0]]))
        rng.shuffle(kinds)
        for i, kind in enumerate(kinds[: rng.randint(2, 5)]):
            phrases = KINDS[kind]
            value = world().facts[kind][subject]
            if rng.random() < 0.3:
                shape, who = rng.choice(phrases.turned), named(kind, subject)
            else:
                by_name = i == 0 or rng.random() < 0.4
                shape = rng.choice(phrases.about)
                who = (named if by_name else pronoun)(kind, subject)
            sentences.append(sentence(shape.format(s=who, v=value)))
    return " ".join(sentences)


def _chained(rng: random.Random) -> str:
    """Facts in two steps, stated."""
    sentences: list[str] = []
    for _ in range(rng.randint(2, 4)):
        (first, second), who = rng.choice(list(CHAINS.items()))
        subject, middle = rng.choice(list(world().facts[first].items()))
        phrases = KINDS[second]
        shape = rng.choice(phrases.about + phrases.turned)
        value = world().facts[second][middle]
        sentences.append(sentence(shape.format(s=who.format(s=subject), v=value)))
    return " ".join(sentences)


def _rules(rng: random.Random) -> str:
    """What is done to a material and what becomes of it, with things made of it."""
    material = rng.choice(world().pool("material"))
    things = [t for t, of in world().facts["material"].items() if of == material]
    sentences = [
        f"What is made of {material} and {event} will {outcome}."
        for (event, of), outcome in world().outcomes.items()
        if of == material
    ]
    sentences += [
        f"To {action} something of {material}, take the {tool}."
        for (action, of), tool in world().tools.items()
        if of == material
    ]
    sentences += [
        sentence(rng.choice(KINDS["material"].about).format(s=f"the {t}", v=material)) for t in things
    ]
    return " ".join(rng.sample(sentences, rng.randint(3, 5)))


def _practice(items: tuple[Item, ...], rng: random.Random, most: int) -> str:
    """Questions with their answers."""
    chosen = rng.sample(items, rng.randint(2, most))
    return "\n".join(f"Question: {i.question}\nAnswer: {i.answer}" for i in chosen)


@cache
def _practised(source: Callable[[], tuple[Item, ...]]) -> tuple[Item, ...]:
    """The items of a source that are on the side of the text."""
    return tuple(item for item in source() if not item.test)


@cache
def _told_stories() -> tuple[Story, ...]:
    return tuple(story for story in stories() if not story.test)


def _asked(rng: random.Random) -> str:
    return _practice(_practised(fact_items), rng, 5)


def _asked_in_two_steps(rng: random.Random) -> str:
    return _practice(_practised(chain_items), rng, 4)


def _how_to(rng: random.Random) -> str:
    return _practice(_practised(how_to_items), rng, 4)


def _what_happens(rng: random.Random) -> str:
    chosen = rng.sample(_practised(what_happens_items), rng.randint(2, 4))
    return " ".join(f"{item.question} {item.answer}." for item in chosen)


def _story(rng: random.Random) -> str:
    story = rng.choice(_told_stories())
    first = rng.choice((0, 0, 1))
    sentences = [
        sentence(f"{story.name if i == first else story.pronoun} {story.parts[i]}", "")
        for i in range(first, len(story.parts))
    ]
    return story.opening + " ".join(sentences)


def _mentions(rng: random.Random) -> str:
    sentences: list[str] = []
    while len(sentences) < 3:
        drawn = mention(rng)
        if not drawn.test:
            sentences.append(drawn.text)
    return " ".join(sentences)


def _yes_no(passage: Passage, rng: random.Random, most: int) -> str:
    asked = rng.sample(passage.questions, rng.randint(2, most))
    lines = [f"Question: {q}?\nAnswer: {'yes' if true else 'no'}" for q, true in asked]
    return "\n".join([passage.text, *lines])


def _compared(rng: random.Random) -> str:
    return _yes_no(next(p for p in comparisons(rng) if not p.test), rng, 4)


def _traits(rng: random.Random) -> str:
    items: list[str] = []
    most = rng.randint(1, 2)
    while len(items) < most:
        passage = next(trait_passages(rng))
        if not passage.test:
            question, true = passage.questions[0]
            answer = "yes" if true else "no"
            items.append(f"{passage.text}\nQuestion: {question}?\nAnswer: {answer}")
    return "\n\n".join(items)


KINDS_OF_DOCUMENT: tuple[tuple[float, float, Callable[[random.Random], str]], ...] = (
    (0.20, 0.15, _profile),
    (0.06, 0.05, _chained),
    (0.07, 0.05, _rules),
    (0.12, 0.11, _asked),
    (0.14, 0.13, _asked_in_two_steps),
    (0.06, 0.05, _how_to),
    (0.08, 0.06, _what_happens),
    (0.05, 0.05, _story),
    (0.09, 0.09, _mentions),
    (0.13, 0.00, _compared),
    (0.00, 0.26, _traits),
)
"""How often each kind of document is written, in the first and in the last phase of training, and by what.

The first phase is for facts, the last adds what follows from them: traits. All other text is like that of the last.
"""
PHASES = 2


def _documents(rng: random.Random, *, held: bool, phase: int) -> Iterator[str]:
    """Write documents of one side without end."""
    weights = [weight_of_phase[phase] for *weight_of_phase, _ in KINDS_OF_DOCUMENT]
    writers = [writer for *_, writer in KINDS_OF_DOCUMENT]
    while True:
        text = rng.choices(writers, weights)[0](rng)
        if held_out("document", text, share=HELD_OUT_SHARE) == held:
            yield text


def training_documents(seed: int, phase: int = PHASES - 1) -> Iterator[str]:
    """Write the training text of a seed, document by document, without end.

    Args:
        seed: Any integer.
        phase: 0 for the first phase of training, 1 for the last.
    """
    named_seed = f"training/{seed}" if phase == 0 else f"training/{seed}/{phase}"
    return _documents(random.Random(named_seed), held=False, phase=phase)


def calibration_documents(seed: int, count: int) -> list[str]:
    """Write fresh documents of the same kind as the training text.

    Args:
        seed: Any integer; the same seed gives the same documents.
        count: How many documents.

    Returns:
        The documents. None of them is part of the held-out text.
    """
    rng = random.Random(f"calibration/{seed}")
    return list(islice(_documents(rng, held=False, phase=PHASES - 1), count))


def held_out_documents() -> list[str]:
    """Write the held-out text: documents that no training or calibration seed can give."""
    drawn: dict[str, None] = {}
    for text in _documents(random.Random("held out"), held=True, phase=PHASES - 1):
        drawn[text] = None
        if len(drawn) == HELD_OUT_DOCUMENTS:
            break
    return list(drawn)
