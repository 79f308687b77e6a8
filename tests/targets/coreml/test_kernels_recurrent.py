"""Recurrent layers against what coremltools' tests compare the real Core ML with.

Its ``mil/ops/tests/iOS14/test_recurrent.py`` holds loops over numpy for GRU and LSTM, which are
followed here, and torch.nn for the rest. With linear functions and small integers nothing is
rounded, so results have to be equal; with the real functions torch.nn in float64 decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix.errors import UnsupportedError

Kernel = Callable[..., tuple[Any, ...]]
Within = Callable[..., None]
Array = np.ndarray

STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 5, 2
U = 2.0**-24

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    # "All activation functions use their standard default values. This makes `tanh` equivalent
    # to `scaled_tanh`."
    "scaled_tanh": np.tanh,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def drawn(seed: int, *shape: int) -> Array:
    return np.random.default_rng([seed, *shape]).integers(-2, 3, shape).astype(np.float32)


def lstm_loop(
    x: Array, h: Array, c: Array, w_x: Array, w_h: Array, b: Array, p: Array, clip: float,
    names: tuple[str, str, str],
) -> tuple[Array, Array, Array]:  # fmt: skip
    """``_get_numpy_prediction_lstm_single_batch``, for a batch and with initial states."""
    inner, cell, outer = (FUNCTIONS[n] for n in names)
    x, h, c, w_x, w_h, b, p = (v.astype(np.float64) for v in (x, h, c, w_x, w_h, b, p))
    (x_i, x_f, x_o, x_g), (h_i, h_f, h_o, h_g) = np.split(w_x, 4), np.split(w_h, 4)
    (b_i, b_f, b_o, b_g), (p_i, p_f, p_o) = np.split(b, 4), np.split(p, 3)
    steps = []
    for now in x:
        i = inner(now @ x_i.T + h @ h_i.T + b_i + c * p_i)
        f = inner(now @ x_f.T + h @ h_f.T + b_f + c * p_f)
        g = cell(now @ x_g.T + h @ h_g.T + b_g)
        c = np.clip(c * f + i * g, -clip, clip)
        o = inner(now @ x_o.T + h @ h_o.T + b_o + c * p_o)
        h = o * outer(c)
        steps.append(h)
    return np.stack(steps), h, c


@pytest.mark.parametrize("outer", FUNCTIONS)
@pytest.mark.parametrize("clip", [None, 3.0])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm(
    direction: str, clip: float | None, outer: str, kernel: Kernel, within: Within
) -> None:
    ways = 2 if direction == "bidirectional" else 1
    x = drawn(0, STEPS, BATCH, INPUTS)
    h, c = drawn(1, BATCH, ways * HIDDEN), drawn(2, BATCH, ways * HIDDEN)
    weights = [
        (
            drawn(i, 4 * HIDDEN, INPUTS),
            drawn(i, 4 * HIDDEN, HIDDEN),
            drawn(i, 4 * HIDDEN),
            drawn(i, 3 * HIDDEN),
        )
        for i in range(ways)
    ]
    if clip is None:  # Two steps, and few weights: else products outgrow float32.
        x = x[:2]
        weights = [
            tuple(np.sign(w) * (np.arange(w.size) % 3 == 0).reshape(w.shape) for w in ws)
            for ws in weights
        ]
    given: dict[str, Any] = {}
    for (w_x, w_h, b, p), suffix in zip(weights, ("", "_back"), strict=False):
        given |= {
            f"weight_ih{suffix}": w_x,
            f"weight_hh{suffix}": w_h,
            f"bias{suffix}": b,
            f"peephole{suffix}": p,
        }
    # All but the outer function linear: then states are integers, and it is rounded alone.
    names = ("linear", "linear", outer)
    given |= dict(
        zip(("recurrent_activation", "cell_activation", "activation"), names, strict=True)
    )
    given["direction"] = direction
    if clip is not None:
        given["clip"] = np.float32(clip)
    bound = np.inf if clip is None else clip
    exact = outer in ("linear", "relu")
    if not exact:
        x, h = x[:1], np.zeros_like(h)  # A rounded state would be multiplied on.

    halves = [slice(None)] if ways == 1 else [slice(HIDDEN), slice(HIDDEN, None)]
    found = [
        lstm_loop(
            x if way == 0 and direction != "reverse" else x[::-1],
            h[:, half],
            c[:, half],
            *weights[way],
            bound,
            names,
        )
        for way, half in enumerate(halves)
    ]
    whole = [s if way == 0 else s[::-1] for way, (s, _, _) in enumerate(found)]
    last = np.concatenate([s[-1:] for s, _, _ in found], -1)
    end_h, end_c = (np.concatenate([f[i] for f in found], -1) for i in (1, 2))
    for output_sequence in (True, False):
        results = kernel(
            "lstm", ["FLOAT32"] * 3, x=x, initial_h=h, initial_c=c,
            output_sequence=output_sequence, **given,
        )  # fmt: skip
        sequence = np.concatenate(whole, -1) if output_sequence else last
        for one, other in zip(results, (sequence, end_h, end_c), strict=True):
            if exact:
                assert np.abs(other).max() < 2**24
                np.testing.assert_array_equal(one.numpy(), other)
            else:
                within(one, other, 6)


@pytest.mark.parametrize("inner", FUNCTIONS)
def test_lstm_gates(inner: str, kernel: Kernel, within: Within) -> None:
    """One step, so that nothing is added to what a function rounds but one product and sum."""
    x, h, c = drawn(0, 1, BATCH, INPUTS), drawn(1, BATCH, HIDDEN), drawn(2, BATCH, HIDDEN)
    shapes = ((4 * HIDDEN, INPUTS), (4 * HIDDEN, HIDDEN), (4 * HIDDEN,), (3 * HIDDEN,))
    w_x, w_h, b, p = (drawn(3, *s) / 4 for s in shapes)
    p[2 * HIDDEN :] = 0  # The output gate would see the cell's rounding.
    results = kernel(
        "lstm", ["FLOAT32"] * 3, x=x, initial_h=h, initial_c=c, weight_ih=w_x, weight_hh=w_h,
        bias=b, peephole=p, recurrent_activation=inner, cell_activation=inner, activation="linear",
    )  # fmt: skip
    names = (inner, inner, "linear")
    expected = lstm_loop(x, h, c, w_x, w_h, b, p, np.inf, names)
    # Gates are right to six roundings of at most 16, as are cells of two products each.
    for one, other in zip(results, expected, strict=True):
        within(one, other, 20, 20 * U * 16)


def gru_loop(
    x: Array, h: Array, w_x: Array, w_h: Array, b: Array, names: tuple[str, str]
) -> Array:  # fmt: skip
    """``get_numpy_prediction_gru_single_batch``: the state is reset before its product."""
    inner, outer = (FUNCTIONS[n] for n in names)
    (x_r, x_o, x_z), (h_r, h_o, h_z), (b_r, b_o, b_z) = (np.split(v, 3) for v in (w_x, w_h, b))
    steps = []
    for now in x:
        z = inner(now @ x_z.T + h @ h_z.T + b_z)
        r = inner(now @ x_r.T + h @ h_r.T + b_r)
        o = outer(now @ x_o.T + (h * r) @ h_o.T + b_o)
        h = (1 - z) * o + z * h
        steps.append(h)
    return np.stack(steps)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("names", [("linear", "linear"), ("relu", "linear"), ("linear", "relu")])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gru_and_rnn(direction: str, names: tuple[str, str], bias: bool, kernel: Kernel) -> None:
    x, h = np.sign(drawn(0, 2, BATCH, INPUTS)), np.sign(drawn(1, BATCH, HIDDEN))
    turned = x if direction == "forward" else x[::-1]
    w_x, w_h = drawn(2, 3 * HIDDEN, INPUTS), drawn(3, 3 * HIDDEN, HIDDEN)
    b = drawn(4, 3 * HIDDEN) if bias else np.zeros(3 * HIDDEN, np.float32)
    expected = gru_loop(turned, h, w_x, w_h, b, names)
    given: dict[str, Any] = {"x": x, "initial_h": h, "direction": direction}
    gru = {"weight_ih": w_x, "weight_hh": w_h, "bias": b if bias else None}
    gru |= dict(zip(("recurrent_activation", "activation"), names, strict=True))
    recurrence = []
    for now in turned:
        h = FUNCTIONS[names[1]](now @ w_x[:HIDDEN].T + h @ w_h[:HIDDEN].T + b[:HIDDEN])
        recurrence.append(h)
    rnn = {
        "weight_ih": w_x[:HIDDEN], "weight_hh": w_h[:HIDDEN], "activation": names[1],
        "bias": b[:HIDDEN] if bias else None,
    }  # fmt: skip
    for name, options, steps in (("gru", gru, expected), ("rnn", rnn, np.stack(recurrence))):
        assert np.abs(steps).max() < 2**24
        for whole in (True, False):
            sequence, last = kernel(
                name, ["FLOAT32"] * 2, output_sequence=whole, **given, **options
            )
            np.testing.assert_array_equal(sequence.numpy(), steps if whole else steps[-1:])
            np.testing.assert_array_equal(last.numpy(), steps[-1])


def reordered(weights: Tensor, parts: int, order: tuple[int, ...]) -> Array:
    blocks = weights.detach().float().chunk(parts)
    return torch.cat([blocks[i] for i in order]).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("kind", "direction"),
    [*itertools.product(["lstm", "gru", "rnn"], ["forward", "reverse"]), ("lstm", "bidirectional")],
)
def test_torchs_layers(
    kind: str, direction: str, dtype: Any, kernel: Kernel, within: Within
) -> None:
    """Torch's gates stand in another order, and its GRU resets behind the product (iOS 18)."""
    results, expected = run_torchs(kind, direction, dtype, kernel)
    # A gate adds up 12 products and two biases of at most 0.5, so it is wrong by 16 roundings of
    # 7 and its own two; a cell is below STEPS and keeps the errors of all steps before, of three
    # gates each; a weight below 0.4 passes a fifth of the state's error on to each gate.
    gate = (16 * 7 + 2) * U
    slack = STEPS * (3 * gate + 8 * U) * STEPS * 1.5**STEPS
    for one, other in zip(results, expected, strict=True):
        within(one, other, 1, slack)


def run_torchs(
    kind: str, direction: str, dtype: Any, kernel: Kernel
) -> tuple[tuple[Tensor, ...], list[Array]]:
    torch.manual_seed(0)
    both = direction == "bidirectional"
    made = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](7, 5, bidirectional=both)
    # The numbers that the kernel gets, in float64.
    layer = made.to(torch.from_numpy(np.zeros(0, dtype)).dtype).double()
    parts, order = {"lstm": (4, (0, 1, 3, 2)), "gru": (3, (0, 2, 1)), "rnn": (1, (0,))}[kind]
    x, h, c = (
        torch.rand(*shape, generator=torch.Generator().manual_seed(i)) * 2 - 1
        for i, shape in enumerate([(STEPS, 3, 7), (1 + both, 3, 5), (1 + both, 3, 5)])
    )
    x, h, c = (torch.from_numpy(v.numpy().astype(dtype)) for v in (x, h, c))
    given: dict[str, Any] = {"direction": direction, "output_sequence": True}
    for suffix, end in (("", ""), ("_back", "_reverse"))[: 1 + both]:
        take = {
            n: getattr(layer, f"{n}_l0{end}")
            for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        for name in ("weight_ih", "weight_hh"):
            given[name + suffix] = reordered(take[name], parts, order).astype(dtype)
        if kind == "gru":
            given["input_bias"] = reordered(take["bias_ih"], parts, order).astype(dtype)
            given["bias"] = reordered(take["bias_hh"], parts, order).astype(dtype)
            given["reset_after"] = True
        else:
            # One bias in MIL; as a float32 its rounding is one more.
            total = take["bias_ih"] + take["bias_hh"]
            given["bias" + suffix] = reordered(total, parts, order)
    states = [h, c] if kind == "lstm" else [h]
    flat = {
        n: torch.cat(list(s), -1).numpy()
        for n, s in zip(("initial_h", "initial_c"), states, strict=False)
    }
    declared = [np.dtype(dtype).name.upper()] * (1 + len(states))
    results = kernel(kind, declared, x=x.numpy(), **flat, **given)
    turned = x.flip(0) if direction == "reverse" else x
    wide = tuple(s.double() for s in states)
    sequence, ends = layer(turned.double(), wide if kind == "lstm" else wide[0])
    ends = ends if kind == "lstm" else (ends,)
    expected = [sequence, *(torch.cat(list(e), -1) for e in ends)]
    return results, [e.detach().numpy() for e in expected]


def test_what_no_layer_has(kernel: Kernel) -> None:
    x, h = drawn(0, 1, 1, 2), drawn(1, 1, 2)
    given = {"x": x, "initial_h": h, "weight_ih": drawn(2, 2, 2), "weight_hh": drawn(3, 2, 2)}
    with pytest.raises(UnsupportedError, match="the activation swish"):
        kernel("rnn", ["FLOAT32"] * 2, activation="swish", **given)
    with pytest.raises(UnsupportedError, match="the direction bidirectional"):
        kernel("rnn", ["FLOAT32"] * 2, direction="bidirectional", **given)
    with pytest.raises(UnsupportedError, match="without weights for its way back"):
        kernel(
            "lstm", ["FLOAT32"] * 3, initial_c=h, direction="bidirectional",
            **given | {"weight_ih": drawn(2, 8, 2), "weight_hh": drawn(3, 8, 2)},
        )  # fmt: skip
