"""Linear attention that conserves what flows into and out of every token (Flowformer)."""

from __future__ import annotations

from torch import Tensor

from edgemix.models.mixers.attention import HeadedMixer


class FlowAttention(HeadedMixer):
    """Sources compete for what flows out of them, sinks are given what flows in.

    With φ = σ, the incoming flow of a sink i is I_i = φ(q_i)ᵀ Σ_j φ(k_j), the outgoing one of a
    source j is O_j = φ(k_j)ᵀ Σ_i φ(q_i). Each is then measured with the other side conserved:
    Î = φ(q)ᵀ Σ φ(k) / O, Ô = φ(k)ᵀ Σ φ(q) / I. The result is

        σ(Î) ⊙ (φ(q) / I)ᵀ (φ(k) (softmax(Ô) ⊙ v)ᵀ).

    Wu et al., "Flowformer: Linearizing Transformers with Conservation Flows", ICML 2022, equations
    5 to 8. The softmax runs over the sources and is times their number, so that equal ones weigh 1.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        q, k = q.sigmoid(), k.sigmoid()
        tokens = q.shape[-1]
        incoming = (q * k.sum(-1, keepdim=True)).sum(2, keepdim=True)
        outgoing = (k * q.sum(-1, keepdim=True)).sum(2, keepdim=True)
        kept_in = (q * (k / outgoing).sum(-1, keepdim=True)).sum(2, keepdim=True)
        kept_out = (k * (q / incoming).sum(-1, keepdim=True)).sum(2, keepdim=True)
        competing = v * (kept_out.softmax(dim=-1) * tokens)
        gathered = (competing @ k.transpose(-2, -1)) @ (q / incoming)
        return gathered * kept_in.sigmoid()
