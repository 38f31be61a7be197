"""RecTools' SASRec as a recommender: `python -m benchmarks.peers.rectools_sasrec FOLDER`, in an environment of its own.

Reads and writes a folder of `benchmarks.peers.sequences`. Softmax over the whole catalog, dot product, Adam, positions
counted from the newest item: RecTools' defaults but for the size of the model. Its vectors are taken after several
numbers of epochs of one training, so that validation cases can choose among them.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from benchmarks.peers.sequences import History, Inputs, Vectors

BEHIND = -1e9
"""The score of an item that training does not know."""


def dataset(history: History) -> Dataset:
    """Return interactions as RecTools reads them."""
    frame = pd.DataFrame(
        {
            Columns.User: history.query_row,
            Columns.Item: history.item_row,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(history.timestamp, unit="us"),
        }
    )
    return Dataset.construct(frame)


class Looks(Callback):
    """Collect the vectors at regular intervals of epochs."""

    def __init__(self, model: SASRecModel, inputs: Inputs, folder: Path) -> None:
        self._model = model
        self._inputs, self._folder = inputs, folder
        self._start, self._away_s = time.perf_counter(), 0.0

    def __deepcopy__(self, memo: dict) -> Looks:
        return self

    def on_train_epoch_end(self, trainer: Trainer, module: torch.nn.Module) -> None:
        """Print the loss, and leave the vectors where it is time for a look."""
        epoch, settings = trainer.current_epoch + 1, self._inputs.settings
        print(f"epoch {epoch}: loss {float(trainer.callback_metrics.get('train_loss', float('nan'))):.4f}", flush=True)
        if epoch % settings.look_every_epochs and epoch != settings.epochs:
            return
        left = time.perf_counter()
        parts = {name: self._encoded(module, history) for name, history in self._inputs.histories.items()}
        items = np.zeros((self._inputs.item_count, settings.dim + 1), np.float32)
        items[:, -1] = BEHIND
        known = self._model.data_preparator.get_known_item_ids()
        vectors = module.torch_model.item_model.get_all_embeddings().detach().numpy()
        items[known.astype(int), :-1] = vectors[self._model.data_preparator.get_known_items_sorted_internal_ids()]
        items[known.astype(int), -1] = 0
        self._away_s += time.perf_counter() - left
        Vectors(parts, items, time.perf_counter() - self._start - self._away_s).save(self._folder, epoch)
        module.train()

    def _encoded(self, module: torch.nn.Module, history: History) -> np.ndarray:
        """Return `[queries, dim + 1]`; a query without a known item gets zeros and a 1."""
        users = np.unique(history.query_row)
        preparator = self._model.data_preparator
        asked = preparator.transform_dataset_u2i(dataset(history), users)
        loader = preparator.get_dataloader_recommend(asked, 256)
        found, _ = module._get_user_item_embeddings(loader, "cpu")
        vectors = np.zeros((self._inputs.query_count, self._inputs.settings.dim + 1), np.float32)
        vectors[:, -1] = 1
        vectors[asked.user_id_map.external_ids.astype(int), :-1] = found.numpy()
        return vectors


def trainer(epochs: int) -> Trainer:
    """Return a trainer without files and without lines; RecTools looks it up by its name."""
    return Trainer(
        max_epochs=epochs,
        min_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(inputs: Inputs, folder: Path) -> None:
    """Train once and leave the vectors of every look."""
    settings = inputs.settings
    seed_everything(settings.seed, workers=True)
    model = SASRecModel(
        n_blocks=settings.blocks,
        n_heads=settings.heads,
        n_factors=settings.dim,
        dropout_rate=settings.dropout_rate,
        session_max_len=settings.positions,
        loss="softmax",
        lr=settings.learning_rate,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        get_trainer_func=trainer,
        get_trainer_func_kwargs={"epochs": settings.epochs},
    )
    # RecTools copies its trainer before it trains; the callback is shared by all copies.
    model._trainer.callbacks.append(Looks(model, inputs, folder))
    model.fit(dataset(inputs.histories["train"]))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    train(Inputs.load(Path(sys.argv[1])), Path(sys.argv[1]))
