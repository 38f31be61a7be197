"""Correlated feature masking (CFM): features that tell of each other are hidden together."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from recsys.augmentations._masks import Per, among, hide_complements, rows_of
from recsys.registry import settings
from recsys.stack import tf
from recsys.types import Bool
from recsys.views import Fields, Views


@settings()
class CorrelatedMask:
    """One view hides a seed feature with its most dependent partners, the other view hides all other features.

    `masked = {seed} and its min( floor(k / 2), k - 2 ) most dependent features`, seed uniform over the k features

    Were two features that tell of each other on different sides, the task could be solved by translating one into the
    other; so they are kept on one side.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 3.2 and Eq. 4.
    Differs:
        the bound `k - 2` keeps a feature for the other view where k is 2 or 3. The item id is not among the k features
        unless `item_id` says so. It determines every other feature, so by Eq. 4 it is the closest partner of each of
        them, would be masked with every seed, and would leave only k patterns in which one view never has an id.

    Attributes:
        dependence: what orders the partners: `mutual_information` in nats, which grows with the number of values, or
            `normalised`, twice that over the sum of both entropies.
        weighted_by: the population over which it is measured: `items`, each once, or `interactions`.
        item_id: features of kind `id` are `drawn` to a side at random, `ranked` like any other feature, as in the
            paper, or `masked` in both views.
        per: one seed feature for each `batch`, as in the paper, or for each `item` of it.
    """

    masks: ClassVar[bool] = True

    dependence: Literal["mutual_information", "normalised"] = "mutual_information"
    weighted_by: Literal["items", "interactions"] = "items"
    item_id: Literal["drawn", "ranked", "masked"] = "drawn"
    per: Per = "batch"

    def patterns(self, fields: Fields) -> Bool:
        """Return the masked set of each seed feature, `[seeds, features]`, bool."""
        names = fields.names if self.item_id == "ranked" else fields.content
        partners = min(len(names) // 2, len(names) - 2)
        places = np.flatnonzero(among(fields, names))
        dependence = fields.dependence(self.dependence, self.weighted_by)
        masked = np.zeros((len(names), len(fields.names)), bool)
        for row, seed in enumerate(places):
            others = places[places != seed]
            closest = others[np.argsort(-dependence[seed, others], kind="stable")]
            masked[row, [seed, *closest[:partners]]] = True
        return masked

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Hide a drawn pattern in the first view, its complement in the second."""
        patterns, rows = self.patterns(fields), rows_of(views, self.per)
        drawn = tf.random.stateless_uniform([rows], seed, 0, len(patterns), tf.int32)
        first = tf.gather(tf.constant(patterns), drawn)
        return hide_complements(views, fields, first, self.item_id, rows, seed)
