import time

import pytest
import torch

from rankwise.profiling.speed import measure_matmul_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2048, 2560, 10240), (8, 8, 8), (1, 5000, 3)])
def test_measuring_ends_in_time_for_every_format_and_shape(dtype, shape):
    started = time.process_time()
    assert measure_matmul_flops(*shape, dtype=dtype, device=CPU) > 0
    assert time.process_time() - started < 2.0  # 0.25 s alone on a core; other processes slow the clock, too


def test_the_speed_is_that_of_the_product_timed_by_hand():
    left, right = torch.ones(256, 256), torch.ones(256, 256)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        torch.matmul(left, right)
        times.append(time.perf_counter() - started)
    by_hand = 2 * 256**3 / min(times)
    assert by_hand / 4 < measure_matmul_flops(256, 256, 256, dtype=torch.float32, device=CPU) < by_hand * 4
