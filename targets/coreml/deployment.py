"""The oldest systems that can load a package: a feature each, with where Core ML documents it."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.coreml.sparse import has_sparse_weights

_MACOS = {15: 12, 16: 13, 17: 14, 18: 15}
_FIRST_VERSION = 6
"""Of the specification, that of iOS 15; each system since has the next."""


def system(version: int) -> str:
    """The oldest systems that load a specification of this version."""
    ios = version - _FIRST_VERSION + 15
    return f"iOS {ios}, macOS {_MACOS[ios]}" if ios in _MACOS else f"specification {version}"


@dataclass(frozen=True)
class Deployment:
    """A minimum deployment target, and the features that ask for it."""

    ios: int
    because: tuple[str, ...]

    @property
    def target(self) -> str:
        """As coremltools names it."""
        return f"iOS{self.ios}"

    def __str__(self) -> str:
        reasons = f": {', '.join(self.because)}" if self.because else ""
        return f"iOS {self.ios}, macOS {_MACOS[self.ios]}{reasons}"


def deployment(program: Program, module: GraphModule) -> Deployment:
    """What a program needs.

    Sources: coremltools' definitions of operators by system (``ops/defs/iOS15`` to ``iOS18``).
    """
    features: list[tuple[int, str]] = []
    dequantizes = [n for n in module.graph.nodes if g.is_dequantize(n)]
    weights = [n for n in dequantizes if g.is_constant(n)]
    if len(weights) < len(dequantizes):
        features.append((17, "quantized activations"))
    if weights:
        # The operator is iOS 16's, but coremltools 9 converts it from iOS 17 on only.
        features.append((17, "quantized weights"))
    if any(g.encoding_of(module, n).group is not None for n in weights):
        features.append((18, "weights in blocks"))
    if program.palettes:
        features.append((16, "palettes"))
    elif has_sparse_weights(module):
        features.append((16, "sparse weights"))
    ios = max((version for version, _ in features), default=15)
    return Deployment(ios, tuple(name for version, name in features if version == ios))
