"""Value dropout: the second stage of the paper's augmentation, on features with several values."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf
from recsys.views import Fields, Views


@settings()
class ValueDropout:
    """Each value of a multi-valued feature is dropped on its own; a feature that loses all counts as masked.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 3.2, second stage.
    Differs:
        the paper does not say what becomes of an emptied bag: it becomes the field's default embedding.

    Attributes:
        rate: probability (0..1) that a value is dropped.
    """

    masks: ClassVar[bool] = False

    rate: Annotated[float, Between(0.05, 0.7)] = Field(default=0.3, gt=0, lt=1)

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Drop values; each view draws on its own, unless no feature can be seen in two of them."""
        codes = dict(views.codes)
        emptied = []
        for place, name in enumerate(fields.names):
            if name not in fields.bags:
                emptied.append(tf.zeros((1, 1), tf.bool))
                continue
            kept_by = views.codes[name]
            if len(kept_by) == 1 and not views.disjoint:
                kept_by *= views.count
            kept_by = tuple(self._drop(bag, seed + [0, place + 1000 * view]) for view, bag in enumerate(kept_by))
            codes[name] = kept_by
            emptied.append(tf.stack([tf.reduce_all(bag < 0, axis=1) for bag in kept_by]))
        rows = tf.shape(codes[fields.names[0]][0])[0]
        hidden = tf.stack([tf.broadcast_to(each, [views.count, rows]) for each in emptied], axis=2)
        return replace(views, codes=codes, masked=views.masked | hidden)

    def _drop(self, bag: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        dropped = tf.random.stateless_uniform(tf.shape(bag), seed) < self.rate
        return tf.where(dropped, -1, bag)
