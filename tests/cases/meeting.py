"""A program for torchrun: every process adds its rank, from 1, to a sum of all, and says it."""

import torch
import torch.distributed as dist

if __name__ == "__main__":
    dist.init_process_group("gloo")
    total = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(total)
    print(f"process {dist.get_rank() + 1} of {dist.get_world_size()}: {total:.0f}", flush=True)
    dist.destroy_process_group()
