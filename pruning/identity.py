"""Digests of what a config points at: model folders and text files. No torch here."""

from pathlib import Path

from secateur.pruning.config import CalibrationConfig, ModelConfig
from secateur.pruning.documents import check_file
from secateur.pruning.errors import ConfigError, ModelError
from secateur.pruning.files import digest, file_digest

BUNDLED = "bundled:"
_WHOLE = 64 * 2**20
"""Weight files up to this size (bytes) are digested whole, larger ones by header, size and samples."""


def model_folder(config: ModelConfig) -> Path | None:
    """The local folder of a model, or None for a hub id.

    Raises:
        ConfigError: `bundled:NAME` names no shipped model.
    """
    if config.path.startswith(BUNDLED):
        from secateur.pruning.world.bundle import model_dir

        try:
            return model_dir(config.path.removeprefix(BUNDLED))
        except ValueError as error:
            raise ConfigError(f"model.path={config.path}: {error}") from error
    path = Path(config.path).expanduser()
    return path if path.is_dir() else None


def model_fingerprint(config: ModelConfig) -> str:
    """Digest of a local model's config and weights; of name and revision for a hub id.

    Raises:
        ModelError: The path looks like a folder but does not exist.
    """
    folder = model_folder(config)
    if folder is None:
        if config.path.startswith((".", "/", "~")) or config.path.count("/") > 1:
            raise ModelError(
                f"model.path={config.path}: no such folder; give a model folder or a hub id (owner/name)"
            )
        return digest({"hub": config.path, "revision": config.revision})
    files = sorted(
        p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".model"} and p.is_file()
    )
    parts = {p.name: _sampled_digest(p) for p in files if p.name != "generation_config.json"}
    return digest(parts)


def calibration_fingerprint(config: CalibrationConfig) -> str:
    """Digest of the calibration text where it is a local file; of its name and revision otherwise.

    Raises:
        DataError: The file does not exist, or is of a kind that cannot be read.
    """
    if config.source != "file":
        return digest({"source": config.source, "path": config.path, "revision": config.revision})
    path = Path(config.path or "").expanduser()
    check_file(path, "calibration.path")
    return file_digest(path)


def _sampled_digest(path: Path) -> str:
    """Digest of a file: whole when small; size, header and 64 spread samples when large."""
    size = path.stat().st_size
    if size <= _WHOLE:
        return file_digest(path)
    with path.open("rb") as handle:
        samples = []
        for index in range(64):
            handle.seek(size * index // 64)
            samples.append(handle.read(4096).hex())
    return digest([size, samples])
