"""edgemix's layers for hls4ml: one layer class whose C++ function and constants are attributes.

Imports hls4ml, so only the child process loads this.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hls4ml.backends import get_backend
from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
from hls4ml.model.attributes import Attribute
from hls4ml.model.layers import Layer, register_layer

CLASS = "Edgemix"
HEADER = "nnet_edgemix.h"


class Edgemix(Layer):  # type: ignore[misc]
    """A call of one function of ``nnet_edgemix.h``."""

    _expected_attributes = [
        Attribute("function", value_type=str),
        Attribute("constants", value_type=str),
        Attribute("out_shape", value_type=list),
    ]

    def initialize(self) -> None:
        """Declare the output."""
        self.add_output_variable(list(self.attributes["out_shape"]))


class _Config(LayerConfigTemplate):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(Edgemix)

    def format(self, node: Any) -> str:
        return (
            f"struct config{node.index} {{\n"
            f"    static const unsigned reuse_factor = {node.get_attr('reuse_factor')};\n"
            f"{node.get_attr('constants')}}};\n"
        )


class _Call(FunctionCallTemplate):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(Edgemix, include_header=[f"nnet_utils/{HEADER}"])

    def format(self, node: Any) -> str:
        inputs = [node.get_input_variable(name) for name in node.inputs]
        output = node.get_output_variable()
        types = ", ".join([*(v.type.name for v in inputs), output.type.name, f"config{node.index}"])
        names = ", ".join([*(v.name for v in inputs), output.name])
        operation = f"nnet::edgemix_{node.get_attr('function')}"
        form = "edgemix_layer" if len(inputs) == 1 else "edgemix_layer2"
        return f"nnet::{form}<{operation}, {types}>({names});"


@cache
def register(backend: str) -> None:
    """Make the layer known to hls4ml and its backend, once a process."""
    register_layer(CLASS, Edgemix)
    chosen = get_backend(backend)
    chosen.register_template(_Config)
    chosen.register_template(_Call)
    chosen.register_source(Path(str(resources.files(__package__) / "templates" / HEADER)))
