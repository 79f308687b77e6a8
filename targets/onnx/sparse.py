"""Weights that are mostly zero, as ONNX's sparse initializers: the other numbers and their places.

A place takes eight bytes: of 32-bit numbers two thirds have to be zero before a file shrinks, of
8-bit ones eight ninths. A runtime makes them dense when it loads the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgemix.extras import need

_NUMBERS = 2048
"""Smaller weights are not worth it."""


def shrink(model: Any) -> int:
    """Store weights so that are smaller then, in place; how many."""
    onnx = need("onnx", extra="onnx")
    graph = model.graph
    found = {t.name: _sparse(onnx, t) for t in graph.initializer}
    kept = [t for t in graph.initializer if found[t.name] is None]
    smaller = [s for s in found.values() if s is not None]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.sparse_initializer.extend(smaller)
    return len(smaller)


def dense(graph: Any) -> None:
    """Write sparse initializers as ordinary ones, in place."""
    onnx = need("onnx", extra="onnx")
    for stored in graph.sparse_initializer:
        values, places = (onnx.numpy_helper.to_array(t) for t in (stored.values, stored.indices))
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), tuple(stored.dims))
        whole = np.zeros(math.prod(stored.dims), values.dtype)
        whole[places] = values
        tensor = onnx.numpy_helper.from_array(whole.reshape(tuple(stored.dims)), stored.values.name)
        graph.initializer.append(tensor)
    del graph.sparse_initializer[:]


def _sparse(onnx: Any, tensor: Any) -> Any:
    """A weight's sparse form; None where it is not smaller."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    if tensor.data_type not in kinds or math.prod(tensor.dims) < _NUMBERS:
        return None
    numbers = onnx.numpy_helper.to_array(tensor).reshape(-1)
    places = np.flatnonzero(numbers).astype(np.int64)
    if len(places) * (numbers.itemsize + places.itemsize) >= numbers.nbytes:
        return None
    values = onnx.numpy_helper.from_array(numbers[places], tensor.name)
    stored = onnx.numpy_helper.from_array(places, f"{tensor.name}_places")
    return onnx.helper.make_sparse_tensor(values, stored, tuple(tensor.dims))
