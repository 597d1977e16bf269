"""Bytes of the tensors that a stretch of work holds at once, counted as torch makes and frees them.

A dispatch mode sees every operation, those of the backward pass and of custom functions included, on any device. What a
kernel allocates inside itself is not seen, nor what the allocator keeps: that is the difference to the measured peak.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """While open, counts what operations allocate; slows every operation down, so nothing is timed meanwhile."""

    def __init__(
        self, known: Iterable[torch.Tensor], is_wide: Callable[[torch.Tensor], bool] = lambda _: False
    ) -> None:
        """`known` are tensors that were there before and are not counted; those of which `is_wide` says so (logits)
        are counted apart."""
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self.wide_bytes = self.wide_peak_bytes = 0
        self._is_wide = is_wide
        self._known = {storage_id(tensor) for tensor in known}
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage_id(tensor)
        if address in self._known or address in self._counted:
            return
        size, wide = storage.nbytes(), self._is_wide(tensor)
        self._counted.add(address)
        self._add(size, wide)
        weakref.finalize(storage, self._free, address, size, wide)

    def _add(self, size: int, wide: bool) -> None:
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if wide:
            self.wide_bytes += size
            self.wide_peak_bytes = max(self.wide_peak_bytes, self.wide_bytes)

    def _free(self, address: int, size: int, wide: bool) -> None:
        self._counted.discard(address)
        self.live_bytes -= size
        if wide:
            self.wide_bytes -= size


def storage_id(tensor: torch.Tensor) -> int:
    """The same for all views of one storage; given again once that is freed."""
    return int(tensor.untyped_storage()._cdata)
