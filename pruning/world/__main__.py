"""Rebuild or check what is shipped: ``python -m secateur.pruning.world data|tokenizers|train MODEL|check``."""

import argparse
import json
import logging
import sys
from pathlib import Path

from secateur.pruning.world import data
from secateur.pruning.world.bundle import MODELS, data_dir, model_dir


def _write_data() -> int:
    for path, entry in data.write(data_dir()).items():
        print(f"{path}: {entry['rows']} rows")
    return 0


def _write_tokenizers() -> int:
    from secateur.pruning.world.recipes import CONTEXT
    from secateur.pruning.world.tokenizer import save

    for name in MODELS:
        size = save(name, model_dir(name), CONTEXT).get_vocab_size()
        print(f"{name}: {size} tokens")
    return 0


def _train(name: str, out: Path | None, phase: int | None) -> int:
    import torch

    from secateur.pruning.world.train import train, train_phase

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    torch.set_num_threads(1)  # the same sums in the same order: the same bits on the same machine
    if phase is None:
        train(name, out or model_dir(name))
    else:
        train_phase(name, out or model_dir(name), phase)
    return 0


def _check() -> int:
    """Compare the data with the manifest and score every model."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    from secateur.pruning.world.score import accuracies, perplexity, silence_at_random

    torch.set_num_threads(1)  # models of this size lose time to threads
    shipped = json.loads((data_dir() / data.MANIFEST).read_text(encoding="utf-8"))
    rebuilt = data.manifest(data.files())
    wrong = [path for path in {**shipped, **rebuilt} if shipped.get(path) != rebuilt.get(path)]
    print(f"data: {'as in the manifest' if not wrong else 'differs: ' + ', '.join(wrong)}")
    for name in MODELS:
        model = AutoModelForCausalLM.from_pretrained(model_dir(name))
        tokenizer = Tokenizer.from_file(str(model_dir(name) / "tokenizer.json"))
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters")
        for task, accuracy in accuracies(model, tokenizer).items():
            print(f"  {task:15} {accuracy:.3f}")
        print(f"  {'perplexity@256':15} {perplexity(model, tokenizer, 256):.3f}")
        for seed in range(3):
            pruned = AutoModelForCausalLM.from_pretrained(model_dir(name))
            silence_at_random(pruned, 0.2, seed)
            mean = accuracies(pruned, tokenizer)["mean"]
            print(f"  mean without 20 % of the parameters, drawn with seed {seed}: {mean:.3f}")
    return 1 if wrong else 0


def main(argv: list[str] | None = None) -> int:
    """Run one of the commands.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m secateur.pruning.world", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="write the task sets, the held-out text and the manifest")
    commands.add_parser("tokenizers", help="write the tokenizers of all models")
    training = commands.add_parser("train", help="train one model from scratch (some 30 minutes)")
    training.add_argument("model", choices=MODELS)
    training.add_argument("--out", type=Path, help="folder to write to; default: the shipped one")
    training.add_argument("--phase", type=int, choices=(0, 1), help="this phase only, from what is there")
    commands.add_parser("check", help="compare the data with the manifest, score the models")
    options = parser.parse_args(argv)
    if options.command == "data":
        return _write_data()
    if options.command == "tokenizers":
        return _write_tokenizers()
    if options.command == "train":
        return _train(options.model, options.out, options.phase)
    return _check()


if __name__ == "__main__":
    sys.exit(main())
