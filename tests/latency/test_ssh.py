"""A board over ssh: a real server on the loopback, and every way in which it can go wrong."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgemix.errors import InputError, ToolError
from edgemix.latency.base import Latency
from edgemix.latency.connect import parse
from edgemix.latency.connect.base import Job, Options
from edgemix.latency.connect.ssh import Ssh
from edgemix.latency.samples import ENDED_EARLY, LEFT_OUT
from tests.latency.sshd import Server, free_port, make_key, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


def write_model(path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def measure(
    server: Server, job: Job, *, python: str = sys.executable, config: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Latency, ...]:  # fmt: skip
    options = Options(python, config or server.config)
    return parse(f"ssh:{server.address}", options).measure(job, progress)


def stand_in(folder: Path, body: str) -> str:
    """A Python there that does something else."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def left_there(server: Server) -> list[Path]:
    """What is still in the board's temporary folder, once what ends there has ended."""
    for _ in range(100):
        if not (found := list(server.scratch.iterdir())):
            break
        time.sleep(0.05)
    return found


LINES = (
    """echo '{"machine": {"cpu": "A72"}, "cases": 1, "warmup": 20}'\n"""
    """echo '{"case": "a runtime", "facts": {"runtime": "x 1"}}'\n"""
)


def times(count: int) -> str:
    return f"""echo '{{"times": {[1000000 + i for i in range(count)]}, "share": 0.5}}'\n"""


def test_a_board_is_measured(server: Server, model: Path) -> None:
    shares: list[float] = []
    (found,) = measure(server, Job(model, 1, 0.3), progress=shares.append)
    assert (found.kind, found.threads, found.warmup) == ("measured", 1, 20)
    assert found.runs >= 190 and 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert found.device == server.address.rpartition(":")[0]
    assert found.method.startswith("ONNX Runtime")
    assert found.environment["runtime"].startswith("onnxruntime ")
    assert {"cpu", "load", "pinned to", LEFT_OUT} <= found.environment.keys()
    assert ENDED_EARLY not in found.environment
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert left_there(server) == []


@pytest.mark.parametrize(
    "name",
    [
        "a b.onnx",
        """it's "x";touch HIT;.onnx""",
        "$(touch HIT)`touch HIT`.onnx",
        "-oProxyCommand=touch HIT.onnx",
        "c:d\nnew.onnx",
    ],
)
def test_a_file_name_is_never_a_command(
    server: Server, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").write_text("the model")
    Path(name).symlink_to("elsewhere")
    python = stand_in(
        tmp_path,
        'grep -q "the model" "$PYTHONPATH/model.onnx" || exit 9\n'
        f"""{LINES}{times(60)}echo '{{"done": true}}'""",
    )
    (found,) = measure(server, Job(Path(name)), python=python)
    assert found.runs == 60
    assert not (tmp_path / "HIT").exists() and not (Path.home() / "HIT").exists()
    assert left_there(server) == []


def test_a_python_is_never_a_command(server: Server, tmp_path: Path, model: Path) -> None:
    hit = tmp_path / "HIT"
    with pytest.raises(ToolError, match="has no Python called"):
        measure(server, Job(model), python=f"x; touch {hit}; $(touch {hit})")
    assert not hit.exists()


@pytest.mark.parametrize(
    "address",
    ["", "-oProxyCommand=x", "me@-x", "a b", "a;b", "me@host:0", "me@host:99999", "host:22:33",
     "-l@host", "$(x)@host", "me@", "host\n"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="no address for ssh") as error:
        parse(f"ssh:{address}")
    assert error.value.do == "write ssh:USER@HOST[:PORT]"


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("pi@raspberrypi.local", "pi@raspberrypi.local", None),
        ("jetson", "jetson", None),
        ("a.b-c@10.0.0.2:2222", "a.b-c@10.0.0.2", 2222),
        ("pi@[fe80::1%eth0]:22", "pi@fe80::1%eth0", 22),
    ],
)
def test_addresses(address: str, host: str, port: int | None) -> None:
    found = Ssh.at(address, Options())
    assert (found.host, found.port) == (host, port)


def test_an_unknown_host_is_not_trusted(server: Server, tmp_path: Path, model: Path) -> None:
    config = with_known_hosts(server, tmp_path, "")
    with pytest.raises(ToolError, match="the host key of .* is unknown") as error:
        measure(server, Job(model), config=config)
    assert error.value.do is not None
    assert error.value.do.startswith(f"ssh -p {server.port} ")
    assert not (tmp_path / "known_hosts").read_text()


def test_a_changed_host_key_is_not_trusted(server: Server, tmp_path: Path, model: Path) -> None:
    make_key(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    config = with_known_hosts(server, tmp_path, f"[127.0.0.1]:{server.port} {kind} {key}\n")
    with pytest.raises(
        ToolError, match="is not the one that it had: another machine, or an attack"
    ):
        measure(server, Job(model), config=config)


def with_known_hosts(server: Server, folder: Path, text: str) -> Path:
    (folder / "known_hosts").write_text(text)
    config = folder / "ssh_config"
    said = server.config.read_text()
    config.write_text(said.replace(str(server.known_hosts), str(folder / "known_hosts")))
    return config


def test_a_user_without_a_key_is_told_how_to_get_in(
    server: Server, tmp_path: Path, model: Path
) -> None:
    make_key(tmp_path / "stranger")
    config = tmp_path / "ssh_config"
    said = server.config.read_text()
    config.write_text(said.replace(f"{server.folder}/user_key", f"{tmp_path}/stranger"))
    with pytest.raises(ToolError, match="does not let this user in without a password") as error:
        measure(server, Job(model), config=config)
    assert error.value.do is not None and error.value.do.startswith("ssh-copy-id")


def test_a_refused_connection(server: Server, model: Path) -> None:
    away = parse(f"ssh:me@127.0.0.1:{free_port()}", Options(ssh_config=server.config))
    with pytest.raises(ToolError, match="refuses the connection"):
        away.measure(Job(model), lambda _: None)


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="there is no ssh on this machine"):
        parse("ssh:me@host").measure(Job(model), lambda _: None)


def test_a_connection_that_drops_keeps_what_arrived(server: Server, model: Path) -> None:
    once = threading.Event()

    def cut(_: float) -> None:
        if not once.is_set():
            once.set()
            server.drop()

    (found,) = measure(server, Job(model, 1, 60.0), progress=cut)
    assert found.environment[ENDED_EARLY] == (
        "the connection was lost; these are the samples that arrived"
    )
    assert found.runs >= 50
    # The board's side notices at its next line, ends, and its folder goes.
    assert left_there(server) == []


def test_a_connection_that_drops_too_early_is_an_error(
    server: Server, tmp_path: Path, model: Path
) -> None:
    python = stand_in(tmp_path, f"{LINES}{times(49)}sleep 2\necho '{{}}'; exit 1")
    with pytest.raises(ToolError, match="the connection was lost after 49 samples, 50 are needed"):
        measure(server, Job(model), python=python, progress=lambda _: server.drop())
    assert left_there(server) == []


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("echo Welcome to the board; echo more; sleep 1; echo x", "'Welcome to the board'"),
        ("echo '[1, 2]'", "'[1, 2]'"),
        ('echo \'{"times": [1], "share": 0}\'', '\'{"times": [1], "share": 0}\''),
        (f'{LINES}echo \'{{"times": [-1], "share": 0}}\'', '\'{"times": [-1]'),
        ("printf '\\033[31mred\\n'", r"'\x1b[31mred'"),
        ("head -c 3000000 /dev/zero | tr '\\0' a", "aaaa…'"),
    ],
)
def test_garbage_is_shown(
    server: Server, tmp_path: Path, model: Path, body: str, shown: str
) -> None:
    with pytest.raises(ToolError, match=re.escape(shown)) as error:
        measure(server, Job(model), python=stand_in(tmp_path, body))
    assert "told something that is no measurement" in error.value.what
    assert "\n" not in error.value.what
    assert left_there(server) == []


def test_no_samples_is_an_error(server: Server, tmp_path: Path, model: Path) -> None:
    python = stand_in(tmp_path, f"{LINES}{times(0)}echo '{{\"done\": true}}'")
    with pytest.raises(ToolError, match="no time came from"):
        measure(server, Job(model), python=python)
    nothing = stand_in(tmp_path, "echo '{\"done\": true}'")
    with pytest.raises(ToolError, match="told no time"):
        measure(server, Job(model), python=nothing)


@pytest.mark.parametrize(("count", "kept"), [(10, False), (60, True)])
def test_a_board_that_hangs_is_left(
    server: Server, tmp_path: Path, model: Path, count: int, kept: bool
) -> None:
    hangs = stand_in(tmp_path, f"{LINES}{times(count)}sleep 3; echo late; exit 1")
    job = Job(model, timeout_s=2.0)
    if kept:
        (found,) = measure(server, job, python=hangs)
        assert found.environment[ENDED_EARLY].startswith("it took longer than 2 s;")
    else:
        with pytest.raises(ToolError, match=f"longer than 2 s after {count} samples") as error:
            measure(server, job, python=hangs)
        assert error.value.do == "try again, or give it more time with --timeout"
    assert left_there(server) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo 'Segmentation fault' >&2; kill -SEGV $$", r"crashed \(signal 11\)\n.*Segmentation"),
        ("echo 'ImportError: no' >&2; exit 1", "ended with exit code 1\n  [|] ImportError: no"),
        (f"{LINES}{times(90)}exit 3", "ended with exit code 3"),
        ("exit 127", "has no Python called"),
    ],
)
def test_what_fails_there_is_told_here(
    server: Server, tmp_path: Path, model: Path, body: str, message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        measure(server, Job(model), python=stand_in(tmp_path, body))
    assert left_there(server) == []


def test_a_python_without_numpy_says_so(server: Server, tmp_path: Path, model: Path) -> None:
    bare = stand_in(tmp_path, f'exec {sys.executable} -S "$@"')
    with pytest.raises(
        ToolError, match="cannot run the model: it has no Python package numpy"
    ) as e:
        measure(server, Job(model), python=bare)
    assert e.value.do == "pip install numpy, there"


def test_what_is_copied_is_for_the_user_alone(server: Server, tmp_path: Path, model: Path) -> None:
    seen = tmp_path / "seen"
    python = stand_in(tmp_path, f'stat -c "%a %u" "$PYTHONPATH" >{seen}; exit 1')
    with pytest.raises(ToolError):
        measure(server, Job(model), python=python)
    assert seen.read_text().split() == ["700", str(os.getuid())]


def test_a_mac_tells_each_choice_of_units(server: Server, tmp_path: Path) -> None:
    """A written transcript: no Mac was at hand."""
    package = tmp_path / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "model.mlmodel").write_text("spec")
    cases = "".join(
        f"""echo '{{"case": "MLModel.predict, {title}", "facts": {{"operations": "{share}"}}}}'\n"""
        f"""{times(80)}echo '{{"end": {{}}}}'\n"""
        for title, share in (("all compute units", "90% Neural Engine"), ("CPU", "100% CPU"))
    )
    python = stand_in(
        tmp_path,
        f'test -f "$PYTHONPATH/model.mlpackage/Data/model.mlmodel" || exit 9\n'
        """echo '{"machine": {"cpu": "Apple M4"}, "cases": 2, "warmup": 20}'\n"""
        f"""{cases}echo '{{"done": true}}'""",
    )
    mac = parse(f"macos:{server.address}", Options(python, server.config))
    found = mac.measure(Job(package), lambda _: None)
    assert [t.method for t in found] == [
        "MLModel.predict, all compute units",
        "MLModel.predict, CPU",
    ]
    assert found[0].environment["operations"] == "90% Neural Engine"
    assert [t.runs for t in found] == [80, 80]
    with pytest.raises(InputError, match="Core ML does not run x.onnx"):
        mac.measure(Job(tmp_path / "x.onnx"), lambda _: None)
