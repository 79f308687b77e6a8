"""Train the reference model: ``python -m tests.benchmarks.prune.train``, some minutes."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from rich.progress import track
from torch import Tensor, nn

from edgemix import files
from edgemix.data import digits
from tests.benchmarks.prune.models import WEIGHTS, ViT
from tests.benchmarks.ptq import data

BATCH, EPOCHS = 64, 120


def train() -> nn.Module:
    """The trained model."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = ViT()
    x, y = _training()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=-(-len(x) // BATCH) * EPOCHS
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    for _ in track(range(EPOCHS), "training vit"):
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            optimizer.zero_grad()
            loss_of(model(data.posed(x[index], generator)), y[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def _training() -> tuple[Tensor, Tensor]:
    source = digits("train")
    assert source.labels is not None
    return torch.from_numpy(np.array(source.samples)), torch.from_numpy(source.labels)


def main() -> None:
    """Train and write the weights, in 16 bits."""
    model = train()
    stored = {key: value.half() for key, value in model.state_dict().items()}
    files.write_bytes(WEIGHTS / "vit.safetensors", safetensors.torch.save(stored))
    held_out = data.digits32("heldout")
    assert held_out.labels is not None
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(held_out.samples), 100)
        found = torch.cat([model(x) for x in parts]).argmax(1).numpy()
    print(f"vit: {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"{(found == held_out.labels).mean():.2%} right")  # fmt: skip


if __name__ == "__main__":
    main()
