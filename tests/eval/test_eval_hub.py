"""Without a hub nothing waits for it: one line says what is missing and what to give instead."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.eval import hub
from secateur.pruning.errors import DataError
from secateur.slurm.plan import ROOT

CLOSED = "http://127.0.0.1:9"
"""Nothing listens on the discard port."""

DENSE = ("run", "model=tiny_llama", "method=dense", "eval.data_dir=null")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hub.reachable.cache_clear()
    yield
    hub.reachable.cache_clear()


def secateur(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as a person without internet types it: the hub's switches are not set."""
    environment = {key: value for key, value in os.environ.items() if key not in hub.SWITCHES}
    environment |= {"HF_ENDPOINT": CLOSED, "HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "secateur", *words], cwd=folder, env=environment, capture_output=True,
        text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "model=smollm2_135m", "calibration=world", "eval=none"], "model.path=DIR"),
        (["run", "model=tiny_llama", "calibration=wikitext2", "eval=none"], "calibration.path=FILE"),
        ([*DENSE, "eval.ppl.protocols=[]"], "eval.data_dir=DIR"),
        ([*DENSE, "eval=ppl", "eval.ppl.protocols=[wikitext2@128]"], "eval.data_dir=DIR"),
    ],
)  # fmt: skip
def test_what_needs_the_hub_fails_at_once(words: list[str], says: str, tmp_path: Path) -> None:
    done = secateur(tmp_path, *words, "device=cpu")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "Retry" not in done.stderr
    assert len([line for line in lines if "127.0.0.1 cannot be reached" in line]) == 1
    last = lines[-1]
    assert last.startswith(f"secateur {words[0]}: ")
    assert says in last
    assert "secateur fetch" in last
    assert "Traceback" not in done.stderr


def test_what_needs_no_hub_does_not_ask_for_it(tmp_path: Path) -> None:
    """The calibration of a dense model's config may name the hub: nothing reads it."""
    few = ["eval=ppl", "eval.ppl.max_tokens=600", "calibration=wikitext2", "device=cpu"]
    done = secateur(tmp_path, "run", "model=tiny_llama", "method=dense", *few)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" not in done.stderr


@pytest.mark.parametrize(
    "words", [["data_dir=data"], ["tasks=none", "texts=none", "model=a/b", "model_dir=m"]]
)
def test_fetch_says_at_once_that_there_is_no_internet(words: list[str], tmp_path: Path) -> None:
    done = secateur(tmp_path, "fetch", *words)
    assert done.returncode == 1
    assert "127.0.0.1 cannot be reached" in done.stderr
    assert "Retry" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hub.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.reachable()
        hub.offline_if_unreachable()
        hub.need_hub()
    assert not [name for name in hub.SWITCHES if name in os.environ]
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    hub.reachable.cache_clear()
    with pytest.raises(DataError, match="HF_ENDPOINT"):
        hub.need_hub()


def test_a_silent_name_server_costs_no_more_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
    began = time.monotonic()
    assert not hub.reachable(0.3)
    assert time.monotonic() - began < 5


def test_requests_go_by_the_proxy_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub.endpoint() == ("huggingface.co", 443)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert hub.endpoint() == ("proxy.example", 3128)
    monkeypatch.setenv("no_proxy", "huggingface.co")
    assert hub.endpoint() == ("huggingface.co", 443)


@pytest.mark.parametrize("ci", ["true", ""])
def test_each_warning_of_a_library_is_printed_once(ci: str, tmp_path: Path) -> None:
    code = """
import logging
from secateur.pruning.logs import configure_logging
configure_logging(False)
import huggingface_hub, datasets, transformers, accelerate
for name in ("huggingface_hub", "datasets", "transformers", "accelerate", "filelock", "pruning"):
    logging.getLogger(name + ".part").warning("word of %s", name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": ci},
    )  # fmt: skip
    for name in ("huggingface_hub", "datasets", "transformers", "accelerate", "filelock", "pruning"):
        assert done.stderr.count(f"word of {name}") == 1, done.stderr
