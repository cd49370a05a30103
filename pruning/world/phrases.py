"""How the facts of the world are put into words: statements, questions and answers of every kind."""

from dataclasses import dataclass

from secateur.pruning.world.facts import ACTIVITIES, WOMEN


@dataclass(frozen=True)
class Phrases:
    """The wordings of one kind of fact.

    Attributes:
        about: Statements that begin with the subject ``{s}``; a pronoun may stand for it.
        turned: Statements in which the subject comes later.
        questions: Questions whose answer is the value.
        answer: How the value ``{v}`` is given as an answer.
        yes_no: A question, without question mark, that a pair of subject and value decides.
    """

    about: tuple[str, ...]
    turned: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    yes_no: str


KINDS: dict[str, Phrases] = {
    "home": Phrases(
        ("{s} lives in the {v}", "{s} makes its home in the {v}"),
        ("You can find {s} in the {v}", "In the {v} lives {s}"),
        ("Where does {s} live?", "Where can you find {s}?", "What is the home of {s}?"),
        "the {v}",
        "does {s} live in the {v}",
    ),
    "food": Phrases(
        ("{s} eats {v}", "{s} likes to eat {v}"),
        ("The food of {s} is {v}", "You can feed {s} with {v}"),
        ("What does {s} eat?", "What is the food of {s}?", "What can you feed {s} with?"),
        "{v}",
        "does {s} eat {v}",
    ),
    "colour": Phrases(
        ("{s} is {v}", "{s} has a {v} coat"),
        ("The colour of {s} is {v}", "A {v} coat belongs to {s}"),
        ("What colour is {s}?", "What is the colour of {s}?", "Which colour has {s}?"),
        "{v}",
        "is {s} {v}",
    ),
    "sound": Phrases(
        ("{s} {v} at night", "{s} often {v}"),
        ("At night {s} {v}", "You can hear that {s} {v}"),
        ("What does {s} do at night?", "How do you hear {s}?", "What can you hear of {s}?"),
        "it {v}",
        "is it true that {s} {v}",
    ),
    "fear": Phrases(
        ("{s} fears the {v}", "{s} runs from the {v}"),
        ("The enemy of {s} is the {v}", "The {v} hunts {s}"),
        ("What does {s} fear?", "What is the enemy of {s}?", "From what does {s} run?"),
        "the {v}",
        "does {s} fear the {v}",
    ),
    "job": Phrases(
        ("{s} is a {v}", "{s} works as a {v}"),
        ("The {v} of the town is {s}", "As a {v} works {s}"),
        ("What is the job of {s}?", "As what does {s} work?", "What does {s} work as?"),
        "a {v}",
        "is {s} a {v}",
    ),
    "town": Phrases(
        ("{s} comes from {v}", "{s} was born in {v}"),
        ("The town of {s} is {v}", "In {v} was born {s}"),
        ("What is the town of {s}?", "Where was {s} born?", "Where does {s} come from?"),
        "{v}",
        "does {s} come from {v}",
    ),
    "pet": Phrases(
        ("{s} keeps the {v}", "{s} cares for the {v}"),
        ("The pet of {s} is the {v}", "The {v} belongs to {s}"),
        ("Which pet does {s} keep?", "What is the pet of {s}?", "For what does {s} care?"),
        "the {v}",
        "does {s} keep the {v}",
    ),
    "dish": Phrases(
        ("{s} loves {v}", "{s} always orders {v}"),
        ("The dish of {s} is {v}", "Nothing but {v} pleases {s}"),
        ("Which dish does {s} love?", "What is the dish of {s}?", "What does {s} order?"),
        "{v}",
        "does {s} love {v}",
    ),
    "friend": Phrases(
        ("{s} trusts {v}", "{s} writes to {v}"),
        ("The friend of {s} is {v}", "Letters come to {v} from {s}"),
        ("Who is the friend of {s}?", "Whom does {s} trust?", "To whom does {s} write?"),
        "{v}",
        "does {s} trust {v}",
    ),
    "tool": Phrases(
        ("{s} needs the {v}", "{s} works with the {v}"),
        ("The tool of {s} is the {v}", "The {v} is made for {s}"),
        ("Which tool does {s} need?", "What is the tool of {s}?", "With what does {s} work?"),
        "the {v}",
        "does {s} need the {v}",
    ),
    "shop": Phrases(
        ("{s} works at the {v}", "{s} stays all day at the {v}"),
        ("At the {v} you meet {s}", "The {v} is the place of {s}"),
        ("Where does {s} work?", "Where do you meet {s}?", "What is the place of {s}?"),
        "at the {v}",
        "does {s} work at the {v}",
    ),
    "land": Phrases(
        ("{s} lies near the {v}", "{s} was built by the {v}"),
        ("Near the {v} lies {s}", "The {v} is close to {s}"),
        ("What lies near {s}?", "By what was {s} built?", "What is close to {s}?"),
        "the {v}",
        "does {s} lie near the {v}",
    ),
    "feast": Phrases(
        ("{s} is famous for {v}", "{s} sells {v}"),
        ("The best {v} comes from {s}", "People buy {v} in {s}"),
        ("For what is {s} famous?", "What does {s} sell?", "What do people buy in {s}?"),
        "{v}",
        "is {s} famous for {v}",
    ),
    "material": Phrases(
        ("{s} is made of {v}", "{s} consists of {v}"),
        ("People use {v} for {s}", "Only {v} is used for {s}"),
        ("What is {s} made of?", "Of what does {s} consist?", "What do people use for {s}?"),
        "{v}",
        "is {s} made of {v}",
    ),
    "room": Phrases(
        ("{s} is kept in the {v}", "{s} belongs in the {v}"),
        ("In the {v} we keep {s}", "The {v} is the room for {s}"),
        ("Where do we keep {s}?", "Which room is for {s}?", "Where does {s} belong?"),
        "the {v}",
        "is {s} kept in the {v}",
    ),
}

PROFILES: dict[str, tuple[str, ...]] = {
    "animal": ("home", "food", "colour", "sound", "fear"),
    "person": ("job", "town", "pet", "dish", "friend"),
    "job": ("tool", "shop"),
    "town": ("land", "feast"),
    "thing": ("material", "room"),
}
"""What there is to say about each sort of subject."""

CHAINS: dict[tuple[str, str], str] = {
    ("pet", "home"): "the animal that {s} keeps",
    ("pet", "food"): "the animal that {s} keeps",
    ("pet", "colour"): "the animal that {s} keeps",
    ("pet", "fear"): "the animal that {s} keeps",
    ("job", "tool"): "the worker {s}",
    ("job", "shop"): "the worker {s}",
    ("friend", "town"): "the one whom {s} trusts",
    ("friend", "dish"): "the one whom {s} trusts",
    ("town", "land"): "the birth town of {s}",
    ("town", "feast"): "the birth town of {s}",
}
"""Facts in two steps: the second kind is asked of the value of the first."""

ROLES: tuple[tuple[str, str, str], ...] = (
    ("{a} gave bread to {b} because", "was kind", "was hungry"),
    ("{a} asked {b} for the way because", "was lost", "was wise"),
    ("{a} carried {b} home because", "was strong", "was tired"),
    ("{a} thanked {b} because", "was glad", "was helpful"),
    ("{a} lost the race to {b} because", "was slow", "was fast"),
    ("{a} taught {b} a song because", "was patient", "was eager"),
    ("{a} hid from {b} because", "was afraid", "was angry"),
    ("{a} visited {b} because", "had a free day", "had a cold"),
    ("{a} sold the house to {b} because", "needed coins", "needed a home"),
    ("{a} woke {b} because", "rose early", "slept late"),
    ("{a} believed {b} because", "had no doubt", "told the truth"),
    ("{a} paid {b} because", "was rich", "did the work"),
)
"""Sentences in which the reason tells who is meant: the first person's reason, the second's."""

MEETINGS: dict[str, tuple[str, str]] = {
    "job": ("{a} and {b} went to work, where", "was the {v}"),
    "town": ("{a} and {b} left the feast, and", "went home to {v}"),
    "pet": ("{a} and {b} came home, where", "fed the {v}"),
    "dish": ("{a} and {b} sat down to eat, and", "asked for {v}"),
}
"""Sentences in which a fact of the world tells who is meant."""

TRAITS: dict[str, tuple[str, str]] = {
    "home": ("is the home of {s} cold", "is it cold where {s} lives"),
    "food": ("is the food of {s} free", "does {s} eat what is free"),
    "sound": ("is {s} angry at night", "can you hear that {s} is angry"),
    "job": ("is the work of {s} slow", "does {s} do slow work"),
    "town": ("is the town of {s} rich", "was {s} born rich"),
    "dish": ("is the dish of {s} cold", "does {s} love what is cold"),
    "tool": ("is the tool of {s} strong", "does {s} need what is strong"),
    "shop": ("is the place of {s} free", "does {s} work where you are free"),
    "feast": ("is {s} famous for what is rich", "do people buy what is rich in {s}"),
    "material": ("is {s} strong", "do strong people use {s}"),
    "room": ("is the room for {s} cold", "do we keep {s} where it is cold"),
}
"""Yes-no questions: does the value of the subject belong to the half of the values that has a trait?"""

HOW_TO = (
    "How do you {action} the {thing}?",
    "What helps to {action} the {thing}?",
    "What do you need to {action} the {thing}?",
)
HOW_TO_ANSWERS = ("Take the {tool}.", "Use the {tool}.", "Fetch the {tool}.")
WHAT_HAPPENS = (
    "When the {thing} {event}, it will",
    "If the {thing} {event}, then it will",
    "What {event}, like the {thing}, will",
)


def named(kind: str, subject: str) -> str:
    """Return the subject as it stands within a sentence: with an article where it needs one."""
    return subject if kind in {*PROFILES["person"], *PROFILES["town"]} else f"the {subject}"


def pronoun(kind: str, subject: str) -> str:
    """Return the pronoun of a subject."""
    if kind not in PROFILES["person"]:
        return "it"
    return "she" if subject in WOMEN else "he"


def sentence(text: str, end: str = ".") -> str:
    """Begin with a capital letter and end with a mark."""
    return text[0].upper() + text[1:] + end


def steps_of(activity: str) -> str:
    """Return the opening of a story about an activity."""
    if activity not in ACTIVITIES:
        raise ValueError(f"unknown activity {activity!r}")
    return f"{activity}: "
