"""Stands for `secateur run|capture|analyze`: the same files, no model; can be told to fail, hang, sleep or die.

`STAND_IN` names a JSON file: {"seconds": S, "fail": [text], "die": [text], "hang": [text]}; texts are searched in the
task's words. Only the first attempt at a task hangs, whenever the next one comes. A stage is done when its line stands
in `OUT/ledger.jsonl`, one write: a kill leaves no stage both counted and forgotten.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

from secateur.eval.config import RunConfig
from secateur.eval.identity import is_dense, run_id
from secateur.eval.record import ANSWERS, Failure, Metric, RunRecord, write_record
from secateur.pruning.compose import CONF_DIR
from secateur.pruning.config import capture_identity, validate
from secateur.pruning.files import digest, read_json, write_json
from secateur.slurm.arguments import parse
from secateur.slurm.grid import needs_capture


def orders() -> dict:
    path = os.environ.get("STAND_IN")
    return read_json(Path(path)) if path and Path(path).is_file() else {}


def ledger(out: Path, **line: object) -> None:
    line |= {
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "job": os.environ.get("SLURM_JOB_ID"),
        "time": time.time(),
    }
    with (out / "ledger.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def entries(out: Path, name: str) -> list[dict]:
    """The ledger's lines of one run or capture."""
    path = out / "ledger.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else []
    return [line for line in lines if line["id"] == name]


def spend(told: dict, words: str) -> None:
    if any(text in words for text in told.get("hang", [])):
        with suppress(FileExistsError):
            Path(f"{os.environ['STAND_IN']}.{digest(words)}").touch(exist_ok=False)
            time.sleep(3600)
    time.sleep(told.get("seconds", 0.0))
    if any(text in words for text in told.get("die", [])):
        os.kill(os.getpid(), signal.SIGKILL)


def capture(config: RunConfig, out: Path, words: str) -> str:
    """Computed or reused, like the real cache."""
    name = digest([capture_identity(config), config.model.path])
    facts = out / "cache" / "captures" / name / "facts.json"
    counts = {config.taylor.num_samples, *config.capture.snapshots}
    have = {count for line in entries(out, name) for count in line["counts"]}
    computed = config.taylor.num_samples not in have
    if computed:
        spend(orders(), words)
        ledger(out, what="capture", id=name, counts=sorted(counts))
    if computed or not facts.is_file():
        write_json(facts, {"counts": sorted(have | counts)})
    return "computed" if computed else "reused"


def run(config: RunConfig, out: Path, words: str) -> int:
    told = orders()
    name = run_id(config)
    folder = out / name
    if (folder / "record.json").is_file():
        return 0
    life = folder / "life.json"  # a folder that was set aside takes its stages with it
    if not life.is_file():
        write_json(life, time.time_ns())
    done = {line["what"] for line in entries(out, name) if line["life"] == read_json(life)}
    used = "reused"
    for stage in ("capture", "plan", "evaluate"):
        write_json(
            folder / "stage.json",
            {"stage": stage, "started": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())},
        )
        if stage in done or (stage == "capture" and not needs_capture(config)):
            continue
        if stage == "capture":
            used = capture(config, out, words)
        else:
            if stage == "evaluate" and any(text in words for text in told.get("fail", [])):
                error = Failure(stage=stage, type="ValueError", message="told to fail")
                record = RunRecord(
                    run_id=name, kind="pruned", status="failed", error=error, config={}, card={}
                )
                write_record(folder, record)
                return 1
            spend(told, words)
            ledger(out, what=stage, id=name, life=read_json(life))
    value = int(digest(name, 8), 16) / 16**8
    record = RunRecord(
        run_id=name,
        kind="dense" if is_dense(config) else "pruned",
        status="done",
        config=config.model_dump(mode="json"),
        card={},
        metrics={"acc_mean": Metric(value=value, unit="accuracy")},
        counters={"capture": used, "backward_tokens": 0},
    )
    (folder / ANSWERS).write_bytes(b"answers to single questions")
    write_record(folder, record)
    return 0


def analyze(words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words)
    runs, out = Path(given["runs"]), Path(given["out"])
    rows = [read_json(path) for path in sorted(runs.glob("*/*.json"))]
    table = [
        [row["run_id"], row["status"], (row["metrics"].get("acc_mean") or {}).get("value")] for row in rows
    ]
    write_json(out / "table.json", table)
    problems = [name for name, status, _ in table if status != "done"]
    if problems:
        write_json(out / "problems.json", problems)
    ledger(runs.parent.parent.parent, what="analyze", id=runs.parent.name)
    return 0


def composed(words: list[str]) -> RunConfig:
    """What Hydra would compose of the few files used here, at a fraction of the time."""
    raw: dict = {}
    given = dict(word.split("=", 1) for word in words)
    for group in ("calibration", "method", "eval", "model"):
        text = yaml.safe_load((CONF_DIR / group / f"{given.pop(group)}.yaml").read_text())
        whole = group in text
        for key, value in (text if whole else {group: text}).items():
            raw.setdefault(key, {}).update(value)
    for name, text in given.items():
        *parents, last = name.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(text) if "'" not in text else parse([f"{name}={text}"], set()).one(name)
    return validate(RunConfig, raw)


def main() -> int:
    command, words = sys.argv[1], sys.argv[2:]
    if command == "analyze":
        return analyze(words)
    config = composed(words)
    out = Path(config.out)
    if command == "capture":
        if any(text in " ".join(sys.argv) for text in orders().get("fail", [])):
            sys.stderr.write("secateur capture: told to fail\n")
            return 1
        capture(config, out, " ".join(sys.argv))
        return 0
    return run(config, out, " ".join(sys.argv))


if __name__ == "__main__":
    sys.exit(main())
