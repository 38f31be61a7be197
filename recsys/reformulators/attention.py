"""A small transformer over the query and its feedback: learned weights for the items, and a learned rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from recsys.cancellation import checkpoint
from recsys.reformulators import NO_WEIGHTS, Weights, moved, unit
from recsys.registry import settings
from recsys.types import NO_ROW, Feedback, Float32, Reformulated
from twintower.types import FeedbackKind

QUERY_ROLE = len(FeedbackKind)
NEVER = np.float32(-1e9)
"""Added to a logit, it takes a token out of the attention."""


@settings()
class Attention:
    """`unit(q + (1 / n) sum_i g_i v_i + R h_0)` with `g_i = <u, h_i>` over n items.

    `h` are the outputs of a pre-norm transformer over n + 1 tokens: the query, and each item with its kind, rank and
    first score. `u` and `R` start as zeros, so that training starts from the query as it is. The order of the items
    means nothing; their ranks do. `R` learns what the towers got wrong of a whole collection, and needs many queries to
    learn it from; without it (`residual = false`) a query moves among its items' vectors only.

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
        residual: whether `R h_0` is added.
    """

    learned: ClassVar[bool] = True
    reads_extended: ClassVar[bool] = False
    ignores: ClassVar[frozenset[FeedbackKind]] = frozenset()

    width: int = Field(default=128, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    max_rank: int = Field(default=20, ge=1)
    dropout_rate: float = Field(default=0.1, ge=0, lt=1)
    residual: bool = True

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
        }
        if self.residual:
            weights["residual"] = np.zeros((width, dim), np.float32)
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
            weights: as `ready`; none means those before training, which move nothing.
        """
        weights = weights or self.ready(np, self.initial(queries.shape[1], 0))
        item_weights, further = self.direction(np, unit(queries), feedback, weights)
        return moved(queries, feedback, item_weights, further)

    def ready(self, xp: Any, weights: Weights) -> Weights:
        """Return the weights as `direction` takes them: each level (layer normalisation) melted into what it leads to.

        The mean, which a level takes off a token, is taken off all that is ever added to tokens. Their means then stay
        0, but for what dropout takes away in training, and a level only divides by a standard deviation, which comes
        after the product with a matrix as well as before it; its scale and shift go into that matrix and a bias. It
        saves a quarter of the time of a single query.

        Args:
            xp: the array library.
            weights: as `initial`.
        """
        result = {name: _centred(xp, weights[name]) for name in ("query_in", "item_in", "score")}
        role, rank = _centred(xp, weights["role"]), _centred(xp, weights["rank"])
        result["query_role"] = role[QUERY_ROLE]
        result["even"] = np.full((self.width, 1), 1 / self.width, np.float32)
        # One row for each kind at each rank, by `kind * ranks + rank`.
        result["place"] = xp.reshape(role[:QUERY_ROLE, None] + rank, (-1, self.width))
        narrow = np.float32((self.width // self.heads) ** -0.5)
        asking = np.repeat([narrow, np.float32(1)], [self.width, 2 * self.width])
        for layer in range(self.layers):
            matrix, bias = _after(weights[f"{layer}/attention_level"], weights[f"{layer}/attention_in"])
            result[f"{layer}/attention_in"], result[f"{layer}/attention_bias"] = matrix * asking, bias * asking
            result[f"{layer}/attention_out"] = _centred(xp, weights[f"{layer}/attention_out"])
            matrix, bias = _after(weights[f"{layer}/hidden_level"], weights[f"{layer}/hidden_in"])
            result[f"{layer}/hidden_in"] = matrix
            result[f"{layer}/hidden_bias"] = bias + weights[f"{layer}/hidden_bias"]
            result[f"{layer}/hidden_out"] = _centred(xp, weights[f"{layer}/hidden_out"])
        result["item_weight"], result["item_bias"] = _after(weights["level"], weights["item_weight"])
        if self.residual:
            result["residual"], result["residual_bias"] = _after(weights["level"], weights["residual"])
        return result

    def shortened(self, weights: Weights, share: float) -> Weights:
        """Return weights that add a share of what these add to a query.

        Args:
            weights: as `initial`.
            share: 0..1.
        """
        last = {name for name in ("item_weight", "residual") if name in weights}
        return {name: value * np.float32(share) if name in last else value for name, value in weights.items()}

    def direction(
        self, xp: Any, queries: Any, feedback: Feedback, weights: Weights, drop: Callable[[Any], Any] = lambda x: x
    ) -> tuple[Any, Any | None]:
        """Return `g_i / n`, `[batch, k]`, and `R h_0`, `[batch, dim]`, or None without a residual.

        Args:
            xp: the array library.
            queries: `[batch, dim]`, float32, unit length.
            feedback: all kinds, in any order.
            weights: as `ready`.
            drop: dropout in training.
        """
        rank = xp.minimum(feedback.ranks, self.max_rank - 1) - NO_ROW  # 0 where unknown
        items = feedback.vectors @ weights["item_in"]
        items += feedback.scores[:, :, None] * weights["score"]
        items += xp.take(weights["place"], feedback.kinds * (self.max_rank + 1) + rank, axis=0)
        query = queries @ weights["query_in"] + weights["query_role"]
        tokens = xp.concatenate([query[:, None], items], axis=1)
        if xp is np and feedback.present.all():  # as of a server's single query: no gaps to leave out
            out, count = None, np.float32(max(feedback.present.shape[1], 1))
        else:
            there = xp.asarray(feedback.present, np.float32)
            out = xp.pad((np.float32(1) - there) * NEVER, ((0, 0), (1, 0)), "constant")[:, None, None]
            count = xp.maximum(xp.sum(there, axis=1, keepdims=True), np.float32(1))
        for layer in range(self.layers):
            checkpoint()
            tokens += drop(self._attend(xp, tokens, out, weights, layer))
            inner = (tokens @ weights[f"{layer}/hidden_in"]) / _deviation(xp, tokens, weights)
            inner += weights[f"{layer}/hidden_bias"]
            tokens += drop(xp.maximum(inner, np.float32(0)) @ weights[f"{layer}/hidden_out"])
        tokens /= _deviation(xp, tokens, weights)
        item_weights = (tokens[:, 1:] @ weights["item_weight"])[:, :, 0] + weights["item_bias"]
        further = tokens[:, 0] @ weights["residual"] + weights["residual_bias"] if self.residual else None
        return item_weights / count, further

    def _attend(self, xp: Any, tokens: Any, out: Any | None, weights: Weights, layer: int) -> Any:
        _, count, width = tokens.shape
        mixed = (tokens @ weights[f"{layer}/attention_in"]) / _deviation(xp, tokens, weights)
        mixed += weights[f"{layer}/attention_bias"]
        apart = xp.transpose(xp.reshape(mixed, (-1, count, 3, self.heads, width // self.heads)), (2, 0, 3, 1, 4))
        logits = apart[0] @ xp.swapaxes(apart[1], -1, -2)
        if out is not None:
            logits += out
        powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        powers /= xp.sum(powers, axis=-1, keepdims=True)
        together = xp.reshape(xp.swapaxes(powers @ apart[2], 1, 2), (-1, count, width))
        return together @ weights[f"{layer}/attention_out"]


def _centred(xp: Any, rows: Any) -> Any:
    """Return rows without their means."""
    return rows - xp.mean(rows, axis=-1, keepdims=True)


def _after(level: Any, matrix: Any) -> tuple[Any, Any]:
    """Return matrix and bias that do with a divided token what a level, scale and shift, and the matrix do."""
    return level[0][:, None] * matrix, level[1:] @ matrix


def _deviation(xp: Any, tokens: Any, weights: Weights) -> Any:
    """Return the standard deviation over the width, `[batch, tokens, 1]`, of tokens whose means are 0."""
    # For so few numbers a product is quicker than a mean.
    return xp.sqrt((tokens * tokens) @ weights["even"] + np.float32(1e-5))
