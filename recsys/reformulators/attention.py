"""A small transformer over the query and its feedback: learned weights for the items, and a learned rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from recsys.reformulators import NO_WEIGHTS, Weights, moved, unit
from recsys.registry import settings
from recsys.types import NO_ROW, Feedback, FeedbackKind, Float32, Reformulated

QUERY_ROLE = len(FeedbackKind)
NEVER = np.float32(-1e9)
"""Added to a logit, it takes a token out of the attention."""


@settings()
class Attention:
    """`unit(q + (1 / n) sum_i g_i v_i + R h_0)` with `g_i = <u, h_i>` over n items.

    `h` are the outputs of a pre-norm transformer over n + 1 tokens: the query, and each item with its kind, rank and
    first score. `u` and `R` start as zeros, so that training starts from the query as it is. The order of the items
    means nothing; their ranks do.

    Reference:
        Vaswani et al. 2017, arXiv:1706.03762v7, Section 3; pre-norm: Xiong et al. 2020, arXiv:2002.04745v2. One model
        for any number of items and the loss it is made for: Zhu et al. 2022, arXiv:2204.11545.
    Differs:
        the paper's dense model reads the feedback's text; this one reads the vectors that the index has.

    Attributes:
        width: of the tokens; a multiple of `heads`.
        heads: of each layer's attention.
        layers: of the transformer.
        max_rank: ranks that are told apart; later ones count as the last.
        dropout_rate: share (0..1) of hidden values that training drops.
    """

    learned: ClassVar[bool] = True

    width: int = Field(default=128, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    max_rank: int = Field(default=20, ge=1)
    dropout_rate: float = Field(default=0.1, ge=0, lt=1)

    def __post_init__(self) -> None:
        """Check what two settings must keep together."""
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")

    def initial(self, dim: int, seed: int) -> dict[str, Float32]:
        """Return the weights before training, float32.

        Args:
            dim: length of the vectors.
            seed: of the random ones among them.
        """
        random, width = np.random.default_rng([seed, 10]), self.width

        def drawn(rows: int, columns: int) -> Float32:
            return random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

        def level() -> Float32:
            return np.stack([np.ones(width), np.zeros(width)]).astype(np.float32)

        weights = {
            "query_in": drawn(dim, width),
            "item_in": drawn(dim, width),
            "role": drawn(QUERY_ROLE + 1, width),
            "rank": drawn(self.max_rank + 1, width) * np.float32(0.1),
            "score": drawn(1, width),
            "level": level(),
            "item_weight": np.zeros((width, 1), np.float32),
            "residual": np.zeros((width, dim), np.float32),
        }
        for layer in range(self.layers):
            weights |= {
                f"{layer}/attention_level": level(),
                f"{layer}/attention_in": drawn(width, 3 * width),
                f"{layer}/attention_out": drawn(width, width),
                f"{layer}/hidden_level": level(),
                f"{layer}/hidden_in": drawn(width, 2 * width),
                f"{layer}/hidden_bias": np.zeros(2 * width, np.float32),
                f"{layer}/hidden_out": drawn(2 * width, width),
            }
        return weights

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the moved queries, of unit length.

        Args:
            queries: `[batch, dim]`, float32.
            feedback: all kinds, in any order.
            weights: as `initial`; none means those before training, which move nothing.
        """
        weights = weights or self.initial(queries.shape[1], 0)
        item_weights, further = self.direction(np, unit(queries), feedback, weights)
        return moved(queries, feedback, item_weights, further)

    def direction(
        self, xp: Any, queries: Any, feedback: Feedback, weights: Weights, drop: Callable[[Any], Any] = lambda x: x
    ) -> tuple[Any, Any]:
        """Return `g_i / n`, `[batch, k]`, and `R h_0`, `[batch, dim]`.

        Args:
            xp: the array library.
            queries: `[batch, dim]`, float32, unit length.
            feedback: all kinds, in any order.
            weights: as `initial`.
            drop: dropout in training.
        """
        there = xp.asarray(feedback.present, np.float32)
        rank = xp.minimum(feedback.ranks, self.max_rank - 1) - NO_ROW  # 0 where unknown
        items = feedback.vectors @ weights["item_in"] + feedback.scores[:, :, None] * weights["score"]
        items = items + xp.take(weights["role"], feedback.kinds, axis=0) + xp.take(weights["rank"], rank, axis=0)
        query = queries @ weights["query_in"] + weights["role"][QUERY_ROLE]
        tokens = xp.concatenate([query[:, None, :], items], axis=1)
        out = xp.concatenate([xp.zeros_like(queries[:, :1]), (np.float32(1) - there) * NEVER], axis=1)[:, None, None, :]
        for layer in range(self.layers):
            tokens = tokens + drop(self._attend(xp, tokens, out, weights, layer))
            inner = _levelled(xp, tokens, weights[f"{layer}/hidden_level"]) @ weights[f"{layer}/hidden_in"]
            inner = xp.maximum(inner + weights[f"{layer}/hidden_bias"], np.float32(0))
            tokens = tokens + drop(inner @ weights[f"{layer}/hidden_out"])
        tokens = _levelled(xp, tokens, weights["level"])
        count = xp.maximum(xp.sum(there, axis=1, keepdims=True), np.float32(1))
        return (tokens[:, 1:] @ weights["item_weight"])[:, :, 0] / count, tokens[:, 0] @ weights["residual"]

    def _attend(self, xp: Any, tokens: Any, out: Any, weights: Weights, layer: int) -> Any:
        _, count, width = tokens.shape
        mixed = _levelled(xp, tokens, weights[f"{layer}/attention_level"]) @ weights[f"{layer}/attention_in"]
        apart = xp.transpose(xp.reshape(mixed, (-1, count, 3, self.heads, width // self.heads)), (2, 0, 3, 1, 4))
        logits = apart[0] @ xp.swapaxes(apart[1], -1, -2) * np.float32((width // self.heads) ** -0.5) + out
        powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        attended = (powers / xp.sum(powers, axis=-1, keepdims=True)) @ apart[2]
        together = xp.reshape(xp.transpose(attended, (0, 2, 1, 3)), (-1, count, width))
        return together @ weights[f"{layer}/attention_out"]


def _levelled(xp: Any, tokens: Any, level: Any) -> Any:
    """Return layer normalisation over the last axis; `level` holds scale and shift."""
    width = tokens.shape[-1]
    mean = np.full((width, 1), 1 / width, np.float32)  # for so few numbers a product is quicker than `mean`
    centred = tokens - tokens @ mean
    variance = (centred * centred) @ mean
    return centred / xp.sqrt(variance + np.float32(1e-5)) * level[0] + level[1]
