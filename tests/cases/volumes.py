"""Groups of vectors with volumes known to 25 digits (tests/data/volume_cases.json)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_DATA = json.loads((Path(__file__).parents[1] / "data" / "volume_cases.json").read_text(encoding="utf-8"))


@dataclass
class VolumeCase:
    """One group. `vectors` (k, d) are integers wherever the name says "int", "near", "duppair" or "coplanar"."""

    name: str
    vectors: Tensor  # float64, not normalised
    volume: float  # of the normalised vectors
    logdet: float  # of the Gram matrix of the normalised vectors
    gradient_norms: list[float] | None  # of the tangent gradient with respect to each normalised vector
    gradient_heads: list[list[float]] | None  # its first entries

    @property
    def scale(self) -> float | None:
        """S of the families whose angle shrinks with S."""
        match = re.search(r"S=(\d+)", self.name)
        return float(match[1]) if match else None


def integer_vectors(k: int, d: int) -> Tensor:
    """x_m[i] = ((i (2m+3) + 7m + i^2 (m+1)) mod 17) - 8, (k, d), float64."""
    i = torch.arange(d)
    return torch.stack([((i * (2 * m + 3) + 7 * m + i * i * (m + 1)) % 17) - 8 for m in range(k)]).double()


def _vectors(name: str, k: int, d: int) -> Tensor:
    x = integer_vectors(k, d)
    scale = float(name.split("S=")[1].split()[0]) if "S=" in name else 1.0
    if name.startswith("int"):
        return x
    if name.startswith("near"):
        return torch.cat([x[:1] * scale, x[:1] * scale + x[1:]])
    if name.startswith("duppair"):
        return torch.stack([x[0] * scale, x[0] * scale + x[1], x[2]])
    if name.startswith("coplanar"):
        return torch.stack([x[0], x[1], (x[0] + x[1]) * scale + x[2]])
    if name.startswith("orthonormal"):
        return torch.eye(k, d, dtype=torch.float64)
    if name.startswith("345"):
        return torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    if name.startswith("duplicates"):
        return torch.stack([x[0], x[1], x[1]])
    if name.startswith("opposite"):
        return torch.cat([x[:-1], -x[:1]])
    if name.startswith("all equal"):
        return x[:1].expand(k, d).clone()
    if name.startswith("k>d"):
        return x
    raise ValueError(f"unknown family of vectors: {name}")


def _case(entry: dict) -> VolumeCase:
    gradient = entry.get("grad")
    return VolumeCase(
        name=entry["name"],
        vectors=_vectors(entry["name"], entry["k"], entry["d"]),
        volume=float(entry["vol"]),
        logdet=float(entry["logdet"]),
        gradient_norms=gradient and [float(row["norm"]) for row in gradient],
        gradient_heads=gradient and [[float(value) for value in row["head"]] for row in gradient],
    )


VOLUME_CASES = [_case(entry) for entry in _DATA["cases"]]
# Determinants of the k x k matrix with ones on the diagonal and c elsewhere.
EQUICORRELATED = [
    (row["k"], float(row["c"]), float(row["vol"]), float(row["logdet"])) for row in _DATA["equicorrelated"]
]
