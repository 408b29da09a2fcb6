"""What a GPU can do at most, and the least time that follows from it.

A floor is arithmetic alone: the bytes that have to be read over a bandwidth, the products over their rate. Products
"3xtf32" are those of three TF32 products, which reach the digits of float32.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from gpu.clock import Clock

FLOAT = 4  # bytes
# FP32 instructions of a triple (i, j, l) of the expected volume: the sum, and the sum with all six gradients.
TRIPLE, TRIPLE_WITH_GRADIENTS = 9.7, 37.8


@dataclass(frozen=True)
class Rates:
    """Bytes and floating-point operations a second."""

    memory: float  # copy, counting bytes read and written
    cache: float  # the same within the L2 cache
    cache_bytes: float
    float32: float
    tf32: float

    def products(self, flops: float, precision: str) -> float:
        """Milliseconds of matrix products. precision: "float32", "tf32" or "3xtf32"."""
        return 1e3 * flops / {"float32": self.float32, "tf32": self.tf32, "3xtf32": self.tf32 / 3}[precision]

    def record(self) -> dict[str, float]:
        return asdict(self)


# Copy and (twice) the TF32 rate as measured on an H200; FP32 of its data sheet; an L2 cache of 6 TB/s assumed.
H200 = Rates(memory=4.3e12, cache=6e12, cache_bytes=60 * 2**20, float32=67e12, tf32=395e12)


def pair_count(k: int) -> int:
    return k * (k - 1) // 2


def product_flops(rows: int, width: int, pairs: int) -> float:
    return 2.0 * pairs * rows * rows * width


def iteration(rates: Rates, rows: int, pairs: int, cached: bool) -> float:
    """Milliseconds of one full Sinkhorn iteration: one read of the costs, from the L2 cache or from memory."""
    return 1e3 * FLOAT * pairs * rows * rows / (rates.cache if cached else rates.memory)


def stays_cached(rates: Rates, rows: int) -> bool:
    """Whether the costs of one pair stay in the L2 cache while it is iterated on."""
    return FLOAT * rows * rows <= rates.cache_bytes / 2


def transport(rates: Rates, rows: int, width: int, pairs: int, iterations: int, precision: str) -> float:
    """Milliseconds of products and full iterations."""
    products = rates.products(product_flops(rows, width, pairs), precision)
    return products + iterations * iteration(rates, rows, pairs, stays_cached(rates, rows))


def triples(rates: Rates, rows: int, gradients: bool) -> float:
    """Milliseconds of the expected volume: FP32 instructions at half the rate of float32 operations."""
    return 1e3 * rows**3 * (TRIPLE_WITH_GRADIENTS if gradients else TRIPLE) / (rates.float32 / 2)


def cholesky(rates: Rates, k: int, count: int) -> float:
    """Milliseconds of log-determinants in float32: a read of the lower triangles, a write of the results."""
    return 1e3 * count * FLOAT * (k * (k + 1) / 2 + 1) / rates.memory


def score_products(rates: Rates, rows: int, width: int, k: int, backward: bool) -> float:
    """Milliseconds of the products of volume_scores: k - 1, and two more for each in the backward."""
    return rates.products(2.0 * (k - 1) * rows * rows * width * (3 if backward else 1), "float32")


def measure(clock: Clock, side: int = 8192) -> Rates:
    """The rates of this device: copies, and torch's own products of random matrices."""
    side = side if clock.device.type == "cuda" else 64
    one, other = (torch.rand(2 * side, 2 * side, device=clock.device) for _ in range(2))
    memory = 2 * FLOAT * one.numel() / clock.seconds(lambda: other.copy_(one))
    cache_bytes = clock.cache_bytes
    few, repeats = max(1, cache_bytes // (8 * FLOAT)), 100  # a copy of a quarter of the cache, between two parts of it
    small, target = one.view(-1)[:few], other.view(-1)[:few]

    def copies() -> None:
        for _ in range(repeats):
            target.copy_(small)

    cache = 2 * FLOAT * few * repeats / clock.seconds(clock.graph_of(copies))
    a, b = one[:side, :side].contiguous(), other[:side, :side].contiguous()
    rate = {}
    allowed = torch.backends.cuda.matmul.allow_tf32
    for name in ("float32", "tf32"):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        rate[name] = 2 * side**3 / clock.seconds(lambda: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = allowed
    return Rates(memory=memory, cache=cache, cache_bytes=cache_bytes, **rate)
