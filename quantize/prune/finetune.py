"""Training what pruning left for a few epochs, towards the outputs of the whole program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.batched import outputs
from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.prune.taught import trainable

_RATES = (1e-2, 3e-3, 1e-3, 3e-4)
"""Learning rates that are tried: what suits depends on the model, and on how much was pruned."""
_TRIAL = 5
"""One step in so many is what a rate is tried for."""
_BATCH = 64
_DECAY = 0.01
_LONGEST_STEP = 1.0
"""Of a step's gradient, in its norm: one odd batch must not undo the others."""
_HELD_OUT = 10
"""One sample in so many is not learnt from."""
_FEWEST = 2 * _HELD_OUT


def finetune(
    whole: Program,
    small: Program,
    samples: Tensor,
    labels: Tensor | None,
    epochs: int,
    on_step: Callable[[float], None] = lambda _: None,
) -> Program:
    """The pruned program after some epochs of training.

    It learns what the whole program answers (Hinton et al., "Distilling the Knowledge in a Neural
    Network", 2015, at temperature 1) and, where that serves samples held out, what labels say.
    All of its weights move, also those that rewrites made, but for the zeros of matrices. What is
    worse than before on samples held out is dropped.

    Args:
        whole: before pruning.
        small: after it, with one input.
        samples: [n, ...]; of a program with states [n, steps, ...].
        labels: classes [n], of sequences those of the last step, or the true outputs [n, ...];
            None: the whole program alone teaches.
        epochs: how often every sample is seen.
        on_step: called with the share that is done.

    Raises:
        InputError: a program with several inputs, too few samples, or labels that do not fit them.
    """
    if len(small.inputs) != 1:
        raise InputError(
            "a pruned program with several inputs cannot be trained here",
            do="train it where the model comes from, or leave out the epochs",
        )
    wanted = outputs(whole, samples)
    _check(samples, labels, wanted, axes=3 if small.states else 2)
    module, run = trainable(small)
    weights = _weights(module)
    learn(run, tuple(weights.values()), samples, wanted, labels, epochs, on_step)
    made = small.module()
    for name, value in weights.items():
        g.set_constant(made, name, value.detach())
    return small.with_module(made, Step("finetune", {"samples": len(samples), "epochs": epochs}))


def learn(
    run: Callable[[Tensor], Tensor],
    weights: Sequence[Tensor],
    samples: Tensor,
    wanted: Tensor,
    labels: Tensor | None,
    epochs: int,
    on_step: Callable[[float], None] = lambda _: None,
) -> None:
    """Train weights in place: AdamW, its rate falling as a cosine.

    Short trainings choose the rate. Labels may teach worse than the whole program alone, where it
    knows the samples better than it can tell: both are tried. What counts is what labels say of
    samples held out or, where there are none, what the teacher says.

    Args:
        run: samples to outputs, by these weights.
        weights: those that move.
        samples: [n, ...].
        wanted: the teacher's outputs: [n, ...].
        labels: as :func:`finetune` takes them.
        epochs: how often every sample is seen, beside the short trainings.
        on_step: called with the share that is done.
    """
    held = torch.arange(len(samples)) % _HELD_OUT == _HELD_OUT - 1
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    kept, seen = order[held], order[~held]
    start = best = [w.detach().clone() for w in weights]
    told = (False,) if labels is None else (True, False)
    steps = epochs * math.ceil(len(seen) / _BATCH)
    trial = math.ceil(steps / _TRIAL)
    every = len(_RATES) * trial + len(told) * steps
    done = 0

    def judged() -> float:
        with torch.no_grad():
            found = torch.cat([run(samples[i]) for i in torch.split(kept, _BATCH)])
        if labels is None:
            return float(_taught(found, wanted[kept], labels))
        return float(_told(found, labels[kept]))

    def trained(rate: float, told: bool, steps: int) -> float:
        nonlocal done

        def loss(index: Tensor) -> Tensor:
            found = run(samples[index])
            taught = _taught(found, wanted[index], labels)
            return taught + _told(found, labels[index]) if labels is not None and told else taught

        _put(weights, start)
        for _ in _descend(loss, weights, seen, rate, steps):
            done += 1
            on_step(done / every)
        found = judged()
        # A rate that was too high may have left no number at all, which is worse than any.
        return math.inf if math.isnan(found) else found

    lowest = judged()
    rate = min(_RATES, key=lambda rate: trained(rate, told[0], trial))
    for way in told:
        if (found := trained(rate, way, steps)) < lowest:
            lowest, best = found, [w.detach().clone() for w in weights]
    _put(weights, best)


def _descend(
    loss: Callable[[Tensor], Tensor], weights: Sequence[Tensor], seen: Tensor, rate: float,
    steps: int,
) -> Iterable[None]:  # fmt: skip
    """One training, step by step."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    left: Sequence[Tensor] = ()
    for _ in range(steps):
        if not left:
            left = torch.split(seen[torch.randperm(len(seen), generator=generator)], _BATCH)
        index, *left = left
        optimizer.zero_grad()
        loss(index).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, _LONGEST_STEP)
        optimizer.step()
        schedule.step()
        yield


def _taught(found: Tensor, wanted: Tensor, labels: Tensor | None) -> Tensor:
    """Of classes, the divergence from the teacher; else squared errors."""
    if labels is None or labels.is_floating_point():
        return nn.functional.mse_loss(found, wanted)
    own, teachers = (y.flatten(0, -2).log_softmax(1) for y in (found, wanted))
    return nn.functional.kl_div(own, teachers, reduction="batchmean", log_target=True)


def _told(found: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of classes; else squared errors."""
    if labels.is_floating_point():
        return nn.functional.mse_loss(found, labels)
    return nn.functional.cross_entropy(found[:, -1] if found.ndim == 3 else found, labels)


def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


def _weights(module: GraphModule) -> dict[str, nn.Parameter]:
    """A graph's float constants by name, made parameters in place."""
    found: dict[str, nn.Parameter] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if not node.users or g.holds_graph(module, node) or name in found:
            continue
        value = g.constant(module, node)
        if value.is_floating_point():
            weight = found[name] = nn.Parameter(value.clone())
            if value.ndim > 1 and not value.all():  # what was made sparse stays so
                weight.register_hook(_masked(value != 0))  # type: ignore[no-untyped-call]
            g.set_constant(module, name, weight)
    return found


def _masked(there: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda slope: slope * there


def _check(samples: Tensor, labels: Tensor | None, outputs: Tensor, axes: int) -> None:
    """Raise where labels do not fit; outputs of so many axes decide for a class."""
    if len(samples) < _FEWEST:
        raise InputError(
            f"{len(samples)} samples are too few to train on", do=f"give {_FEWEST} at least"
        )
    if labels is None:
        return
    wanted = tuple(outputs.shape) if labels.is_floating_point() else (len(samples),)
    if tuple(labels.shape) != wanted:
        raise InputError(
            f"the labels have shape {tuple(labels.shape)}",
            do=f"give {wanted}, for these samples",
        )
    if not labels.is_floating_point() and outputs.ndim != axes:
        raise InputError(
            f"the outputs {tuple(outputs.shape[1:])} are not of one class a sample",
            do="give the true outputs as labels, or none",
        )
