"""The shipped test bench: its data can be rebuilt, its questions are new, its models are trained."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from secateur.pruning.world import data
from secateur.pruning.world.bundle import MODELS, data_dir, model_dir
from secateur.pruning.world.facts import WOMEN, world
from secateur.pruning.world.items import chain_items, fact_items, how_to_items, what_happens_items
from secateur.pruning.world.tasks import QUESTIONS, SPLITS, task_rows
from secateur.pruning.world.text import calibration_documents, held_out_documents, training_documents

COLUMNS = {
    "boolq": {"question": str, "passage": str, "idx": int, "label": int},
    "piqa": {"goal": str, "sol1": str, "sol2": str, "label": int},
    "hellaswag": {
        "ind": int,
        "activity_label": str,
        "ctx_a": str,
        "ctx_b": str,
        "ctx": str,
        "endings": list,
        "source_id": str,
        "split": str,
        "split_type": str,
        "label": str,
    },
    "winogrande": {"sentence": str, "option1": str, "option2": str, "answer": str},
    "arc_easy": {"id": str, "question": str, "choices": dict, "answerKey": str},
    "arc_challenge": {"id": str, "question": str, "choices": dict, "answerKey": str},
    "openbookqa": {"id": str, "question_stem": str, "choices": dict, "answerKey": str},
}
OF_FOUR = {"hellaswag", "arc_easy", "arc_challenge", "openbookqa"}
GOLD = {"boolq": "label", "piqa": "label", "hellaswag": "label", "winogrande": "answer"}


def asked(task, row):
    """The text that only the task set may hold."""
    if task == "winogrande":
        return row["sentence"].split("_")[0].strip()
    if task == "boolq":
        return f"{row['passage']}\nQuestion: {row['question']}?"
    column = {"piqa": "goal", "hellaswag": "ctx_a", "openbookqa": "question_stem"}
    text = row[column.get(task, "question")]
    return f"{row['activity_label']}: {text}" if task == "hellaswag" else text


def choices(task, row):
    if task == "boolq":
        return ["no", "yes"]
    if task == "piqa":
        return [row["sol1"], row["sol2"]]
    if task == "winogrande":
        return [row["option1"], row["option2"]]
    return row["endings"] if task == "hellaswag" else row["choices"]["text"]


def shipped(path):
    return [json.loads(line) for line in (data_dir() / path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def training_text():
    """A sample of training and calibration text, as one string."""
    return "\n\n".join(
        [d for phase in (0, 1) for d in islice(training_documents(1, phase), 6000)]
        + calibration_documents(1, 3000)
    )


def test_rebuilt_data_is_the_shipped_data():
    manifest = json.loads((data_dir() / data.MANIFEST).read_text(encoding="utf-8"))
    built = data.files()
    assert data.manifest(built) == manifest
    for path, rows in built.items():
        assert shipped(path) == rows
        text = (data_dir() / path).read_bytes()
        assert hashlib.sha256(text).hexdigest() == manifest[path]["sha256"]
    on_disk = {p.relative_to(data_dir()).as_posix() for p in data_dir().rglob("*.jsonl")}
    assert on_disk == set(manifest)


def test_data_and_text_do_not_depend_on_the_hash_seed():
    code = (
        "import json, sys; from secateur.pruning.world import data; from secateur.pruning.world.text import *\n"
        "print(json.dumps([data.manifest(data.files()), calibration_documents(3, 50)]))\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "20")
    }
    assert len(outputs) == 1
    assert json.loads(outputs.pop())[1] == calibration_documents(3, 50)


@pytest.mark.parametrize("task", SPLITS)
def test_rows_have_the_columns_that_lm_eval_reads(task):
    rows = shipped(f"tasks/{task}/{SPLITS[task]}.jsonl")
    assert len(rows) == QUESTIONS
    for row in rows:
        assert {key: type(value) for key, value in row.items()} == COLUMNS[task]
        given = choices(task, row)
        assert len(set(given)) == len(given) == (4 if task in OF_FOUR else 2)
        assert all(isinstance(text, str) and text == text.strip() != "" for text in given)
    if task == "winogrande":
        assert all(row["sentence"].count("_") == 1 for row in rows)
    if task == "hellaswag":
        assert all(row["ctx"] == f"{row['ctx_a']} {row['ctx_b']}" for row in rows)
        texts = [text for row in rows for text in (row["activity_label"], row["ctx"], *row["endings"])]
        assert not [text for text in texts if "[" in text or "  " in text]  # lm-eval would alter them
    if "choices" in COLUMNS[task]:
        assert all(row["choices"]["label"] == ["A", "B", "C", "D"] for row in rows)


@pytest.mark.parametrize("task", SPLITS)
def test_labels_are_balanced(task):
    counts = Counter(row[GOLD.get(task, "answerKey")] for row in task_rows(task))
    assert len(counts) == (4 if task in OF_FOUR else 2)
    assert set(counts.values()) == {QUESTIONS // len(counts)}


@pytest.mark.parametrize("task", SPLITS)
def test_no_question_is_asked_twice_or_in_the_training_text(task, training_text):
    questions = [asked(task, row) for row in task_rows(task)]
    assert len(set(questions)) == QUESTIONS
    assert not [question for question in questions if question in training_text]


def test_practised_questions_do_stand_in_the_training_text(training_text):
    """The control of the test above: the other side of the split is found by the same search."""
    for items in (fact_items(), chain_items(), how_to_items(), what_happens_items()):
        practised = [item for item in items if not item.test][::20]
        found = sum(item.question in training_text for item in practised)
        assert found > 0.8 * len(practised)


def test_answers_hold_in_the_world():
    facts = world().facts
    for row in task_rows("arc_easy"):
        match = re.fullmatch(r"What is the pet of (\w+)\?", row["question"])
        if match:
            right = row["choices"]["text"][ord(row["answerKey"]) - ord("A")]
            assert right == f"the {facts['pet'][match[1]]}"
    for row in task_rows("openbookqa"):
        stem = row["question_stem"]
        thing = next(t for t in facts["material"] if f"the {t} " in stem or f"the {t}," in stem)
        event = next(e for e, _ in world().outcomes if e in stem)
        right = row["choices"]["text"][ord(row["answerKey"]) - ord("A")]
        assert right == world().outcomes[event, facts["material"][thing]]
    for row in task_rows("hellaswag"):
        steps = world().scripts[row["activity_label"]]
        told = row["ctx_a"].count(".")
        assert row["endings"][int(row["label"])] == f"{steps[2 * told]} and {steps[2 * told + 1]}."
        assert (row["ctx_b"] == "she") == (row["ctx_a"].split()[0] in WOMEN)
    for row in task_rows("boolq"):
        match = re.fullmatch(
            r"is the home of the (\w+) cold|is it cold where the (\w+) lives", row["question"]
        )
        if match:
            home = facts["home"][match[1] or match[2]]
            assert home in row["passage"]
            assert (home in world().traits["home"]) == bool(row["label"])
    for row in task_rows("winogrande"):
        match = re.fullmatch(r".* left the feast, and _ went home to (\w+)\.", row["sentence"])
        if match:
            people = (row["option1"], row["option2"])
            towns = [facts["town"][name] for name in people]
            assert towns.index(match[1]) + 1 == int(row["answer"])
            assert towns[0] != towns[1]


def test_the_world_is_full():
    facts = world().facts
    assert sum(map(len, facts.values())) >= 600
    assert all(subject != value for kind in facts.values() for subject, value in kind.items())
    for kind, values in facts.items():
        counts = Counter(values.values())
        assert max(counts.values()) - min(counts.values()) <= 1, kind


def test_held_out_text_is_in_no_training_or_calibration_text():
    held = held_out_documents()
    assert len(set(held)) == len(held) == len(shipped(data.TEXT_FILE))
    for documents in (calibration_documents(0, 6000), list(islice(training_documents(2), 6000))):
        assert not set(held) & set(documents)


def test_calibration_documents_follow_their_seed():
    assert calibration_documents(5, 20) == calibration_documents(5, 30)[:20]
    assert calibration_documents(5, 20) != calibration_documents(6, 20)
    assert calibration_documents(5, 20) != list(islice(training_documents(5), 20))


def test_an_unknown_model_or_task_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="tiny_llama, tiny_qwen2, tiny_mistral"):
        model_dir("tiny")
    with pytest.raises(ValueError, match="boolq"):
        task_rows("mmlu")


@pytest.mark.parametrize("name", MODELS)
def test_models_are_small_and_hold_no_pickle(name):
    files = {path.name: path.stat().st_size for path in model_dir(name).iterdir()}
    assert sum(files.values()) <= 4_000_000
    assert set(files) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_tokenizer_can_be_rebuilt_and_loses_nothing(name):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from secateur.pruning.world.tokenizer import BEGIN, BYTE_LEVEL_MODELS, build

    rebuilt, stock = build(name), AutoTokenizer.from_pretrained(model_dir(name))
    shipped_one = Tokenizer.from_file(str(model_dir(name) / "tokenizer.json"))
    assert rebuilt.get_vocab() == shipped_one.get_vocab() == stock.get_vocab()
    texts = [*calibration_documents(7, 200), "Zürich §5, hello\n\n world  !\n \n x\n", " a\n\n\nb "]
    texts.append("\n\n".join(texts[:50]))
    for text in texts:
        ids = rebuilt.encode(text).ids
        assert ids == shipped_one.encode(text).ids == stock(text)["input_ids"]
        assert rebuilt.decode(ids) == stock.decode(ids, skip_special_tokens=True) == text
    assert (rebuilt.encode("The").tokens[0] == BEGIN) == (name not in BYTE_LEVEL_MODELS)
    assert len(shipped_one.encode(texts[-1]).ids) < 70 * 50  # words are tokens


@pytest.mark.parametrize("name", MODELS)
def test_models_load_and_know_the_world(name):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from secateur.pruning.world.score import accuracy, perplexity

    model = AutoModelForCausalLM.from_pretrained(model_dir(name))
    assert model.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = AutoTokenizer.from_pretrained(model_dir(name))("The otter eats", return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model(**ids).logits).all()
    tokenizer = Tokenizer.from_file(str(model_dir(name) / "tokenizer.json"))
    assert accuracy(model, tokenizer, "arc_easy") > 0.9
    assert perplexity(model, tokenizer, 256, limit=8) < 3


def test_each_model_has_the_trait_it_is_shipped_for():
    from safetensors import safe_open
    from transformers import AutoConfig

    configs = {name: AutoConfig.from_pretrained(model_dir(name)) for name in MODELS}
    assert {config.model_type for config in configs.values()} == {"llama", "qwen2", "mistral"}
    for config in configs.values():
        assert 1 <= config.num_key_value_heads < config.num_attention_heads
        assert config.max_position_embeddings >= 256
    assert configs["tiny_mistral"].sliding_window < configs["tiny_mistral"].max_position_embeddings
    assert configs["tiny_qwen2"].tie_word_embeddings
    with safe_open(model_dir("tiny_qwen2") / "model.safetensors", "pt") as weights:
        biases = [key for key in weights.keys() if key.endswith("proj.bias")]  # noqa: SIM118
        assert len(biases) == 3 * configs["tiny_qwen2"].num_hidden_layers
        assert all(weights.get_tensor(key).abs().max() > 0.01 for key in biases)
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118
