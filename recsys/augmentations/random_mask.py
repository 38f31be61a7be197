"""Random feature masking (RFM): what one view hides at random, the other shows."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recsys.augmentations._masks import Per, draw_subset, hide_complements, rows_of, subset_size
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf
from recsys.views import Fields, Views


@settings()
class RandomMask:
    """The features are split at random into two sides; each view shows one.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 3.2, RFM.
    Differs:
        the paper leaves the size of the sides open.

    Attributes:
        mask_rate: share (0..1) of the features that the first view hides; both sides keep one at least.
        item_id: features of kind `id` are `drawn` to a side at random, or `masked` in both views.
        per: one split for each `batch`, or for each `item` of it.
    """

    masks: ClassVar[bool] = True

    mask_rate: Annotated[float, Between(0.1, 0.9)] = Field(default=0.5, gt=0, lt=1)
    item_id: Literal["drawn", "masked"] = "drawn"
    per: Per = "batch"

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Hide a drawn subset in the first view, its complement in the second."""
        names, rows = fields.content, rows_of(views, self.per)
        first = draw_subset(fields, names, subset_size(self.mask_rate, names), rows, seed)
        return hide_complements(views, fields, first, self.item_id, rows, seed)
