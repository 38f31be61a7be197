"""LibRecommender's TwoTower, in an environment of its own: `python -m benchmarks.peers.librecommender FOLDER`.

Equal features, widths and layers, unit length, temperature, its own correction for popularity and removal of accidental
hits. It knows no Adagrad: it trains by Adam, which moves every row of every table in each step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.examples import Examples
from benchmarks.peers.protocol import BATCH_SIZE, DIM, HIDDEN, TEMPERATURE, WIDTH, Measured, Subject, measure, serve

WARM_UP_STEPS = 5


def subjects(folder: Path) -> dict[str, Subject]:
    """Return the model over the benchmark's examples."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import pandas as pd
    from libreco.algorithms import TwoTower
    from libreco.batch import get_batch_loader, get_tf_feeds
    from libreco.data import DatasetFeat, TransformedSet
    from libreco.training.dispatch import get_trainer

    examples = Examples.load(folder)
    (user, *user_features), (item, *item_features) = examples.query, examples.item
    frame = pd.DataFrame({"user": examples.query[user], "item": examples.item[item], "label": 1})
    for name in (*user_features, *item_features):
        frame[name] = examples.columns[name]
    everything, info = DatasetFeat.build_trainset(
        frame, user_col=user_features, item_col=item_features, sparse_col=[*user_features, *item_features]
    )
    model = TwoTower(
        "ranking",
        info,
        loss_type="softmax",
        embed_size=WIDTH,
        norm_embed=True,
        n_epochs=1,
        batch_size=BATCH_SIZE,
        use_bn=False,
        hidden_units=(HIDDEN, DIM),
        use_correction=True,
        temperature=TEMPERATURE,
        remove_accidental_hits=True,
    )
    # What `fit` does before it calls `trainer.run`, which takes any number of examples.
    model.item_corrections = np.bincount(everything.item_indices, minlength=info.n_items) / len(everything)
    model.build_model()
    trainer = get_trainer(model)
    done = 0

    def subject(steps: int) -> Measured:
        nonlocal done
        places = np.arange(done * BATCH_SIZE, (done + steps) * BATCH_SIZE) % len(everything)
        done += steps
        block = TransformedSet(*everything[places], everything.sparse_indices[places])
        last_batch = TransformedSet(*everything[places[-BATCH_SIZE:]], everything.sparse_indices[places[-BATCH_SIZE:]])

        def train() -> None:
            trainer.run(
                block,
                neg_sampling=True,
                verbose=0,
                shuffle=True,
                eval_data=None,
                metrics=None,
                k=10,
                eval_batch_size=BATCH_SIZE,
                eval_user_num=None,
                num_workers=0,
            )

        def loss(_: None) -> float:
            loader = get_batch_loader(model, last_batch, True, BATCH_SIZE, False, 0, model.seed)
            return float(model.sess.run(trainer.loss, get_tf_feeds(model, next(iter(loader)), is_training=False)))

        return measure(train, loss)

    subject(WARM_UP_STEPS)
    return {"LibRecommender TwoTower": subject}


if __name__ == "__main__":
    serve(lambda: subjects(Path(sys.argv[1])))
