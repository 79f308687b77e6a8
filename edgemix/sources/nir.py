"""``FILE.nir?like=snntorch``, ``FILE.nir?dt=1e-4&reset=zero&when=after&at=ge``: a NIR graph.

The program is one step of it: NIR's neurons have no other form.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

import torch

from edgemix.extras import versions
from edgemix.nir import dialect
from edgemix.nir.files import read
from edgemix.program import Origin, Program
from edgemix.streaming.trace import step_program

_STEPS = 8
"""Of the example that the step form is proven on, a chunk at a time."""


def load(argument: str, *, chunk: int | None = None) -> Program:
    """The program of a NIR file.

    Raises:
        InputError: the dialect is not said, or the file cannot be used.
    """
    name, _, query = argument.partition("?")
    spoken = dialect.parse(dict(parse_qsl(query, keep_blank_values=True)))
    network = read(Path(name), spoken)
    example = torch.zeros(1, _STEPS, *network.shape)
    return step_program(network, example, Origin(argument, versions("nir", "torch")), chunk=chunk)
