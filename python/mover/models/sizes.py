"""Checks of sizes that would otherwise fail late, or not at all."""

from __future__ import annotations

from mover.errors import UserError


def require_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise UserError, naming both settings, unless `value` is a multiple of `divisor`."""
    if value % divisor:
        raise UserError(
            f"{name} must be a multiple of {divisor_name}, but {name} is {value} and {divisor_name} is {divisor}. "
            "Change one of the two."
        )


def initializer_range(width: int) -> float:
    """Standard deviation of the first weights of a transformer so wide: 0.02 at 768, more when it is narrower.

    Keeps the spread of a layer's output, std * sqrt(width), at what it is in the base-size models.
    """
    return 0.02 * (768 / width) ** 0.5
