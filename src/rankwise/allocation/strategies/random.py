"""Control: preferences drawn at random. A strategy that cannot beat this has found nothing.

Log-uniform, because only ratios of preferences matter: a site is as likely to get twice the typical rank as half of it,
and the ratio of any two sites is bounded by `contrast`. The default of 3 is the contrast of `linear_decay`, so the
control is as uneven as what it is compared with.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.streams import stream


class Random(Strategy):
    """A random map. A site's draw depends on its name and `draw` alone, not on which other sites there are."""

    is_control: ClassVar[bool] = True

    draw: int = Field(0, ge=0)
    """Which of the random maps; compare several to see how much an arbitrary map varies."""
    contrast: float = Field(3.0, gt=1, allow_inf_nan=False)
    """Largest possible ratio between the preferences of two sites."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        share_L = np.array([stream(self.draw, "random", site.name).random() for site in sites.sites])
        return self.contrast**share_L
