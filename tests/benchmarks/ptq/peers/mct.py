"""Sony's model-compression-toolkit: post-training quantization for its default platform."""

from __future__ import annotations

from collections.abc import Iterator

import model_compression_toolkit as mct
import torch
from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Its defaults; eight bits, power-of-two or free scales as its platform says."""
    if bits != (8, 8):
        raise Refused("its platform has 8 bits")

    def data() -> Iterator[list[Tensor]]:
        for batch in calibration.split(32):
            yield [batch]

    made, _ = mct.ptq.pytorch_post_training_quantization(model, data)
    made = made.cpu().eval()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([made(batch) for batch in x.split(100)])

    return [Made(run, "weights, and activations of its graph", False, "defaults")]
