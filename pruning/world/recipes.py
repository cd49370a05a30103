"""What the shipped models are: their shapes, and how long and how fast each is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CONTEXT = 256
SLIDING_WINDOW = 64
INITIAL_STD = 0.07
"""Of the weights: the usual 0.02 is too small for a width of 128, facts are then learnt late."""


@dataclass(frozen=True)
class Phase:
    """A run of the optimizer from a warm-up to the end of a cosine.

    Attributes:
        steps: Batches.
        lr: The peak learning rate.
    """

    steps: int
    lr: float


@dataclass(frozen=True)
class Recipe:
    """What is trained and for how long.

    Attributes:
        config: The class of the configuration.
        model: The class of the model.
        shape: What the configuration gets beside the vocabulary and the special tokens.
        seed: Of the weights and of the text.
        phases: Of the training, each on its own mixture of documents.
    """

    config: Callable[..., PreTrainedConfig]
    model: Callable[..., PreTrainedModel]
    shape: dict[str, Any]
    seed: int
    phases: tuple[Phase, Phase] = (Phase(4500, 4e-3), Phase(1200, 2e-3))


RECIPES: dict[str, Recipe] = {
    "tiny_llama": Recipe(
        LlamaConfig,
        LlamaForCausalLM,
        {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 16,
            "tie_word_embeddings": False,
        },
        seed=1,
        phases=(Phase(4500, 4e-3), Phase(2400, 2e-3)),
    ),
    "tiny_qwen2": Recipe(
        Qwen2Config,
        Qwen2ForCausalLM,
        {
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        seed=2,
        phases=(Phase(3500, 4e-3), Phase(1200, 2e-3)),
    ),
    "tiny_mistral": Recipe(
        MistralConfig,
        MistralForCausalLM,
        {
            "hidden_size": 128,
            "intermediate_size": 224,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "sliding_window": SLIDING_WINDOW,
            "tie_word_embeddings": False,
        },
        seed=3,
    ),
}
