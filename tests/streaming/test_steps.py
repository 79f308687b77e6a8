"""Step forms: known ones, own ones, refused ones; programs with states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.models import tiny
from edgemix.program import Origin, Program, StateSpec
from edgemix.streaming import prove
from edgemix.streaming.forms import form_of
from edgemix.streaming.protocol import State, Stepwise, by_steps, held, zeros
from edgemix.streaming.trace import step_program
from edgemix.streaming.unroll import First, unrolled

ORIGIN = Origin("test")


class Leaky(Stepwise):
    """y = v' = v / 2 + x."""

    def initial_state(self, batch: int = 1) -> State:
        return {"v": zeros(batch, 3)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        v = held(state, "v") * 0.5 + x
        return v, {"v": v}


def run(program: Program, x: Tensor) -> Tensor:
    chunk = program.inputs[0].shape[1] if program.inputs[0].shape[1:] != x.shape[2:] else None
    pieces = x if chunk is None else x.unflatten(1, (-1, chunk))
    y = program.run(pieces)[0]
    return y if chunk is None else y.flatten(1, 2)


@pytest.mark.parametrize("factory", tiny.FACTORIES, ids=lambda f: f.__name__)
def test_steps_are_the_sequence_of_every_model(factory: tiny.Factory) -> None:
    module, example = factory()
    program = step_program(module, example, ORIGIN)
    form = form_of(module)
    assert form is not None and program.states
    x = torch.randn(2, 64, *example.shape[2:], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = form.eval()(x)
    stepped = run(program, x)
    span = float(whole.max() - whole.min())
    assert span > 0.05
    assert float((whole - stepped).abs().max()) < 1e-5 * max(span, 1.0)


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(3, 5, num_layers=3, batch_first=True),
        nn.LSTM(3, 5, bias=False),
        nn.GRU(3, 5, num_layers=2),
        nn.RNN(3, 5, nonlinearity="relu", batch_first=True),
    ],
    ids=["lstm of three layers", "lstm without bias", "gru of two layers", "rnn with relu"],
)
def test_torchs_recurrent_layers_are_known(module: nn.RNNBase) -> None:
    program = step_program(module, torch.zeros(1, 6, 3), ORIGIN)
    x = torch.randn(2, 20, 3)
    with torch.no_grad():
        expected = module(x if module.batch_first else x.transpose(0, 1))[0]
    if not module.batch_first:
        expected = expected.transpose(0, 1)
    torch.testing.assert_close(program.run(x)[0], expected, rtol=0, atol=1e-5)
    assert [s.name for s in program.states][-1] in ("cell_2", "cell_0", "hidden_1", "hidden_0")


def test_a_causal_convolution_is_known() -> None:
    module = nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(3, 5, 3, dilation=2), nn.ReLU())
    program = step_program(module, torch.zeros(1, 3, 12), ORIGIN)
    assert [s.shape for s in program.states] == [(1, 3, 4)]
    x = torch.randn(2, 3, 30)
    with torch.no_grad():
        expected = module(x).transpose(1, 2)
    torch.testing.assert_close(program.run(x.transpose(1, 2))[0], expected, rtol=0, atol=1e-5)


def test_a_module_that_keeps_the_protocol_needs_no_base_class() -> None:
    class Own(nn.Module):
        def initial_state(self, batch: int = 1) -> State:
            return {"sum": torch.full((batch, 2), 0.5)}

        def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
            total = held(state, "sum") + x
            return total, {"sum": total}

    program = step_program(Own(), torch.zeros(1, 4, 2), ORIGIN)
    assert program.states == (StateSpec("sum", (1, 2), initial=(0.5,), fed_by="sum_next"),)
    assert torch.equal(program.run(torch.ones(1, 3, 2))[0][0, :, 0], torch.tensor([1.5, 2.5, 3.5]))


@pytest.mark.parametrize(
    ("chunk", "states"), [(1, (1, 1, 3)), (4, (1, 4, 3))], ids=["one step", "four steps"]
)
def test_a_chunk_is_its_steps(chunk: int, states: tuple[int, ...]) -> None:
    program = step_program(Leaky(), torch.zeros(1, 8, 3), ORIGIN, chunk=chunk)
    assert program.inputs[0].shape == states
    x = torch.randn(2, 12, 3)
    single = step_program(Leaky(), torch.zeros(1, 8, 3), ORIGIN)
    assert torch.equal(run(program, x), single.run(x)[0])


def test_a_thousand_steps_of_state_and_the_start_again() -> None:
    program = step_program(Leaky(), torch.zeros(1, 8, 3), ORIGIN)
    x = torch.randn(3, 1000, 3)
    rollout = program.rollout(x)
    assert torch.equal(rollout.states[0], rollout.outputs[0])
    expected, _ = by_steps(Leaky(), x)
    torch.testing.assert_close(rollout.outputs[0], expected, rtol=0, atol=1e-6)
    again = program.rollout(x[1:2])  # alone, and from the start
    torch.testing.assert_close(again.outputs[0], rollout.outputs[0][1:2], rtol=0, atol=1e-6)


def test_states_that_start_as_one_tensor_are_two() -> None:
    class Both(Leaky):
        def initial_state(self, batch: int = 1) -> State:
            start = zeros(batch, 3)
            return {"v": start, "sum": start}

        def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
            v, total = held(state, "v") * 0.5 + x, held(state, "sum") + x
            return v - total, {"v": v, "sum": total}

    program = step_program(Both(), torch.zeros(1, 8, 3), ORIGIN)
    x = torch.randn(2, 10, 3)
    expected, _ = by_steps(Both(), x)
    torch.testing.assert_close(program.run(x)[0], expected, rtol=0, atol=1e-6)


def test_odd_inputs_of_a_program_with_states() -> None:
    program = step_program(Leaky(), torch.zeros(1, 8, 3), ORIGIN)
    assert program.run(torch.zeros(0, 5, 3))[0].shape == (0, 5, 3)
    assert program.run(torch.zeros(2, 0, 3))[0].shape == (2, 0, 3)
    wide = torch.randn(2, 3, 9).transpose(1, 2)
    assert torch.equal(program.run(wide)[0], program.run(wide.contiguous())[0])
    with pytest.raises(InputError, match=r"steps of shape \(4,\)"):
        program.run(torch.zeros(1, 5, 4))
    with pytest.raises(InputError, match=r"steps of shape \(\)"):
        program.run(torch.zeros(1, 3))
    with pytest.raises(InputError, match="without states has no steps"):
        Program.trace(nn.Linear(3, 2), (torch.zeros(1, 3),), ORIGIN).rollout(torch.zeros(1, 2, 3))


def test_a_program_with_states_comes_back_from_its_file(tmp_path: Path) -> None:
    program = step_program(tiny.gru()[0], torch.zeros(1, 8, 4), ORIGIN)
    program.save(tmp_path / "gru.edgemix")
    again = Program.load(tmp_path / "gru.edgemix")
    assert (again.states, again.digest) == (program.states, program.digest)
    x = torch.randn(2, 20, 4)
    assert torch.equal(again.run(x)[0], program.run(x)[0])


def test_a_bidirectional_lstm_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="reads its sequence from the end") as caught:
        step_program(nn.LSTM(3, 5, bidirectional=True), torch.zeros(1, 8, 3), ORIGIN)
    assert "--unroll instead of --step" in str(caught.value)
    assert "at: test" in str(caught.value)


def test_a_model_that_looks_ahead_is_refused_with_how_far() -> None:
    class Smooth(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.roll(-3, 1)

    assert prove.look_ahead(Smooth(), torch.zeros(1, 20, 2)) == 3
    assert prove.look_ahead(nn.Linear(2, 2), torch.zeros(1, 20, 2)) == 0
    with pytest.raises(InputError, match="changes with inputs 3 positions later"):
        step_program(Smooth(), torch.zeros(1, 20, 2), ORIGIN)


def test_a_model_without_a_step_form_is_told_how_to_get_one() -> None:
    class Cumulative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(1)

    with pytest.raises(InputError, match="no step form that edgemix knows") as caught:
        step_program(Cumulative(), torch.zeros(1, 20, 2), ORIGIN)
    assert "initial_state(batch) and step(x, state)" in str(caught.value)


class Wrong(Leaky):
    """A step form with one fault, by name."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        y, _ = by_steps(Leaky(), x)
        return y + 1 if self.fault == "another model" else y

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if self.fault == "input":
            x.add_(1)
        if self.fault == "state":
            held(state, "v").mul_(0.5)
        if self.fault == "attribute":
            self.count += 1
        if self.fault == "tensor":
            self.last = x.clone()
        y, after = super().step(x, state)
        if self.fault == "shape":
            after = {"v": y[:, :2]}
        if self.fault == "name":
            after = {"w": y}
        if self.fault == "kind":
            after = {"v": [y]}  # type: ignore[dict-item]
        return y, after


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("input", "the step changes its input"),
        ("state", "the step changes the state v that it was given"),
        ("attribute", "the step remembers something in count"),
        ("tensor", "the step remembers something in last"),
        ("shape", r"the state v goes in as \(1, 3\) and comes out as \(1, 2\)"),
        ("name", r"the state v goes in as \(1, 3\) and comes out as None"),
        ("kind", "the state v is a list"),
        ("another model", "step 0 differs from the sequence form"),
    ],
)
def test_what_a_step_must_not_do(fault: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        step_program(Wrong(fault), torch.zeros(1, 8, 3), ORIGIN)


@pytest.mark.parametrize("shape", [(2, 8, 3), (1, 1, 3)], ids=["two sequences", "one step"])
def test_an_example_that_is_no_sequence(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot be taken apart into steps"):
        step_program(Leaky(), torch.zeros(shape), ORIGIN)


def test_a_padding_that_is_not_causal() -> None:
    module = nn.Sequential(nn.ConstantPad1d((1, 1), 0.0), nn.Conv1d(3, 5, 3))
    with pytest.raises(InputError, match="is not causal at stride 1"):
        step_program(module, torch.zeros(1, 3, 12), ORIGIN)


def test_states_that_do_not_fit_their_graph() -> None:
    exported = step_program(Leaky(), torch.zeros(1, 8, 3), ORIGIN).graph
    with pytest.raises(InputError, match=r"the state v is float32 of shape \(1, 4\)"):
        Program.from_exported(exported, ORIGIN, states=(StateSpec("v", (1, 4)),))
    with pytest.raises(InputError, match="has 2 initial values"):
        StateSpec("v", (1, 3), initial=(0.0, 1.0))
    with pytest.raises(InputError, match="starts with NaN or Inf"):
        StateSpec("v", (1, 3), initial=(float("nan"),))


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True),
        nn.GRU(3, 4, bidirectional=True),
        nn.RNN(3, 4, nonlinearity="relu", bias=False, batch_first=True),
    ],
    ids=["lstm of two directions", "gru of two directions", "rnn"],
)
def test_what_looks_ahead_is_unrolled(module: nn.RNNBase) -> None:
    x = torch.randn(2, 7, 3) if module.batch_first else torch.randn(7, 2, 3)
    with torch.no_grad():
        expected, found = module(x), unrolled(module)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    program = Program.trace(First(unrolled(module)), (x,), ORIGIN)
    names = {g.op_name(n) for n in g.float_ops(program.module())}
    assert not names & {"lstm", "gru", "rnn_relu"} and "linear" in names


def test_layers_inside_a_model_are_unrolled_too() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0])

    model, x = Tagger().eval(), torch.randn(1, 6, 3)
    program = Program.trace(unrolled(model), (x,), ORIGIN)
    with torch.no_grad():
        torch.testing.assert_close(program.run(x)[0], model(x), rtol=0, atol=1e-6)
    assert isinstance(model.lstm, nn.LSTM)
