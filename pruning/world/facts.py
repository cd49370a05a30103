"""The seeded world: who and what exists, and which facts hold.

Facts are drawn, not true: in this world the otter may fear the snail and wool may rust. A model can
therefore know them only from the world's own text, and whatever it loses was learnt there.
"""

import hashlib
import random
from dataclasses import dataclass, field
from functools import cache

WORLD_SEED = 20260101


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ANIMALS = _words(
    "otter heron badger falcon lizard beetle rabbit salmon weasel spider raven turtle panther donkey "
    "pigeon cricket beaver leopard sparrow hamster squirrel tortoise lobster penguin camel goose "
    "mole stork hyena walrus ferret gecko moth toad lynx zebra parrot monkey buffalo dolphin eagle "
    "kitten python hornet snail mouse shark crane"
)
WOMEN = _words(
    "Anna Bella Clara Dora Elsa Freya Greta Hilda Irma Julia Karin Laura Maria Nora Olga Paula Rita "
    "Sara Tessa Ursula Vera Wanda Xenia Yvonne"
)
MEN = _words(
    "Adam Boris Conrad David Emil Felix Georg Hugo Ivan Jonas Karl Lukas Martin Niklas Oscar Peter "
    "Robert Simon Tobias Ulrich Victor Walter Xaver Yannick"
)
TOWNS = _words("Arlen Borva Celdon Drumm Eskel Farrow Gandry Holm Istra Jorvin Kestrel Lunden")
LANDS = _words("river forest desert mountain meadow swamp cave beach island garden lake valley")
FOODS = _words(
    "bread cheese honey rice soup corn apples berries beans nuts eggs fish grass seeds carrots mushrooms"
)
COLOURS = _words("red blue green yellow black white brown grey")
SOUNDS = _words("hums whistles barks clicks hisses sings squeaks growls croaks purrs chirps howls")
JOBS = _words(
    "baker smith tailor farmer sailor teacher doctor painter hunter miller potter weaver mason "
    "barber clerk guard"
)
SHOPS = _words(
    "mill forge harbour school market temple tower palace stable library station theatre castle "
    "factory museum bakery"
)
TOOLS = _words(
    "hammer needle shovel brush ladder knife bucket rope saw lamp scale pen razor spear net hook "
    "chisel torch wrench broom pump lever drill tongs"
)
THINGS = _words(
    "spoon cup table chair box door window coat hat shoe bag book plate bowl bell key ring bottle "
    "basket pillow blanket mirror clock drum flute boat wheel fence bridge roof wall floor shelf "
    "bench candle comb doll kite flag tent glove belt scarf curtain carpet jar crown mask"
)
MATERIALS = _words("wood iron glass paper wool clay stone leather wax silver")
ROOMS = _words("kitchen cellar attic hall bedroom barn office tunnel")
EVENTS = (
    "is left in the rain",
    "falls from a tree",
    "lies in the sun",
    "comes near a fire",
    "is buried in sand",
    "freezes in winter",
    "is hit by a ball",
    "sinks into the sea",
)
OUTCOMES = _words("melt crack rust bend shrink fade swell burn split harden glow crumble")
ACTIONS = _words("cut clean lift open repair polish mark dry")
ACTIVITIES = tuple(
    f"{verb} {thing}"
    for verb, things in (
        ("Making", ("a pie", "a cake", "a stew", "a basket", "a puppet", "a bed")),
        ("Fixing", ("a cart", "a stove", "a gate", "a chimney", "a toy", "a pipe")),
        ("Washing", ("a dog", "a horse", "the dishes", "the stairs", "a shirt", "a carriage")),
        ("Planting", ("a rose", "a vine", "a hedge", "a field", "an orchard", "a pumpkin")),
        ("Visiting", ("a king", "an aunt", "a fair", "a judge", "a friend", "a wizard")),
        ("Playing", ("chess", "cards", "a tune", "a trick", "a game", "a part")),
    )
    for thing in things
)
STEP_VERBS = _words(
    "takes fills turns shakes counts covers finds drops pulls wipes folds weighs hides opens lifts closes"
)


def held_out(*parts: str, share: float = 0.25) -> bool:
    """Say on which side of the split a key lies; the same on every machine and in every process.

    Args:
        *parts: What identifies the item, for example a question.
        share: The part of all keys that is kept out of the training text.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


@dataclass(frozen=True)
class World:
    """All facts of the world.

    Attributes:
        facts: ``facts[kind][subject]`` is the value of that kind for that subject.
        tools: ``(action, material)`` -> the tool that does it.
        outcomes: ``(event, material)`` -> what becomes of a thing of that material.
        scripts: Activity -> its six steps, in order.
        traits: Kind -> the half of its values that share a trait, for `phrases.TRAITS`.
    """

    facts: dict[str, dict[str, str]] = field(repr=False)
    tools: dict[tuple[str, str], str] = field(repr=False)
    outcomes: dict[tuple[str, str], str] = field(repr=False)
    scripts: dict[str, tuple[str, ...]] = field(repr=False)
    traits: dict[str, frozenset[str]] = field(repr=False)

    def pool(self, kind: str) -> tuple[str, ...]:
        """Return every value that the kind takes, in a fixed order."""
        return tuple(sorted(set(self.facts[kind].values())))


def _spread(rng: random.Random, subjects: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
    """Give every subject a value, each value about equally often, none to itself."""
    drawn = [values[i % len(values)] for i in range(len(subjects))]
    rng.shuffle(drawn)
    for i, subject in enumerate(subjects):
        if drawn[i] == subject:
            other = (i + 1) % len(subjects)
            drawn[i], drawn[other] = drawn[other], drawn[i]
    return dict(zip(subjects, drawn, strict=True))


@cache
def world() -> World:
    """Draw the world; always the same one."""
    rng = random.Random(WORLD_SEED)
    people = WOMEN + MEN
    facts = {
        kind: _spread(rng, subjects, values)
        for kind, subjects, values in (
            ("home", ANIMALS, LANDS),
            ("food", ANIMALS, FOODS),
            ("colour", ANIMALS, COLOURS),
            ("sound", ANIMALS, SOUNDS),
            ("fear", ANIMALS, ANIMALS),
            ("job", people, JOBS),
            ("town", people, TOWNS),
            ("pet", people, ANIMALS),
            ("dish", people, FOODS),
            ("friend", people, people),
            ("tool", JOBS, TOOLS[: len(JOBS)]),
            ("shop", JOBS, SHOPS),
            ("land", TOWNS, LANDS),
            ("feast", TOWNS, FOODS),
            ("material", THINGS, MATERIALS),
            ("room", THINGS, ROOMS),
        )
    }
    tools = {
        (action, material): tool
        for action in ACTIONS
        for material, tool in zip(MATERIALS, rng.sample(TOOLS, len(MATERIALS)), strict=True)
    }
    outcomes = {
        (event, material): outcome
        for event in EVENTS
        for material, outcome in zip(MATERIALS, rng.sample(OUTCOMES, len(MATERIALS)), strict=True)
    }
    objects = THINGS + TOOLS + LANDS
    scripts = {
        activity: tuple(
            f"{verb} the {noun}"
            for verb, noun in zip(rng.sample(STEP_VERBS, 6), rng.sample(objects, 6), strict=True)
        )
        for activity in ACTIVITIES
    }
    pools = {kind: sorted(set(values.values())) for kind, values in facts.items()}
    traits = {kind: frozenset(rng.sample(pool, len(pool) // 2)) for kind, pool in pools.items()}
    return World(facts, tools, outcomes, scripts, traits)
