"""What the Temporal Fusion Transformer is made of: gates that can leave a layer out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.sizes import check_size


class GatedSkip(nn.Module):
    """y = norm(x + sigmoid(W₁ z + b₁) ⊙ (W₂ z + b₂)): what a layer says of x, as far as let.

    Lim et al., "Temporal Fusion Transformers", 2021, section 4.1, equations 2 and 5; Dauphin et
    al., "Language Modeling with Gated Convolutional Networks", ICML 2017.

    Shape: x [..., outputs], z [..., features] → [..., outputs].
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features, outputs)
        self.value = nn.Linear(features, outputs)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.norm(x + torch.sigmoid(self.gate(z)) * self.value(z)))


class GatedResidual(nn.Module):
    """A gated residual network: two linear maps with an ELU between, gated and added to the input.

        z = W₁ elu(W₂ x + b₂) + b₁,  y = norm(x + gate(z) ⊙ value(z))

    Lim et al., "Temporal Fusion Transformers", 2021, section 4.1, equations 2 to 4, without the
    optional context. Where there are more or fewer outputs than inputs, x is mapped to as many.

    Shape: [..., features] → [..., outputs].
    """

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        same = features == outputs
        self.residual = nn.Identity() if same else nn.Linear(features, outputs)
        self.widen = nn.Linear(features, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.skip = GatedSkip(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        inner = self.narrow(functional.elu(self.widen(x)))
        return cast(Tensor, self.skip(self.residual(x), inner))


class VariableSelection(nn.Module):
    """A weighted sum of variables, by weights that all of them together choose at every step.

        v = softmax(GRN(all x)),  y = Σ vⱼ GRNⱼ(xⱼ)

    Lim et al., "Temporal Fusion Transformers", 2021, section 4.2, equations 6 to 8. Every variable
    has an embedding and a gated residual network of its own, which all steps share.

    Shape: [n, time, variables] → [n, time, hidden].
    """

    def __init__(self, variables: int, hidden: int) -> None:
        super().__init__()
        self.variables = variables
        self.embed = nn.ModuleList(nn.Linear(1, hidden) for _ in range(variables))
        self.networks = nn.ModuleList(
            GatedResidual(hidden, hidden, hidden) for _ in range(variables)
        )
        self.choose = GatedResidual(variables * hidden, hidden, variables)

    def embedded(self, x: Tensor) -> list[Tensor]:
        """[n, time, hidden] of every variable."""
        check_size(self, "variables", x.shape[2:], (self.variables,))
        return [embed(x[..., i : i + 1]) for i, embed in enumerate(self.embed)]

    def weights(self, embedded: list[Tensor]) -> Tensor:
        """[n, time, variables]: they sum to one."""
        return cast(Tensor, self.choose(torch.cat(embedded, -1))).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        parts = self.embedded(x)
        weights = self.weights(parts)
        seen = [network(part) for network, part in zip(self.networks, parts, strict=True)]
        # A product of matrices for each step: [1, variables] × [variables, hidden].
        return (weights[..., None, :] @ torch.stack(seen, 2)).squeeze(2)
