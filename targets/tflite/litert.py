"""LiteRT's own profiler, through the C interface of the library in its Python package.

The package itself offers no way to it. The interface is the one that LiteRT keeps stable for
programs that load the library: ``litert/c`` in its sources.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemix.errors import ToolError
from edgemix.extras import need

BUILTIN = 2
"""An event's type: a node that the interpreter runs itself."""
DELEGATED = 8
"""An operator that a delegate, XNNPACK, runs."""

_SINCE = (2, 3)
"""Before, a model was loaded with other arguments: they would crash."""
_CPU = 1
_TYPE_BYTES = 512
"""More than a LiteRtRankedTensorType has."""


@dataclass(frozen=True)
class Event:
    """Something that took time in a run."""

    tag: str
    type: int
    us: int
    index: int
    """The node's in the model, or the operator's in the delegate."""
    graph: int
    """The node's subgraph."""


class _Event(ctypes.Structure):
    """``ProfiledEventData`` of ``litert_profiler_event.h``."""

    _fields_ = (
        ("tag", c_char_p), ("type", c_int), ("start_us", c_uint64), ("us", c_uint64),
        ("memory", c_size_t * 6), ("index", c_uint64), ("graph", c_uint64), ("source", c_int),
    )  # fmt: skip


class Profiled:
    """A model on the CPU that tells the events of a run. It lasts as long as its process."""

    def __init__(self, model: str, threads: int) -> None:
        """Load and compile it; its inputs are zeros.

        Raises:
            ToolError: the library is missing, or refuses the model.
        """
        self._library = _library()
        environment = self._made("LiteRtCreateEnvironment", 0, None)
        loaded = self._made("LiteRtCreateModelFromFile", environment, model.encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._texts = [
            (b"runtime_options_string", ctypes.create_string_buffer(b"enable_profiling = true\n")),
            (b"xnnpack", ctypes.create_string_buffer(f"num_threads = {threads}\n".encode())),
        ]
        for name, text in self._texts:
            made = self._made("LiteRtCreateOpaqueOptions", name, text, _KEPT)
            self._call("LiteRtAddOpaqueOptions", options, made)
        self._compiled = self._made("LiteRtCreateCompiledModel", environment, loaded, options)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        signature = self._made("LiteRtGetModelSignature", loaded, c_size_t(0))
        self._inputs = self._buffers("Input", environment, signature)
        self._outputs = self._buffers("Output", environment, signature)

    def run(self) -> tuple[Event, ...]:
        """One inference."""
        self._call("LiteRtStartProfiler", self._profiler)
        self._call(
            "LiteRtRunCompiledModel", self._compiled, c_size_t(0),
            c_size_t(len(self._inputs)), self._inputs,
            c_size_t(len(self._outputs)), self._outputs,
        )  # fmt: skip
        self._call("LiteRtStopProfiler", self._profiler)
        return tuple(self._events())

    def _events(self) -> Iterator[Event]:
        count = c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        for e in events[: count.value]:
            yield Event(e.tag.decode(errors="replace"), e.type, e.us, e.index, e.graph)

    def _buffers(self, side: str, environment: c_void_p, signature: c_void_p) -> Any:
        count = c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        found = (c_void_p * count.value)()
        for i in range(count.value):
            tensor = self._made(f"LiteRtGetSignature{side}TensorByIndex", signature, c_size_t(i))
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            needs = self._made(
                f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, c_size_t(0),
                c_size_t(i),
            )  # fmt: skip
            buffer = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements", environment, kind, needs
            )
            self._call("LiteRtClearTensorBuffer", buffer)
            found[i] = buffer
        return found

    def _made(self, name: str, *arguments: Any) -> c_void_p:
        handle = c_void_p()
        self._call(name, *arguments, ctypes.byref(handle))
        return handle

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise ToolError(f"LiteRT's {name} failed with status {status}")


_KEPT = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)
"""What LiteRT calls to free an option's text: the text is Python's."""


def _library() -> ctypes.CDLL:
    folder = Path(str(need("ai_edge_litert", extra="tflite").__file__)).parent
    found = next(iter(sorted(folder.glob("libLiteRt.*"))), None)
    version = metadata.version("ai-edge-litert")
    if found is None or tuple(map(int, version.split(".")[:2])) < _SINCE:
        raise ToolError(
            f"ai-edge-litert {version} has no profiler that can be reached",
            do=f"pip install 'ai-edge-litert>={'.'.join(map(str, _SINCE))}'",
        )
    return ctypes.CDLL(str(found))
