"""torch-pruning: its pruner over dependency groups, by the usage that its README shows.

By hand, as its examples do: attention's reshape by the width that is left, the head's width behind
pruning, no pruning of the last layer. Also by hand: sizes that modules wrote down as numbers.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from timm.models import metaformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgemix.models.jets.transformer import TokenAttention
from tests.benchmarks.prune.peers import Made, Refused, bisect, loss
from tests.benchmarks.ptq.models import TSMixer, _AttentionBlock, _MixerBlock

if TYPE_CHECKING:
    from tests.benchmarks.prune.suite import Task

_MOST = 0.9
"""No width loses more, as with edgemix."""


def prune(task: Task, share: float, setting: str) -> Made:
    """The model with the least pruning ratio that keeps the budget of multiply-accumulates.

    Raises:
        Refused: no ratio does, or what is left does not run.
    """
    what, where = setting.split(", ")
    ratio = bisect(lambda r: _left(task, r, what, where), share)
    if ratio == 1.0:
        raise Refused(f"no pruning ratio leaves {share:.0%} of the multiply-accumulates")
    told = f"ratio {ratio:.3f}, {_WHERE[where]}; {_WHAT[what]}; {_mended(task.base.module)}"
    return Made(_pruned(task, ratio, what, where), told, labels=what != "magnitude")


@cache
def _left(task: Task, ratio: float, what: str, where: str) -> float:
    example = task.base.example
    return _flops(_pruned(task, ratio, what, where), example) / _flops(task.base.module, example)


_WHERE = {"isomorphic": "ranked over layers of a kind", "uniform": "the same share of every width"}
_WHAT = {
    "magnitude": "group L2 norm",
    "taylor": "weight times gradient of the loss",
    "hessian": "squared gradients of every sample (its own sum keeps the last one only: mended)",
}


class _Hessian(tp.importance.GroupHessianImportance):  # type: ignore[misc]
    """Its ``accumulate_grad`` looks a name up among tensors, and so begins anew at each sample."""

    def accumulate_grad(self, model: nn.Module) -> None:
        for weight in model.parameters():
            if weight.grad is not None:
                squared = weight.grad.detach().square()
                self._accu_grad[weight] = self._accu_grad.get(weight, 0) + squared
                self._counter[weight] = self._counter.get(weight, 0) + 1


_IMPORTANCE: dict[str, Callable[[], Any]] = {
    "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": _Hessian,
}


def _pruned(task: Task, ratio: float, what: str, where: str) -> nn.Module:
    model = copy.deepcopy(task.base.module).requires_grad_(True)
    heads = {}
    for module in model.modules():
        if isinstance(module, (metaformer.Attention, TokenAttention, _AttentionBlock)):
            module.forward = types.MethodType(_FORWARD[type(module)], module)
            heads[module.qkv] = getattr(module, "num_heads", None) or module.heads
            module.scale = (module.qkv.out_features // (3 * heads[module.qkv])) ** -0.5
    pruner = tp.pruner.MetaPruner(
        model, task.base.example, importance=_IMPORTANCE[what](), pruning_ratio=ratio,
        max_pruning_ratio=_MOST, global_pruning=where == "isomorphic",
        isomorphic=where == "isomorphic", ignored_layers=_ignored(model), num_heads=heads,
    )  # fmt: skip
    if what != "magnitude":
        for name, weight in model.named_parameters():
            weight.grad = _gradients(task, what)[name].clone()
    for group in pruner.step(interactive=True):
        group.prune()
    for module in model.modules():
        if isinstance(module, metaformer.Scale):
            module.shape = (module.scale.numel(), *module.shape[1:])
    model.zero_grad()
    return model.requires_grad_(False).eval()


def _ignored(model: nn.Module) -> list[nn.Module]:
    """The last layer, and those over time, whose channels it takes for those of the features."""
    found = [model.head.fc if hasattr(model.head, "fc") else model.head]
    found = [model.head.fc2 if hasattr(model.head, "fc2") else found[0]]
    if isinstance(model, TSMixer):
        found += [model.time, *(m.time for m in model.modules() if isinstance(m, _MixerBlock))]
    return found


@cache
def _gradients(task: Task, what: str) -> dict[str, Tensor]:
    """Of the loss on the calibration samples, by weight; for ``hessian`` their mean squares."""
    model = copy.deepcopy(task.base.module).requires_grad_(True)
    scorer = _Hessian()
    for x, labels in zip(task.base.calibration.split(32), task.labels.split(32), strict=True):
        if what == "taylor":
            loss(model(x), labels).backward()
            continue
        for each in loss(model(x), labels, "none"):
            model.zero_grad()
            each.backward(retain_graph=True)
            scorer.accumulate_grad(model)
    names = {weight: name for name, weight in model.named_parameters()}
    if what == "taylor":
        return {n: w.grad for w, n in names.items() if w.grad is not None}
    return {names[w]: total / scorer._counter[w] for w, total in scorer._accu_grad.items()}


def _attention(qkv: Tensor, heads: int, scale: float) -> Tensor:
    n, t, _ = qkv.shape
    q, k, v = qkv.reshape(n, t, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    weights = torch.softmax(q @ k.transpose(-2, -1) * scale, -1)
    return (weights @ v).transpose(1, 2).reshape(n, t, -1)


def _timm(self: Any, x: Tensor) -> Tensor:
    return self.proj(_attention(self.qkv(x), self.num_heads, self.scale))  # type: ignore[no-any-return]


def _jets(self: Any, x: Tensor) -> Tensor:
    return self.proj(_attention(self.qkv(x), self.heads, self.scale))  # type: ignore[no-any-return]


def _hybrid(self: Any, x: Tensor) -> Tensor:
    x = x + self.proj(_attention(self.qkv(self.norm1(x)), self.heads, self.scale))
    return x + self.reduce(nn.functional.gelu(self.expand(self.norm2(x))))  # type: ignore[no-any-return]


_FORWARD = {metaformer.Attention: _timm, TokenAttention: _jets, _AttentionBlock: _hybrid}


def _mended(model: nn.Module) -> str:
    kinds = {type(m) for m in model.modules()}
    done = []
    if kinds & set(_FORWARD):
        done.append("attention's forward, its scale kept")
    if metaformer.Scale in kinds:
        done.append("shapes of timm's scales")
    if TSMixer in kinds:
        done.append("layers over time left out, and so what is added to them")
    return "by hand: " + (", ".join(done) or "nothing")


def _flops(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*example)
    return counter.get_total_flops()
