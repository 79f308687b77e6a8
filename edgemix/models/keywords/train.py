"""Train a keyword spotter: ``python -m edgemix.models.keywords.train NAME [OUT]``.

A quarter of an hour on one core, two minutes of them for the speech. It learns from other
utterances than ``keywords:train`` holds, by the same speakers, and none of them speaks in
``keywords:heldout``. The result depends on the machine in its last digits, so the shipped weights
are kept, and a test asks only that training starts to learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from rich.progress import track
from torch import Tensor, nn

from edgemix import files
from edgemix.data import speech
from edgemix.errors import InputError
from edgemix.models.keywords import MODELS
from edgemix.streaming.protocol import Stepwise

UTTERANCES, SEED = 24_000, 0
"""What it learns from: none of them is in ``keywords:train`` or ``keywords:heldout``."""

EPOCHS = 40
BATCH = 128
LAST = 15
"""Steps whose decision counts: the classifier has to be sure at the end, and soon."""

_MOST_BANDS = 5


def train(
    name: str, epochs: int = EPOCHS, count: int = UTTERANCES, *, show: bool = False
) -> tuple[Stepwise, float]:
    """The trained model and its accuracy on the held-out utterances."""
    if name not in MODELS:
        raise InputError(f"there is no keyword spotter {name}", do=f"one of {', '.join(MODELS)}")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x, y = map(torch.from_numpy, speech.kept(count, SEED, "train"))
    model = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in track(range(epochs), "training", disable=not show):
        model.train()
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            optimizer.zero_grad()
            logits = model(_varied(x[index], generator))
            soon = logits[:, -LAST:].flatten(0, 1)
            loss = loss_of(logits[:, -1], y[index])
            (loss + 0.3 * loss_of(soon, y[index].repeat_interleave(LAST))).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval(), evaluate(model)


def _varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """Utterances louder or softer, and with a few bands that are missing."""
    loudness = torch.randn(len(x), 1, 1, generator=generator) * 0.2
    first = torch.randint(x.shape[2], (len(x), 1, 1), generator=generator)
    width = torch.randint(_MOST_BANDS + 1, (len(x), 1, 1), generator=generator)
    band = torch.arange(x.shape[2])
    return (x + loudness).clamp(-4, 4) * ~((band >= first) & (band < first + width))


def evaluate(model: nn.Module) -> float:
    """Accuracy on the held-out utterances, at the end of each."""
    held_out = speech.part("heldout")
    with torch.no_grad():
        found = torch.cat([model(batch)[:, -1].argmax(1) for batch in held_out.batches(200)])
    assert held_out.labels is not None
    return float((found == torch.tensor(held_out.labels)).float().mean())


def main() -> None:
    """Train and write the weights."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    path = Path(
        sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name(f"{name}.safetensors")
    )
    model, accuracy = train(name, show=True)
    files.write_bytes(path, safetensors.torch.save(model.state_dict()))
    print(f"{accuracy:.2%} of the held-out utterances; {path}")


if __name__ == "__main__":
    main()
