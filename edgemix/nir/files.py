"""NIR graphs in files, and in memory as the ``nir`` package has them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from torch import nn

from edgemix import files
from edgemix.errors import InputError
from edgemix.extras import need
from edgemix.nir.dialect import Dialect
from edgemix.nir.network import Network


def read(path: Path, dialect: Dialect) -> Network:
    """The network in a NIR file. Nothing in the file is executed.

    Raises:
        InputError: missing, no HDF5 file or no NIR graph, nodes of unknown kinds, loose edges.
    """
    nir = need("nir", extra="nir")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.read_bytes()[:8] != b"\x89HDF\r\n\x1a\n":
        raise InputError(f"{path} is no NIR file: it is not HDF5")
    try:
        graph = nir.read(str(path))
    except Exception as error:  # h5py and nir raise whatever they like on damaged files
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{path} is no NIR graph, or it is damaged: {type(error).__name__}: {reason}"
        ) from error
    return Network(graph, dialect)


def write(module: nn.Module, path: Path) -> None:
    """Write a network, or a module of ours that NIR has words for, whole or absent.

    Raises:
        InputError: NIR has no node for a part of it; or the file cannot be written.
    """
    from edgemix.nir.export import to_nir

    nir = need("nir", extra="nir")
    buffer = io.BytesIO()
    nir.write(buffer, to_nir(module))
    files.write_bytes(path, buffer.getvalue())


def same(a: Any, b: Any) -> bool:
    """Whether two NIR graphs have the same nodes, parameters and edges, bit for bit."""
    import numpy as np

    if type(a).__name__ != type(b).__name__:
        return False
    if type(a).__name__ == "NIRGraph":
        return (
            list(a.nodes) == list(b.nodes)
            and [tuple(e) for e in a.edges] == [tuple(e) for e in b.edges]
            and all(same(a.nodes[n], b.nodes[n]) for n in a.nodes)
        )
    left, right = a.to_dict(), b.to_dict()
    if set(left) != set(right):
        return False
    return all(
        np.array_equal(np.asarray(left[k]), np.asarray(right[k]))
        and np.asarray(left[k]).dtype == np.asarray(right[k]).dtype
        for k in left
        if k != "metadata"
    )
