"""A model taken apart: the last layer runs only where a token is scored, and only where that changes nothing."""

from typing import Any

import pytest
import torch

from secateur.eval.backbone import take_apart
from tests.eval.conftest import SHAPES, cut, make_model
from tests.families import FAMILIES

IDS = torch.arange(3, 27)[None]
ROWS = torch.tensor([2, 3, 11, 23])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_scored_positions_are_those_of_the_whole_model(family: str, shape: str) -> None:
    model = cut(make_model(family), shape)
    backbone = take_apart(model)
    last = dict(model.model.layers[-1].named_modules())
    names = [name for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj") if name in last]
    seen: list[int] = []
    handles = [
        last[name].register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].shape[1]))
        for name in names
    ]
    with torch.inference_mode():
        whole = backbone.hidden(input_ids=IDS)[0]
        assert seen == [IDS.shape[1]] * len(names)
        seen.clear()
        with backbone.only(ROWS):
            part = backbone.hidden(input_ids=IDS)[0]
    assert seen == [len(ROWS)] * len(names)
    torch.testing.assert_close(part[ROWS], whole[ROWS], rtol=1e-5, atol=1e-5)
    for handle in handles:
        handle.remove()
    with torch.inference_mode():
        assert torch.equal(backbone.hidden(input_ids=IDS)[0], whole), "nothing stays behind"


def test_a_module_that_looks_at_its_neighbours_runs_everywhere() -> None:
    model = make_model("llama")
    mlp = model.model.layers[-1].mlp
    assert mlp in take_apart(model).tokenwise
    forward = mlp.forward

    def mixing(hidden: Any) -> Any:
        return forward(hidden + hidden.mean(1, keepdim=True))

    mlp.forward = mixing
    assert take_apart(model).tokenwise == ()
