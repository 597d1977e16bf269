"""How fast this device multiplies matrices, measured in well under half a second."""

import time

import torch

BUDGET_S = 0.25
"""Time that measuring may take."""
FIRST_EDGE = 32
"""Where the search for a size begins: small, because bfloat16 without hardware support can be 70 times slower than
float32, and in thin products far worse still."""


def measure_matmul_flops(
    num_rows: int, num_in: int, num_out: int, *, dtype: torch.dtype, device: torch.device
) -> float:
    """Best speed of (rows, in) x (in, out) products in FLOP/s.

    All edges grow together, up to those given, while the time allows; the rest of the time repeats the last size.
    """
    edges = (num_rows, num_in, num_out)
    largest, started, fastest = FIRST_EDGE, time.perf_counter(), 0.0
    while True:
        rows, inner, columns = (min(edge, largest) for edge in edges)
        wall_s = _product_s(rows, inner, columns, dtype, device)
        fastest = max(fastest, 2 * rows * inner * columns / wall_s)
        left_s = BUDGET_S - (time.perf_counter() - started)
        if left_s < wall_s:
            return fastest
        if largest < max(edges) and left_s > 2**3 * wall_s:
            largest *= 2


def _product_s(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> float:
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(inner, columns, dtype=dtype, device=device)
    wait_for(device)
    started = time.perf_counter()
    torch.matmul(left, right)
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Until the device has done all that was asked of it, so that a clock read afterwards counts it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
