"""Grid files, overrides in Hydra's grammar, and points that equal Hydra's own composition."""

import pytest
import yaml

from secateur.eval.config import RunConfig
from secateur.pruning.compose import CONF_DIR, compose, register
from secateur.pruning.config import validate
from secateur.pruning.errors import ConfigError
from secateur.pruning.overrides import encode, write
from secateur.slurm.arguments import parse
from secateur.slurm.config import GridConfig, Resources, seconds
from secateur.slurm.grid import load_grid, load_slurm
from secateur.slurm.points import Composer, expand, words


@pytest.mark.parametrize(
    "value",
    [
        0, -3, 0.2, 1e-05, True, False, None, "tiny_llama", "bundled:tiny_llama", "/a/b-c.txt", "with space", "a=b,c",
        "it's",
        "12", "1e3", "null", "True", "", "tail\\", "a\\'b", "[x]", "{y}", [1, 2], ["a b", None], "world@128", "a:",
    ],
)  # fmt: skip
def test_values_written_are_values_read(value: object) -> None:
    read = parse([write("some.key", value)], set()).one("some.key")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("value", ["${oops}", "two\nlines"])
def test_values_that_a_command_line_cannot_carry_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be passed"):
        encode(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--dryrun", "unknown option --dryrun"),
        ("~model", "KEY=VALUE"),
        ("+a.b=1", "set keys that exist"),
        ("a=[1", "a="),
    ],
)
def test_malformed_words_are_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        parse([word], {"dry-run"})


def test_choices_and_ranges_are_several_values() -> None:
    given = parse(["taylor.seq_len=16,32", "seed=range(0,3)", "method=taylor,'flap'", "--wait"], {"wait"})
    assert given.values == {"taylor.seq_len": (16, 32), "seed": (0, 1, 2), "method": ("taylor", "flap")}
    assert given.flags == {"wait"}
    with pytest.raises(ConfigError, match="one value is expected"):
        given.one("seed")


POINTS = [
    {"model": "tiny_llama", "method": "blockwise", "taylor.seq_len": 16, "eval.limit": 10, "out": "x y"},
    {"model": "tiny_qwen2", "method": "dense", "eval": "ppl", "budget.of": "decoder"},
    {
        "model": "llama3_8b",
        "calibration": "wikitext2",
        "experiment": "study",
        "model.dtype": "bfloat16",
        "seed": 3,
    },
    {
        "model": "local",
        "model.path": "/a/b",
        "calibration": "text_file",
        "calibration.path": "c.txt",
        "guard.round_to": 64,
    },
    {
        "model": "mistral_7b",
        "capture.snapshots": [16, 32],
        "method.layer_weights": [0.5, 1],
        "method.allocation": "per_layer",
    },
]


@pytest.mark.parametrize("values", POINTS)
def test_fast_composition_equals_the_full_one(values: dict) -> None:
    register(RunConfig)
    composer = Composer()
    composer.config({**values, "seed": 77})  # a point before must leave nothing behind
    assert composer.config(values) == validate(RunConfig, compose("run", list(words(values))))


def test_every_point_of_the_shipped_grids_equals_the_full_composition() -> None:
    composer = Composer()
    for path in sorted((CONF_DIR / "grid").glob("*.yaml")):
        points = expand(load_grid(path.stem))
        for values in points[:: max(1, len(points) // 3)]:
            full = validate(RunConfig, compose("run", list(words(values))))
            assert composer.config(values) == full, (path.name, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "tiny_llama", "taylor.sequence": 3},
            "taylor.sequence=3: unknown key; here exist: batch_size",
        ),
        ({"model": "tiny_llama", "tailor.seq_len": 3}, "tailor.seq_len=3: unknown key"),
        ({"model": "tiny_llama", "budget.ratio": 1.5}, "budget.ratio=1.5"),
        ({"model": "tiny_lama"}, "tiny_lama"),
        ({"model": "tiny_llama", "taylor": 3}, "taylor=3: is a group of keys"),
    ],
)
def test_bad_points_are_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Composer().config(values)
    assert message in str(caught.value)


GRID = {
    "name": "g",
    "models": [{"model": "a", "calibration": "c4"}, {"model": "b"}],
    "overrides": {"budget.ratio": 0.2},
    "axes": {"method": ["taylor", "random"], "taylor.seq_len": [16, 64, 256]},
}


def test_points_are_the_product_in_order() -> None:
    points = expand(validate(GridConfig, GRID))
    assert len(points) == 12
    assert points[0] == {
        "model": "a", "calibration": "c4", "budget.ratio": 0.2, "method": "taylor", "taylor.seq_len": 16,
    }  # fmt: skip
    assert [p["taylor.seq_len"] for p in points[:4]] == [16, 64, 256, 16]


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ({"skip": [{"method": "random", "taylor.seq_len": [64, 256]}]}, 8),
        ({"skip": [{"taylor.seq_len": ">= 64"}]}, 4),
        ({"only": [{"model": "b"}, {"taylor.seq_len": "< 64"}]}, 8),
        ({"only": [{"model": "b"}], "skip": [{"taylor.seq_len": "!=64"}]}, 2),
    ],
)
def test_conditions(conditions: dict, count: int) -> None:
    assert len(expand(validate(GridConfig, GRID | conditions))) == count


def test_the_command_line_replaces_axes_and_models_and_fixes_the_rest() -> None:
    grid = validate(GridConfig, GRID)
    points = expand(
        grid,
        {"model": ("a", "z"), "taylor.seq_len": (8,), "budget.ratio": (0.1, 0.3), "calibration": ("world",)},
    )
    assert len(points) == 8
    assert {p["model"] for p in points} == {"a", "z"}
    assert {p["calibration"] for p in points} == {"world"}
    assert {p["budget.ratio"] for p in points} == {0.1, 0.3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "models"),
        ({"models": [{"calibration": "c4"}]}, "every entry names its `model`"),
        ({"overrides": {"method": "taylor"}}, "method: given both as an axis and as a fixed override"),
        ({"axes": {"model": ["a"]}}, "list models under `models`"),
        ({"skip": [{"taylor.seqlen": 3}]}, "taylor.seqlen is no axis"),
        ({"axis": {}}, "axis: unknown key"),
        ({"axes": {"seed": []}}, "axes.seed"),
        ({"name": "a b"}, "name"),
    ],
)
def test_bad_grid_files_are_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(GridConfig, GRID | changes)
    assert message in str(caught.value)


def test_a_grid_without_points_is_refused() -> None:
    with pytest.raises(ConfigError, match="no run is left"):
        expand(validate(GridConfig, GRID | {"skip": [{"model": ["a", "b"]}]}))


def test_unknown_grids_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="taylor_sweep"):
        load_grid("tailor_sweep")


def test_resources_inherit_and_an_empty_text_takes_away() -> None:
    cluster = load_slurm("default", {"partition": "big", "run.time": "01:00:00", "extra": ["--nice=5"]})
    assert "--partition=big" in cluster.resources("capture").arguments()
    assert "--time=01:00:00" in cluster.resources("run").arguments()
    assert "--time=04:00:00" in cluster.resources("capture").arguments()
    assert not any(word.startswith("--gres") for word in cluster.resources("analysis").arguments())
    assert cluster.resources("analysis").arguments()[-1] == "--nice=5"


def test_a_time_that_yaml_has_read_as_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="put the time limit in quotes"):
        validate(Resources, yaml.safe_load("time: 10:00:00"))


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 5400), ("1:30", 90), ("01:00:30", 3630), ("2-3", 183600), ("1-00:10", 87000), ("1-0:0:5", 86405),
        ("UNLIMITED", None), ("1:2:3:4", None),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(time: str, expected: int | None) -> None:
    assert seconds(time) == expected


def test_a_time_limit_that_leaves_no_time_to_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="requeued as soon as they start"):
        load_slurm("default", {"run.time": "2", "signal_before": 90})
    for cure in ({"run.time": "3"}, {"signal_before": 0}, {"requeue": False}, {"signal_before": 60}):
        assert load_slurm("default", {"run.time": "2", "signal_before": 90} | cure).name == "default"
