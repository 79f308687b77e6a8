"""NIR files of other libraries, their own simulation beside ours; and files that are not NIR."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import rewrites, sources
from edgemix.errors import InputError
from edgemix.models import tiny
from edgemix.nir import dialect, export, files
from edgemix.nir.network import Network
from edgemix.program import Origin
from edgemix.streaming.trace import step_program

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party sources, the first time that they are imported
    import nir
    import norse.torch as norse
    import snntorch
    from norse.torch.utils.export_nir import to_nir as norse_to_nir
    from snntorch import utils
    from snntorch.export_nir import export_to_nir
    from spikingjelly.activation_based import functional, neuron, nir_exchange

STEPS = 200


def inputs() -> Tensor:
    return 2 * torch.rand(1, STEPS, 4, generator=torch.Generator().manual_seed(0))


def linear(a: int, b: int) -> nn.Linear:
    torch.manual_seed(a * 100 + b)
    return nn.Linear(a, b)


def snntorch_net(kind: str) -> tuple[Any, Tensor]:
    def fill(n: int, value: float) -> Tensor:
        return torch.full((n,), value)

    common: dict[str, Any] = {"threshold": fill(16, 1.0), "init_hidden": True}
    cells: dict[str, Callable[[], nn.Module]] = {
        "subtract": lambda: snntorch.Leaky(beta=fill(16, 0.9), **common),
        "zero": lambda: snntorch.Leaky(beta=fill(16, 0.9), reset_mechanism="zero", **common),
        "synaptic": lambda: snntorch.Synaptic(alpha=fill(16, 0.7), beta=fill(16, 0.9), **common),
        "recurrent": lambda: snntorch.RLeaky(
            beta=fill(16, 0.9), linear_features=16, all_to_all=True, **common
        ),
    }
    torch.manual_seed(1)
    net = nn.Sequential(linear(4, 16), cells[kind](), linear(16, 3))
    graph = export_to_nir(net, torch.zeros(4))
    utils.reset(net)
    with torch.no_grad():
        found = torch.stack([net(x[None])[0] for x in inputs()[0]])
    return graph, found


def norse_net(kind: str) -> tuple[Any, Tensor]:
    def fill(n: int, value: float) -> Tensor:
        return torch.full((n,), value)

    def cell(n: int) -> nn.Module:
        common = {
            "tau_mem_inv": fill(n, 100.0), "v_leak": fill(n, 0.0), "v_th": fill(n, 0.1 if kind == "lif_box" else 0.3),
            "v_reset": fill(n, 0.0),
        }  # fmt: skip
        if kind == "lif_box":
            return norse.LIFBoxCell(norse.LIFBoxParameters(**common))
        return norse.LIFCell(norse.LIFParameters(tau_syn_inv=fill(n, 200.0), **common))

    net = norse.SequentialState(linear(4, 16), cell(16), linear(16, 3), cell(3))
    graph = norse_to_nir(net, torch.zeros(4))
    state, found = None, []
    with torch.no_grad():
        for x in inputs()[0]:
            y, state = net(x[None], state)
            found.append(y[0])
    return graph, torch.stack(found)


def spikingjelly_net(kind: str) -> tuple[Any, Tensor]:
    cells: dict[str, Callable[[], nn.Module]] = {
        "lif": lambda: neuron.LIFNode(tau=2.0, v_threshold=0.25),
        "lif, input not scaled": lambda: neuron.LIFNode(tau=5.0, decay_input=False),
        "if": lambda: neuron.IFNode(),
    }
    net = nn.Sequential(linear(4, 16), cells[kind](), linear(16, 3), cells[kind]()).eval()
    graph = nir_exchange.export_to_nir(net, torch.zeros(1, 4))
    functional.reset_net(net)
    with torch.no_grad():
        found = torch.stack([net(x[None])[0] for x in inputs()[0]])
    return graph, found


CASES = [
    *((snntorch_net, kind, f"like=snntorch{'&reset=zero' if kind == 'zero' else ''}")
      for kind in ("subtract", "zero", "synaptic", "recurrent")),
    *((norse_net, kind, "like=norse") for kind in ("lif_box", "lif")),
    *((spikingjelly_net, kind, "like=spikingjelly")
      for kind in ("lif", "lif, input not scaled", "if")),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "kind", "how"), CASES, ids=[f"{m.__name__} {k}" for m, k, _ in CASES]
)
def test_other_libraries_models_give_the_same_spikes(
    make: Callable[[str], tuple[Any, Tensor]], kind: str, how: str, tmp_path: Path
) -> None:
    graph, expected = make(kind)
    path = tmp_path / "model.nir"
    nir.write(str(path), graph)
    program = sources.load(f"{path}?{how}")
    found = program.run(inputs())[0][0]
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    rewritten = rewrites.standard(program, ())
    assert float((rewritten.run(inputs())[0][0] - expected).abs().max()) < 1e-4
    # Both ways: what is written is what was read, bit for bit.
    again = tmp_path / "again.nir"
    files.write(files.read(path, dialect.parse(dict([how.split("&")[0].split("=")]))), again)
    assert files.same(nir.read(str(path)), nir.read(str(again)))


@pytest.mark.filterwarnings("ignore")
def test_the_wrong_dialect_gives_other_spikes(tmp_path: Path) -> None:
    graph, expected = snntorch_net("subtract")
    nir.write(str(path := tmp_path / "model.nir"), graph)
    for how in ("reset=zero", "when=after"):
        found = sources.load(f"{path}?like=snntorch&{how}").run(inputs())[0][0]
        assert not torch.allclose(found, expected, atol=1e-3)


def graph_of(nodes: dict[str, Any], edges: list[tuple[str, str]], size: int = 4) -> Any:
    ends = {
        "input": nir.Input(input_type={"input": np.array([size])}),
        "output": nir.Output(output_type={"output": np.array([size])}),
    }
    return nir.NIRGraph(nodes={**ends, **nodes}, edges=edges, type_check=False)


SPOKEN = dialect.Dialect(1e-4, "subtract", "after", "ge")


def lif(size: int, **more: Any) -> Any:
    full = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, **more}
    return nir.LIF(**{k: np.full(size, v) for k, v in full.items()})


def test_delays_arrive_when_they_should() -> None:
    delay = nir.Delay(delay=np.array([0.0, 1e-4, 3e-4, 2e-4]))
    network = Network(graph_of({"d": delay}, [("input", "d"), ("d", "output")]), SPOKEN)
    x = torch.randn(1, 10, 4)
    y = network(x)[0]
    for i, steps in enumerate((0, 1, 3, 2)):
        assert torch.equal(y[steps:, i], x[0, : 10 - steps, i])
        assert not y[:steps, i].any()


def test_threshold_scale_and_sums_of_edges() -> None:
    nodes = {
        "scale": nir.Scale(scale=np.array([1.0, 2.0, 3.0, 4.0])),
        "threshold": nir.Threshold(threshold=np.ones(4)),
    }
    edges = [("input", "scale"), ("input", "threshold"), ("scale", "threshold")]
    graph = graph_of(nodes, [*edges, ("threshold", "output")])
    x = torch.tensor([[[0.5, 0.25, 0.25, 0.2]]])
    assert torch.equal(Network(graph, SPOKEN)(x)[0, 0], torch.tensor([1.0, 0.0, 1.0, 1.0]))
    strict = dialect.Dialect(1e-4, "subtract", "after", "gt")
    assert torch.equal(Network(graph, strict)(x)[0, 0], torch.tensor([0.0, 0.0, 0.0, 0.0]))


def test_convolution_pooling_and_flatten() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 1, 3, 3)).astype(np.float32)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([1, 6, 6])}),
        "conv": nir.Conv2d((6, 6), weight, 1, 1, 1, 1, np.zeros(2, np.float32)),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1),
        "lif": lif(18),
        "output": nir.Output(output_type={"output": np.array([18])}),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)), type_check=False)
    network = Network(graph, SPOKEN)
    program = step_program(network, torch.zeros(1, 4, 1, 6, 6), Origin("test"))
    x = torch.randn(2, 30, 1, 6, 6)
    conv = nn.functional.conv2d(x.flatten(0, 1), torch.from_numpy(weight), padding=1)
    current = nn.functional.avg_pool2d(conv, 2).mul(4).flatten(1).unflatten(0, (2, 30))
    membrane, spikes = torch.zeros(2, 18), []
    for t in range(30):
        membrane = membrane * 0.9 + current[:, t]
        spikes.append((membrane >= 1).float())
        membrane = membrane - spikes[-1]
    expected = torch.stack(spikes, 1)
    assert float((program.run(x)[0] == expected).float().mean()) > 0.999


def test_ours_goes_out_and_comes_back() -> None:
    module, example = tiny.lif()
    graph = export.to_nir(module)
    spoken = dialect.Dialect(export.DT, "subtract", "after", "ge")
    # One of the two layers resets to zero, which NIR cannot say: compare up to it.
    network = Network(graph, spoken)
    assert [type(n).__name__ for n in graph.nodes.values()] == [
        "Input", "Affine", "LIF", "Affine", "LIF", "Affine", "LI", "Output",
    ]  # fmt: skip
    assert network.shape == tuple(example.shape[2:])


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({"a": lif(4)}, [("input", "a"), ("a", "b"), ("a", "output")], "there is no node b"),
        ({"a": lif(4), "b": lif(4)}, [("input", "a"), ("a", "output")], "does not reach.* b"),
        ({"a": lif(4)}, [("input", "a")], "0 inputs|1 inputs and 1 outputs|does not reach"),
        ({"a": lif(3)}, [("input", "a"), ("a", "output")], "does not fit it"),
        (
            {"a": nir.Linear(np.zeros((4, 5)))},
            [("input", "a"), ("a", "output")],
            "does not fit it",
        ),
    ],
    ids=["loose edge", "unreached node", "no way out", "neurons", "weights"],
)
def test_graphs_that_hang_together_badly(
    nodes: dict[str, Any], edges: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Network(graph_of(nodes, edges), SPOKEN)


def test_a_node_of_an_unknown_kind_is_named() -> None:
    class Strange(nir.ir.node.NIRNode):
        def __init__(self) -> None:
            self.input_type = self.output_type = {"input": np.array([4])}
            self.metadata = {}

    graph = graph_of({"a": Strange()}, [("input", "a"), ("a", "output")])
    with pytest.raises(InputError, match="of the kind Strange") as caught:
        Network(graph, SPOKEN)
    assert "node a" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a file of that kind", "is no NIR file: it is not HDF5"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 200, "is no NIR graph, or it is damaged"),
        (b"", "is no NIR file"),
    ],
    ids=["text", "truncated", "empty"],
)
def test_files_that_are_not_nir(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.nir"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        sources.load(f"{path}?like=norse")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "does not say dt, reset, when, at"),
        ("?dt=1e-4&reset=zero", "does not say when, at"),
        ("?like=brian", "no dialect brian"),
        ("?like=norse&at=almost", "at=almost says nothing"),
        ("?like=norse&dt=soon", "is no number of seconds"),
        ("?like=norse&dt=0", "a step of 0.0 s is none"),
    ],
)
def test_a_dialect_that_is_not_said(query: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sources.load(f"{tmp_path / 'model.nir'}{query}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        sources.load(f"{tmp_path / 'model.nir'}?like=norse")
