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
from torch import Tensor, nn

from edgemix import files
from edgemix.data import jets
from edgemix.errors import InputError
from edgemix.models.jets import MODELS
from edgemix.models.jets.transformer import Encoder
from edgemix.models.metaformer import Block
from edgemix.models.mixers.global_pooling import GlobalPooling

JETS, SEED = 100_000, 0
"""Jets to learn from: none of them is in ``jets:train`` or ``jets:heldout``."""

EPOCHS = 20
BATCH = 256
LARGEST_GRADIENT = 1.0

LIMIT = 4.0
"""Beyond it, values are penalized: those of the inputs end there too."""

OUTLIER_PENALTY = 0.02
"""On the square of what lies beyond, summed over a jet."""


def train(
    name: str, epochs: int = EPOCHS, count: int = JETS, *, show: bool = False
) -> tuple[nn.Module, float]:
    """The trained model and its accuracy on the held-out jets.

    Weight decay, bounded gradients and :class:`_EightBits` prepare it for eight bits: without the
    last, a few jets with values far from all others would cost several points.
    """
    if name not in MODELS:
        raise InputError(f"there is no jet tagger {name}", do=f"choose from {', '.join(MODELS)}")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    recipe = MODELS[name]
    x, y = map(torch.from_numpy, jets.MAKERS[recipe.data](count, SEED))
    model = recipe.build()
    eight_bits = _EightBits(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    loss_of = nn.CrossEntropyLoss()
    for _ in track(range(epochs), "training", disable=not show):
        model.train()
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(x[index]), y[index])
            (loss + OUTLIER_PENALTY * eight_bits.outliers() / len(index)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
    eight_bits.remove()
    return model.eval(), evaluate(name, model)


class _EightBits:
    """What rounding to the grid of ±LIMIT does, while a model trains.

    Uniform noise of one step stands for the rounding (Défossez et al., "DiffQ", TMLR 2022), and
    what leaves the grid is summed up. One grid for all, because operands of additions share it.
    """

    def __init__(self, model: nn.Module) -> None:
        rounded = (
            nn.Linear,
            nn.Conv2d,
            nn.BatchNorm2d,
            nn.LayerNorm,
            GlobalPooling,
            Block,
            Encoder,
        )
        self.beyond: list[Tensor] = []
        self.hooks = [
            module.register_forward_hook(self._round)
            for module in model.modules()
            if isinstance(module, rounded)
        ]

    def outliers(self) -> Tensor:
        """The sum of squares beyond the limit since the last call."""
        total = torch.stack(self.beyond).sum()
        self.beyond.clear()
        return total

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self.hooks:
            hook.remove()

    def _round(self, module: nn.Module, _: object, output: Tensor) -> Tensor:
        if not module.training:
            return output
        self.beyond.append((output.abs() - LIMIT).relu().square().sum())
        noise = torch.rand(output.shape[1:]) - 0.5  # one for all jets of a batch: far cheaper
        return output + noise * (LIMIT / 128)


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
