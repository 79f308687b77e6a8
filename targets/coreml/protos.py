"""The messages of Core ML's model format, as coremltools brings them, without coremltools."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from edgemix.extras import need

_ALIAS = "edgemix_coreml_proto"


def protos() -> Any:
    """``coremltools.proto.Model_pb2`` as a module of its own.

    Its package imports scikit-learn, transformers and a converter first: seconds, of which reading
    a model needs none. Both may live in one process: equal messages are registered once.

    Raises:
        InputError: coremltools is not installed.
    """
    if _ALIAS not in sys.modules:
        found = importlib.util.find_spec("coremltools")
        if found is None or not found.submodule_search_locations:
            return need("coremltools.proto.Model_pb2", extra="coreml")
        folder = Path(found.submodule_search_locations[0]) / "proto"
        spec = importlib.util.spec_from_file_location(
            _ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[_ALIAS] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_ALIAS}.Model_pb2")
