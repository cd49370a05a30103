"""The typed configuration of a report, and the personas of `conf/insight/`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.pruning.config import Frozen
from secateur.pruning.errors import ConfigError

PERSONAS = Path(__file__).resolve().parents[2] / "conf" / "insight"


class WriterConfig(Frozen):
    """Who writes the narrative.

    Attributes:
        kind: `none` writes from templates, `openai` asks an endpoint, `local` a Transformers folder.
        api_key_env: Name of the environment variable with the endpoint's key; no key is sent otherwise.
    """

    kind: Literal["none", "openai", "local"] = "none"
    base_url: str | None = None
    model: str | None = None
    path: str | None = None
    api_key_env: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 1200
    max_facts: Annotated[int, Field(ge=1)] = 120
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: int = 0
    first_token_s: Annotated[float, Field(gt=0, description="longest wait for the first token")] = 120.0
    stall_s: Annotated[float, Field(gt=0, description="longest pause between two tokens")] = 30.0
    total_s: Annotated[float, Field(gt=0, description="longest time for the whole text")] = 900.0

    @model_validator(mode="after")
    def _what_each_kind_needs(self) -> Self:
        if self.kind == "openai" and not (self.base_url and self.model):
            raise ValueError("writer=openai needs writer.base_url=URL and writer.model=NAME")
        if self.kind == "local" and not self.path:
            raise ValueError("writer=local needs writer.path=DIR, the folder of a Transformers model")
        return self


class InsightConfig(Frozen):
    """One report."""

    dir: Annotated[str, Field(min_length=1)]
    out: str = "insight"
    lang: Literal["en", "zh"] = "en"
    persona: str = "analyst"
    workers: Annotated[int, Field(ge=0, description="0: all cores")] = 0
    writer: WriterConfig = WriterConfig()


class Persona(Frozen):
    """Who the writer is told to be; `{language}` stands for the report's language."""

    title: dict[str, str]
    system: str
    task: str
    words: Annotated[int, Field(ge=20)] = 350


def persona_names() -> list[str]:
    """The personas that exist."""
    return sorted(path.stem for path in PERSONAS.glob("*.yaml"))


def read_persona(name: str) -> Persona:
    """Read a persona by name, or from a YAML file of one's own.

    Raises:
        ConfigError: There is no such persona, or its file is not valid.
    """
    import yaml

    from secateur.pruning.config import validate

    path = Path(name) if name.endswith((".yaml", ".yml")) else PERSONAS / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"persona={name}: cannot be read ({error}); personas are {', '.join(persona_names())}, or give a FILE.yaml"
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"persona={name}: is not a YAML mapping with title, system and task")
    return validate(Persona, raw)
