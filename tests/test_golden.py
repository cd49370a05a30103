"""No change of the house changes a plan or a number: the shipped models, six methods, against golden records."""

import json
from typing import Any

import pytest

from tests.golden.records import CASES, PATH, measure

GOLDEN: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))


def test_every_case_has_its_golden_record() -> None:
    assert tuple(GOLDEN) == CASES


@pytest.mark.parametrize("case", CASES)
def test_plans_and_numbers_are_those_of_the_golden_record(case: str) -> None:
    found, golden = measure(case), GOLDEN[case]
    for name in ("run_id", "kept", "plan", "removed"):
        assert found[name] == golden[name], name
    for part in ("metrics", "statistics"):
        assert found[part] == pytest.approx(golden[part], rel=1e-5), part
