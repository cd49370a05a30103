"""The Slurm back-end on a real Slurm: dependencies, disturbances, requeue, nothing done twice. Stand-in worker."""

import os
import signal
import subprocess
from collections import Counter

import pytest
from slurm_bench import hasten, limit, most_at_once, until, workers

from secateur.command import main
from secateur.pruning.files import read_json
from secateur.slurm import queue
from secateur.slurm.grid import build, load_grid
from secateur.slurm.launch import look
from secateur.slurm.overview import Overview
from secateur.slurm.plan import Task
from secateur.slurm.state import read_state
from secateur.slurm.submit import submissions

pytestmark = pytest.mark.slurm

WORDS = ("launcher=slurm", "slurm=trial", "slurm.mem=400M")


@pytest.fixture
def slurm(bench, cluster, monkeypatch):
    """The bench, with the trial cluster in the environment; nothing is left in its queue."""
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    yield bench
    subprocess.run(["scancel", "--me"], check=False, timeout=30)
    until(lambda: not queue.jobs(), 180)


def view(bench) -> Overview:
    return look(bench.plan())


def idle() -> bool:
    return not queue.jobs()


def stages(bench) -> Counter[tuple[str, str]]:
    """How often each stage of each task was computed to its end, the analysis apart."""
    return Counter((line["what"], line["id"]) for line in bench.ledger() if line["what"] != "analyze")


def test_a_grid_ends_with_all_records_captures_once_and_the_analysis_last(slurm, capsys) -> None:
    slurm.order(seconds=0.3)
    assert slurm.grid(*WORDS, "--wait") == 0
    assert len(slurm.records()) == 14
    ledger = slurm.ledger()
    captures = Counter(line["id"] for line in ledger if line["what"] == "capture")
    assert list(captures.values()) == [1, 1, 1, 1]
    assert ledger[-1]["what"] == "analyze"
    assert {line["cuda"] for line in ledger[:-1]} == {"0", "1"}, "every job sees one GPU of its own"
    assert ledger[-1]["cuda"] is None, "the analysis asks for no GPU"
    starts = {line["id"]: line["time"] for line in ledger if line["what"] == "plan"}
    assert min(starts.values()) > min(line["time"] for line in ledger if line["what"] == "capture")
    sizes = [len(array.tasks) for array in submissions(slurm.plan())]
    assert max(sizes) == 3, "arrays are cut at MaxArraySize"
    capsys.readouterr()
    assert slurm.grid(*WORDS, "--wait") == 0
    assert "nothing to submit" in capsys.readouterr().out
    assert slurm.ledger() == ledger


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_disturbed_in_four_ways_it_ends_like_the_undisturbed_one(slurm) -> None:
    """scancel of a running job, kill -9 of a worker, a time-out with requeue, one run that fails."""
    assert slurm.grid("workers=2") == 0
    undisturbed, plain = slurm.table(), stages(slurm)
    slurm.out.rename(slurm.folder / "undisturbed")

    first, second, third = (pick(slurm, method, "m1", 16) for method in ("layerwise", "blockwise", "taylor"))
    failing = pick(slurm, "blockwise", "m2", 32)
    hang = [" ".join(task.argv) for task in (first, second, third)]
    slurm.order(hang=hang, fail=[" ".join(failing.argv)])
    assert slurm.grid(*WORDS) == 0

    wanted = {first.id, second.id, third.id}
    until(lambda: wanted <= {each.id for each in view(slurm).of("running") if each.stage == "plan"}, 120)
    job = {each.id: str(each.job) for each in view(slurm).of("running")}
    subprocess.run(["scancel", job[first.id]], check=True, timeout=30)
    victims = workers(second)
    assert victims
    for process in victims:
        process.send_signal(signal.SIGKILL)
    hasten(job[third.id])
    until(lambda: outcomes(slurm, third)[0] == "requeued", 180)
    limit(job[third.id], 10)
    until(idle, 180)

    assert outcomes(slurm, third) == ["requeued", "done"]
    state = read_state(slurm.plan(), third.id)
    assert state is not None
    assert {attempt.job for attempt in state.attempts} == {job[third.id]}, "the same job, requeued"
    conditions = {each.id: each.condition for each in view(slurm).tasks}
    assert conditions[first.id] == "interrupted"
    assert conditions[second.id] == "failed"
    assert view(slurm).count("run") == {"done": 9, "interrupted": 1, "failed": 2}

    slurm.order()
    slurm.grid(*WORDS, "--wait")
    assert view(slurm).count("run") == {"done": 10, "failed": 2}
    assert slurm.call("retry", "--wait") == 0
    assert slurm.table() == undisturbed
    assert stages(slurm) == plain, "a finished stage was computed again, or one is missing"


def outcomes(bench, task: Task) -> list[str]:
    """How the attempts at a task have ended."""
    state = read_state(bench.plan(), task.id)
    return [attempt.outcome for attempt in state.attempts] if state is not None else []


def pick(bench, method: str, model: str, length: int) -> Task:
    """One run of the grid."""
    for task in build(load_grid(str(bench.grid_file)), bench.out).of("run"):
        config = task.config or {}
        if (config["method"]["name"], config["model"]["name"], config["taylor"]["seq_len"]) == (
            method,
            model,
            length,
        ):
            return task
    raise AssertionError(f"no {method} run of {model} at {length}")


def test_a_failed_capture_leaves_nothing_pending_and_retry_heals(slurm, capsys) -> None:
    slurm.write_grid(axes={"method": ["taylor", "blockwise"]})
    slurm.order(fail=[f"model.path={slurm.folder}/m1"])
    assert slurm.grid(*WORDS, "--wait") == 1
    assert idle()
    assert view(slurm).count("run") == {"done": 2, "blocked": 2}
    assert view(slurm).count("capture") == {"done": 1, "failed": 1}
    assert view(slurm).count("analysis") == {"done": 1}
    assert "blocked by capture-m1" in capsys.readouterr().out
    slurm.order()
    assert slurm.call("retry", "--wait") == 0
    assert view(slurm).complete


def test_what_is_in_the_queue_is_not_submitted_twice_even_when_forgotten(slurm, capsys) -> None:
    slurm.write_grid(axes={"method": ["taylor", "random"]})
    slurm.order(seconds=1.5)
    assert slurm.grid(*WORDS) == 0
    plan = slurm.plan()
    before = queue.jobs()
    assert slurm.grid(*WORDS) == 0
    assert "nothing to submit" in capsys.readouterr().out
    (plan.folder / "submissions.json").unlink()
    assert slurm.grid(*WORDS) == 0
    assert set(queue.jobs()) <= set(before)
    # another grid of the same folder that needs the same capture waits for the job that is there
    slurm.write_grid(axes={"method": ["taylor", "layerwise", "random"]})
    assert slurm.grid(*WORDS, "--wait") == 0
    assert set(stages(slurm).values()) == {1}


def test_cancel_empties_the_queue_and_the_grid_can_go_on(slurm) -> None:
    slurm.write_grid(axes={"method": ["taylor"]})
    slurm.order(hang=["method=taylor"])
    assert slurm.grid(*WORDS) == 0
    until(lambda: view(slurm).of("running"), 180)
    assert slurm.call("cancel") == 0
    until(idle, 180)
    assert not view(slurm).active
    slurm.order()
    assert slurm.grid(*WORDS, "--wait") == 0


def test_a_killed_runner_is_an_interrupted_task(slurm) -> None:
    slurm.write_grid(axes={"method": ["random"]}, baselines=False)
    slurm.order(hang=["method=random"])
    assert slurm.grid(*WORDS) == 0
    until(lambda: [each.stage for each in view(slurm).of("running")] == ["plan", "plan"], 180)
    state = read_state(slurm.plan(), view(slurm).of("running")[0].id)
    assert state is not None
    os.kill(state.attempts[-1].pid, signal.SIGKILL)
    until(lambda: len(view(slurm).of("interrupted")) == 1, 180)
    subprocess.run(["scancel", "--me"], check=True, timeout=30)
    until(idle, 180)
    assert slurm.grid(*WORDS, "--wait") == 0
    assert set(stages(slurm).values()) == {1}


def test_a_license_bounds_the_whole_grid(slurm) -> None:
    slurm.write_grid(axes={"method": ["taylor", "random"]})
    slurm.order(seconds=0.5)
    assert slurm.grid(*WORDS, "slurm.extra=['--licenses=prune:1']", "--wait") == 0
    states = [read_state(slurm.plan(), task.id) for task in slurm.plan().tasks]
    tries = [attempt for state in states if state is not None for attempt in state.attempts]
    assert len(tries) == 9
    assert most_at_once(tries) == 2, "four GPUs, two licenses"


def test_the_clusters_refusal_is_one_message(slurm, capsys) -> None:
    assert slurm.grid(*WORDS, "slurm.partition=nowhere") == 1
    message = capsys.readouterr().err
    assert "sbatch refuses" in message
    assert "invalid partition" in message.lower()


def test_names_that_a_shell_would_break_arrive_whole(slurm) -> None:
    odd = slurm.folder / "it's a $(touch oops) folder"
    odd.mkdir()
    slurm.write_grid(axes={"method": ["random"]}, baselines=False)
    bench_out = odd / "runs"
    words = ["grid", f"grid={slurm.grid_file}", f'out="{bench_out}"', "foreign=reuse", *WORDS, "--wait"]
    assert main(words) == 0
    assert len(list(bench_out.glob("*/record.json"))) == 2
    assert not list(slurm.folder.rglob("oops"))
    (report,) = bench_out.glob("grids/*/report/table.json")
    assert len(read_json(report)) == 2
