"""What the packed layers multiply with, written from the master weights that the optimizer steps.

K = slots, P = adapter parameters of one slot with padding, R = largest trained rank of any slot at a site, S = largest
number of frozen components there, D = inputs, F = outputs.

A site's compute tensors are `down` (K, R + S, D) and `up` (K, F, R + S): the trained components first, the frozen ones
behind them. Gradients of frozen components are computed with the others, in one product, and left behind. Where slots
have gates, `down` of the trained components is multiplied by them.
"""

import torch

from rankwise.lora.gates import Gates
from rankwise.lora.layout import Layout


class ComputeTensors:
    """Compute tensors and their gradient buffers for all sites; views of the master's wherever nothing differs."""

    def __init__(
        self,
        weights_KP: torch.Tensor,
        grads_KP: torch.Tensor,
        frozen_KP: torch.Tensor,
        *,
        layout: Layout,
        frozen_layout: Layout,
        dtype: torch.dtype,
        gates: Gates | None = None,
    ) -> None:
        """`weights_KP` and `grads_KP` lie as in `layout`, `frozen_KP` as in `frozen_layout`; `gates` None: no slot has
        any."""
        self._weights_KP = weights_KP
        self._grads_KP = grads_KP
        self._frozen_KP = frozen_KP
        self._layout = layout
        self._frozen_layout = frozen_layout
        self._gates = gates
        self._differs = bool(frozen_layout.places) or gates is not None
        self._own_layout = layout.widened(frozen_layout)
        shape = (len(weights_KP), self._own_layout.num_params)
        plain = not self._differs and dtype == weights_KP.dtype
        self._own_KP = weights_KP if plain else weights_KP.new_zeros(shape, dtype=dtype)
        self._own_grads_KP = grads_KP.new_zeros(shape) if self._differs else grads_KP

    def views(self, site: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`down`, `up` and their gradients as the packed layer of `site` uses them."""
        place = self._own_layout.place(site)
        return *place.views(self._own_KP), *place.views(self._own_grads_KP)

    def num_trained(self, site: str) -> int:
        """R: where the frozen components begin."""
        return self._layout.place(site).rank

    def write(self) -> None:
        """Bring the master weights into the compute tensors."""
        if not self._differs:
            if self._own_KP is not self._weights_KP:
                self._own_KP.copy_(self._weights_KP)
            return
        for place in self._layout.places:
            (down, up), (own_down, own_up) = self._pair(place.site.name, self._weights_KP, self._own_KP)
            own_down.copy_(down if self._gates is None else self._gates.apply(place.site.name, down))
            own_up.copy_(up)

    def write_frozen(self) -> None:
        """Bring the frozen components in; they do not change after that."""
        for place in self._frozen_layout.places:
            down, up = place.views(self._frozen_KP)
            own_down, own_up = self._own_layout.place(place.site.name).views(self._own_KP)
            first = self.num_trained(place.site.name)
            own_down[:, first:].copy_(down)
            own_up[:, :, first:].copy_(up)

    def pull_gradients(self) -> None:
        """Bring the gradients of all backward passes since `zero_gradients` to the master's rows."""
        if not self._differs:
            return
        for place in self._layout.places:
            (down, up), (own_down, own_up) = self._pair(place.site.name, self._grads_KP, self._own_grads_KP)
            if self._gates is not None:
                master_down, _ = place.views(self._weights_KP)
                own_down = self._gates.pull(place.site.name, master_down, own_down)
            down.copy_(own_down)
            up.copy_(own_up)

    def zero_gradients(self) -> None:
        self._grads_KP.zero_()
        if self._differs:
            self._own_grads_KP.zero_()

    def _pair(
        self, site: str, master_KP: torch.Tensor, own_KP: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """`down` and `up` of the trained components, in the master's rows and in the compute tensors."""
        down, up = self._own_layout.place(site).views(own_KP)
        rank = self.num_trained(site)
        return self._layout.place(site).views(master_KP), (down[:, :rank], up[:, :, :rank])
