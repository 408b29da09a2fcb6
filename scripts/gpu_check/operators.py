"""Every operator of torch.ops.mover and its gradient once, at small sizes: what compute-sanitizer looks at."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import torch

from cases.on_device import moved, outputs_and_gradients
from cases.operators import FORWARD_OPERATORS, OPERATORS, operator, unit_rows
from mover import ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    for dtype in (torch.float32, torch.float64):
        for name, make in OPERATORS.items():
            print(name, dtype, flush=True)
            outputs_and_gradients(name, moved(make(dtype), device))
        for name, make in FORWARD_OPERATORS.items():
            print(name, dtype, flush=True)
            operator(name)(*moved(make(dtype), device))
        print("sizes beyond one tile", dtype, flush=True)
        beyond_one_tile(device, dtype)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print("done")


def beyond_one_tile(device: torch.device, dtype: torch.dtype) -> None:
    """Sizes that end within a tile, or one beyond it."""
    x, y, z = (unit_rows(n, 33, dtype=dtype, seed=n).to(device).requires_grad_() for n in (65, 129, 67))
    for solver in ("sinkhorn", "newton"):
        result = ops.transport(x, y, epsilon=0.1, max_iter=12, solver=solver)
        torch.autograd.grad(result.plan.square().sum() + result.cost.sum(), (x, y))
    torch.autograd.grad(ops.transport_value(x, y, epsilon=0.1, max_iter=12), (x, y))
    costs = [ops.cost(x, y), ops.cost(x, z), ops.cost(y, z)]
    torch.autograd.grad(ops.expected_volume(*costs), (x, y, z))
    others = torch.stack([y[:67], z], 1)
    scores = ops.volume_scores(x, others)
    torch.autograd.grad(ops.contrast(scores[:, :65]) + scores.sum(), (x, y, z))
    ops.volume_topk(x, others, 40)
    ops.volume_rank(x, others, torch.arange(65, device=device))
    for k in (2, 5, 8):
        v = unit_rows(130, k, 33, dtype=dtype).to(device).requires_grad_()
        torch.autograd.grad(ops.volume(v).sum() + ops.logdet(ops.gram(v)).logdet.sum(), v)


if __name__ == "__main__":
    main()
