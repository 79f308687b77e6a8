"""What a source gives: a module, an example of its inputs, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgemix.program import Origin


@dataclass(frozen=True)
class SourceModel:
    """A trained module that can be traced."""

    module: nn.Module
    example: tuple[Tensor, ...]
    origin: Origin
