"""Train a reference model: ``python -m tests.benchmarks.ptq.train NAME``, some minutes each."""

from __future__ import annotations

import sys

import numpy as np
import safetensors.torch
import torch
from rich.progress import track
from torch import Tensor, nn

from edgemix import files
from edgemix.data import digits
from tests.benchmarks.ptq import data
from tests.benchmarks.ptq.models import BUILD, WEIGHTS

BATCH = 64
EPOCHS = {"caformer": 60, "poolformer": 60, "hybrid": 60, "tsmixer": 30}


def train(name: str) -> nn.Module:
    """The trained model."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = BUILD[name]()
    steps = -(-len(_training(name)[0]) // BATCH) * EPOCHS[name]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    loss_of = nn.MSELoss() if name == "tsmixer" else nn.CrossEntropyLoss(label_smoothing=0.05)
    x, y = _training(name)
    for _ in track(range(EPOCHS[name]), f"training {name}"):
        model.train()
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            batch = x[index] if name == "tsmixer" else data.posed(x[index], generator)
            optimizer.zero_grad()
            loss_of(model(batch), y[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def _training(name: str) -> tuple[Tensor, Tensor]:
    if name == "tsmixer":
        past, future = data.series("train").samples, data.futures("train")
        return torch.from_numpy(past), torch.from_numpy(future)
    source = digits("train")
    assert source.labels is not None
    return torch.from_numpy(np.array(source.samples)), torch.from_numpy(source.labels)


def main() -> None:
    """Train and write the weights, in 16 bits."""
    for name in sys.argv[1:] or list(BUILD):
        model = train(name)
        stored = {key: value.half() for key, value in model.state_dict().items()}
        files.write_bytes(WEIGHTS / f"{name}.safetensors", safetensors.torch.save(stored))
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name}: {parameters:,} parameters")


if __name__ == "__main__":
    main()
