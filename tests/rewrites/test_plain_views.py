"""Views by other names, and copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from edgemix import graph as g
from edgemix import rewrites
from edgemix.errors import UnsupportedError
from edgemix.program import Origin, Program
from tests.rewrites.calls import Call


def plain(function: Callable[[Tensor], Tensor]) -> list[str]:
    """The operators that are left of a function, which gives the same bits."""
    x = torch.arange(24.0).reshape(1, 2, 3, 4) - 12
    program = rewrites.standard(Program.trace(Call(function), (x,), Origin("test")))
    assert torch.equal(program.call(x)[0], function(x))
    return [g.op_name(n) for n in g.float_ops(program.module())]


VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "movedim": (lambda x: x.movedim(1, -1), "permute"),
    "movedim of several": (lambda x: x.movedim((0, 1), (2, 0)), "permute"),
    "moveaxis": (lambda x: x.moveaxis(3, 1), "permute"),
    "swapaxes": (lambda x: x.swapaxes(1, 2), "permute"),
    "swapdims": (lambda x: x.swapdims(-1, 2), "permute"),
    "mT": (lambda x: x.mT, "permute"),
    "ravel": (lambda x: x.ravel(), "reshape"),
    "view_as": (lambda x: x.view_as(x.flatten(2)), "reshape"),
    "reshape_as": (lambda x: x.reshape_as(x.flatten(1)), "reshape"),
    "expand_as": (lambda x: x[:, :1].expand_as(x), "expand"),
    "broadcast_to": (lambda x: x[:, :1].broadcast_to((1, 2, 3, 4)), "expand"),
    "narrow": (lambda x: x.narrow(-1, -3, 2), "slice"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_its_plain_name(view: str) -> None:
    function, name = VIEWS[view]
    found = plain(lambda x: function(x.abs()) * 2)
    assert found[-2] == name
    assert set(found) <= {"abs", "slice", "flatten", name, "mul"}


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": lambda x: x.clone(),
    "clone in memory": lambda x: x.clone(memory_format=torch.contiguous_format),
    "detach": lambda x: x.detach(),
    "contiguous": lambda x: x.contiguous(),
    "to the same type": lambda x: x.to(torch.float32),
    "to the same device": lambda x: x.to("cpu"),
    "float": lambda x: x.float(),
    "type_as": lambda x: x.type_as(x),
    "expanded to itself": lambda x: x.expand_as(x),
    "dropout": lambda x: F.dropout(x, 0.3, training=False),
    "dropout of channels": lambda x: F.dropout2d(x, 0.3, training=False),
    "dropout of alpha": lambda x: F.alpha_dropout(x, 0.3, training=False),
    "no dropout": lambda x: F.dropout(x, 0.0, training=True),
    "plus": lambda x: +x,
    "real": lambda x: torch.real(x),
    "an alias": lambda x: torch.ops.aten.alias(x),
    "copied": lambda x: torch.empty_like(x).copy_(x),
    "checkpoint": lambda x: checkpoint(torch.abs, x, use_reentrant=False).abs(),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_its_source(copy: str) -> None:
    found = plain(lambda x: COPIES[copy](x.abs()) * 2)
    assert set(found) <= {"abs", "mul", "expand"}


def test_a_view_of_what_a_copy_put_in_order() -> None:
    assert plain(lambda x: x.transpose(1, 3).contiguous().view(1, -1) * 2) == [
        "transpose", "reshape", "mul",
    ]  # fmt: skip


def test_a_copy_of_an_input_that_is_given_stays() -> None:
    assert plain(lambda x: x.clone()) == ["clone"]


def test_a_change_of_type_stays() -> None:
    assert plain(lambda x: x.to(torch.int32).to(torch.float32)) == ["_to_copy", "_to_copy"]


@pytest.mark.parametrize(
    "drops",
    [
        lambda x: F.dropout(x, 0.3),
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
    ],
    ids=["dropout", "attention"],
)
def test_a_dropout_that_is_on_is_refused_with_its_line(drops: Callable[[Tensor], Tensor]) -> None:
    program = Program.trace(Call(drops), (torch.zeros(1, 3, 4),), Origin("test"))
    with pytest.raises(UnsupportedError, match="a dropout is on: its results are drawn") as refused:
        rewrites.standard(program)
    assert "(calls.py:" in str(refused.value)
    assert "pass training=self.training" in str(refused.value)
