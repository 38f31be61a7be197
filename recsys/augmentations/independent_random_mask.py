"""Random feature masking without complement (RFM_no_compl): each view hides what it likes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recsys.augmentations._masks import Per, among, draw_coin, draw_subset, hide, rows_of, subset_size
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf
from recsys.views import Fields, Views


@settings()
class IndependentRandomMask:
    """Each view hides a random subset of the features, drawn on its own; what both show is a shortcut.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 4.4, RFM_no_compl.
    Differs:
        the paper leaves the size of the subsets open.

    Attributes:
        mask_rate: share (0..1) of the features that a view hides; it keeps one at least and hides one at least.
        item_id: features of kind `id` are hidden at the same rate (`drawn`), or `masked` in both views.
        per: one draw for each `batch`, or for each `item` of it.
    """

    masks: ClassVar[bool] = True

    mask_rate: Annotated[float, Between(0.1, 0.9)] = Field(default=0.5, gt=0, lt=1)
    item_id: Literal["drawn", "masked"] = "drawn"
    per: Per = "batch"

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Hide a drawn subset in each view."""
        names, rows = fields.content, rows_of(views, self.per)
        size = subset_size(self.mask_rate, names)
        masks = []
        for view in range(views.count):
            masked = draw_subset(fields, names, size, rows, seed + [0, 2 * view])
            if self.item_id == "drawn":
                masked |= draw_coin(fields, fields.ids, self.mask_rate, rows, seed + [0, 2 * view + 1])
            else:
                masked |= tf.constant(among(fields, fields.ids))
            masks.append(masked)
        return hide(views, tf.stack(masks), disjoint=False)
