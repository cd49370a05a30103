"""The seven zero-shot tasks that every table shows, in its order: the one place that knows them. No torch here."""

from typing import NamedTuple


class ZeroShot(NamedTuple):
    """One of the seven.

    Attributes:
        name: Its name in lm-eval and in our tables.
        metric: Which of its accuracies enters the mean of the seven.
        split: What the stock task scores.
        stock: Its YAML below lm-eval's folder of tasks.
        chance: Accuracy of guessing.
    """

    name: str
    metric: str
    split: str
    stock: str
    chance: float


SEVEN = (
    ZeroShot("boolq", "acc", "validation", "super_glue/boolq/default.yaml", 0.5),
    ZeroShot("piqa", "acc_norm", "validation", "piqa/piqa.yaml", 0.5),
    ZeroShot("hellaswag", "acc_norm", "validation", "hellaswag/hellaswag.yaml", 0.25),
    ZeroShot("winogrande", "acc", "validation", "winogrande/default.yaml", 0.5),
    ZeroShot("arc_easy", "acc_norm", "test", "arc/arc_easy.yaml", 0.25),
    ZeroShot("arc_challenge", "acc_norm", "test", "arc/arc_challenge.yaml", 0.25),
    ZeroShot("openbookqa", "acc_norm", "test", "openbookqa/openbookqa.yaml", 0.25),
)

TASKS = tuple(task.name for task in SEVEN)
METRIC = {task.name: task.metric for task in SEVEN}
SPLIT = {task.name: task.split for task in SEVEN}
STOCK = {task.name: task.stock for task in SEVEN}
CHANCE = {task.name: task.chance for task in SEVEN}
