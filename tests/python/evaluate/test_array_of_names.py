"""Names in arrays of NumPy, those that are no text among them."""

from __future__ import annotations

import numpy as np
import pytest

from mover.array_of_names import names_of


@pytest.mark.parametrize(
    "array",
    [
        np.array(["clip", "Hünd \U0001f415", ""]),
        np.array(["clip", "Hünd \U0001f415", ""]).astype(">U8"),
        np.array(["clip", "", "Hünd \U0001f415", ""])[[0, 2, 1]],
        np.array([text.encode() for text in ("clip", "Hünd \U0001f415", "")]),
    ],
)
def test_names_are_read(array: np.ndarray) -> None:
    assert names_of(array) == ["clip", "Hünd \U0001f415", ""]


def test_numbers_and_nothing_are_names_too() -> None:
    assert names_of(np.array([3, 2**40])) == ["3", str(2**40)]
    assert names_of(np.empty(0, dtype="<U4")) == []
    assert names_of(np.zeros(2, dtype="<U0")) == ["", ""]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("number", [0x110000, 0x39393939, 2**32 - 1])
def test_a_number_that_is_no_character_is_refused(order: str, number: int) -> None:
    array = np.array([97, number, 98, 99], dtype=f"{order}u4").view(f"{order}U2")
    with pytest.raises(ValueError, match="no character"):
        names_of(array)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        names_of(np.array([b"\xff"]))
