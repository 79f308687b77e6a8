"""Train a demo model: ``python -m edgemix.models.demo.train NAME [OUT]``.

Less than two minutes on two cores. The result depends on the machine in its last digits, so the
shipped weights are kept, and a test asks only that training reaches the same accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from rich.progress import track
from torch import Tensor, nn

from edgemix import data, files
from edgemix.errors import InputError
from edgemix.models.demo import MODELS

EPOCHS = 140
BATCH = 64


def train(
    name: str = "digits", epochs: int = EPOCHS, *, show: bool = False
) -> tuple[nn.Module, float]:
    """The trained model and its accuracy on the held-out digits."""
    if name not in MODELS:
        raise InputError(f"there is no demo model {name}", do=f"choose from {', '.join(MODELS)}")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    training = data.digits("train")
    x, y = torch.from_numpy(training.samples), torch.from_numpy(training.labels)
    model = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    loss_of = nn.CrossEntropyLoss()
    for _ in track(range(epochs), "training", disable=not show):
        model.train()
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            optimizer.zero_grad()
            loss_of(model(_shifted(x[index], generator)), y[index]).backward()
            optimizer.step()
            schedule.step()
    return model.eval(), evaluate(model)


def evaluate(model: nn.Module) -> float:
    """Accuracy on the held-out digits."""
    held_out = data.digits("heldout")
    with torch.no_grad():
        found = model(torch.from_numpy(held_out.samples)).argmax(1)
    return float((found == torch.from_numpy(held_out.labels)).float().mean())


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image moved by −1, 0 or 1 pixel in each direction."""
    n = len(x)
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    dy, dx = torch.randint(0, 3, (2, n), generator=generator)
    rows = dy[:, None, None] + torch.arange(8)[None, :, None]
    columns = dx[:, None, None] + torch.arange(8)[None, None, :]
    return padded[torch.arange(n)[:, None, None], 0, rows, columns][:, None]


def main() -> None:
    """Train and write the weights."""
    name = sys.argv[1] if len(sys.argv) > 1 else "digits"
    path = Path(__file__).with_name(f"{name}.safetensors")
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else path
    model, accuracy = train(name, show=True)
    files.write_bytes(path, safetensors.torch.save(model.state_dict()))
    print(f"{accuracy:.2%} of the held-out digits; {path}")


if __name__ == "__main__":
    main()
