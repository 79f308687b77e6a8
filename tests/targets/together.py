"""Many small models as one, so that a converter and a runtime start once for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgemix import proof, targets
from edgemix.program import Program

Kinds = Mapping[str, type[nn.Module]]

SAMPLES = torch.randn(30, 4, 4, 6, generator=torch.Generator().manual_seed(1))


class Together(nn.Module):
    """Every kind reads the input, and gives an output of its own."""

    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kinds = nn.ModuleList(make() for make in kinds.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(kind(x) for kind in self.kinds)


def missed(kinds: Kinds, program: Program, name: str, folder: Path) -> list[str]:
    """Of which kinds a target's artifact misses the contract."""
    target = targets.load(name)
    assert target.supports(program) == ()
    contract = target.promise(program)
    file, place = folder / "program.edgemix", folder / "artifact"
    program.save(file)
    place.mkdir()
    artifact = target.lower(program, file, place)
    found = target.run(artifact, place, (SAMPLES.numpy(),))
    assert found is not None
    outputs = zip(kinds, program.run(SAMPLES), found, program.output_encodings, strict=True)
    return [
        kind for kind, wanted, given, encoding in outputs
        if not proof.compare(wanted.numpy(), given, encoding, contract).passed
    ]  # fmt: skip
