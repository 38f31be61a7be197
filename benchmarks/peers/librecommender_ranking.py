"""LibRecommender's TwoTower as a recommender: `python -m benchmarks.peers.librecommender_ranking FOLDER`.

Reads and writes the folder of `benchmarks.peers.ranking`, in LibRecommender's own environment and by its public calls:
softmax over the batch, its correction for popularity, removal of accidental hits, unit length, Adam.

It knows only what it met in training. A query that it did not meet gets the vector of an average user, with the query's
own features where there are some (`dyn_user_embedding`). An item that it did not meet has no vector, for its item tower
offers no such call; it is never recommended, so it stands behind all others here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.ranking import PADDING, Features, Inputs, save_vectors

BEHIND = -2.0
"""Below every inner product of two vectors of unit length."""


class Columns:
    """One side's features as LibRecommender names them: one column a value.

    Args:
        side: keeps the names of both sides apart.
        features: codes by feature.
    """

    def __init__(self, side: str, features: Features) -> None:
        self.codes: dict[str, np.ndarray] = {}
        self.single: list[str] = []
        self.several: list[list[str]] = []
        for name, codes in features.items():
            if codes.ndim == 1:
                self.single.append(f"{side} {name}")
                self.codes[f"{side} {name}"] = codes
            else:
                columns = [f"{side} {name} {place}" for place in range(codes.shape[1])]
                self.several.append(columns)
                self.codes |= dict(zip(columns, codes.T, strict=True))

    def of(self, row: int) -> dict[str, int]:
        """Return the values of one row."""
        return {name: int(codes[row]) for name, codes in self.codes.items()}


def train(inputs: Inputs) -> tuple[np.ndarray, np.ndarray, float]:
    """Return query vectors, item vectors and the wall seconds of `fit`."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import pandas as pd
    from libreco.algorithms import TwoTower
    from libreco.data import DatasetFeat

    settings = inputs.settings
    users, items = Columns("query", inputs.queries), Columns("item", inputs.items)
    frame = pd.DataFrame(
        {
            "user": inputs.query_row,
            "item": inputs.item_row,
            "label": np.ones(len(inputs.item_row), np.int8),
            **{name: codes[inputs.query_row] for name, codes in users.codes.items()},
            **{name: codes[inputs.item_row] for name, codes in items.codes.items()},
        }
    )
    data, info = DatasetFeat.build_trainset(
        frame,
        user_col=list(users.codes) or None,
        item_col=list(items.codes) or None,
        sparse_col=users.single + items.single or None,
        multi_sparse_col=users.several + items.several or None,
        pad_val=PADDING,
        seed=settings.seed,
    )
    del frame
    model = TwoTower(
        "ranking",
        info,
        loss_type="softmax",
        embed_size=settings.width,
        norm_embed=True,
        n_epochs=settings.epochs,
        lr=settings.learning_rate,
        batch_size=settings.batch_size,
        use_bn=False,
        hidden_units=(*settings.hidden, settings.dim),
        use_correction=True,
        temperature=settings.temperature,
        remove_accidental_hits=True,
        ssl_pattern=settings.ssl_pattern,
        alpha=settings.alpha,
        seed=settings.seed,
    )
    start = time.perf_counter()
    model.fit(data, neg_sampling=True, verbose=0)
    seconds = time.perf_counter() - start

    known_users, known_items = _rows(info.id2user, info.n_users), _rows(info.id2item, info.n_items)
    # The last row of `user_embeds_np` is LibRecommender's average user.
    queries = np.tile(model.user_embeds_np[info.n_users], (inputs.query_count, 1))
    queries[known_users] = model.user_embeds_np[: info.n_users]
    if users.codes:
        for row in np.setdiff1d(np.arange(inputs.query_count), known_users):
            queries[row] = model.dyn_user_embedding(int(row), user_feats=users.of(row))
    catalogue = np.zeros((inputs.item_count, settings.dim), np.float32)
    catalogue[known_items] = model.item_embeds_np[: info.n_items]
    behind = np.full((inputs.item_count, 1), BEHIND)
    behind[known_items] = 0
    return np.hstack([queries, np.ones((inputs.query_count, 1))]), np.hstack([catalogue, behind]), seconds


def _rows(row_of: dict[int, int], count: int) -> np.ndarray:
    return np.array([row_of[place] for place in range(count)])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    save_vectors(folder, *train(Inputs.load(folder)))
