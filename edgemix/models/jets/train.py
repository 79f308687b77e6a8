"""Train a jet tagger: ``python -m edgemix.models.jets.train NAME [OUT]``.

Two minutes on one core. Jets cost nothing, so it learns from more of them than ``jets:train``
holds, which leaves those for calibration. The result depends on the machine in its last digits, so
the shipped weights are kept, and a test asks only that training reaches the same accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from rich.progress import track
from torch import nn

from edgemix import files
from edgemix.data import jets
from edgemix.errors import InputError
from edgemix.models.jets import MODELS

JETS, SEED = 100_000, 0
"""Jets to learn from: none of them is in ``jets:train`` or ``jets:heldout``."""

EPOCHS = 20
BATCH = 256
LARGEST_GRADIENT = 1.0


def train(
    name: str, epochs: int = EPOCHS, count: int = JETS, *, show: bool = False
) -> tuple[nn.Module, float]:
    """The trained model and its accuracy on the held-out jets.

    Weight decay and bounded gradients keep weights and activations in a narrow range, which is
    what eight bits after training need.
    """
    if name not in MODELS:
        raise InputError(f"there is no jet tagger {name}", do=f"choose from {', '.join(MODELS)}")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    recipe = MODELS[name]
    x, y = map(torch.from_numpy, jets.MAKERS[recipe.data](count, SEED))
    model = recipe.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    loss_of = nn.CrossEntropyLoss()
    for _ in track(range(epochs), "training", disable=not show):
        model.train()
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            optimizer.zero_grad()
            loss_of(model(x[index]), y[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
    return model.eval(), evaluate(name, model)


def evaluate(name: str, model: nn.Module) -> float:
    """Accuracy on the held-out jets."""
    held_out = jets.part(MODELS[name].data, "heldout")
    with torch.no_grad():
        found = model(torch.tensor(held_out.samples)).argmax(1)
    return float((found == torch.tensor(held_out.labels)).float().mean())


def main() -> None:
    """Train and write the weights."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    path = Path(__file__).with_name(f"{name}.safetensors")
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else path
    model, accuracy = train(name, show=True)
    files.write_bytes(path, safetensors.torch.save(model.state_dict()))
    print(f"{accuracy:.2%} of the held-out jets; {path}")


if __name__ == "__main__":
    main()
