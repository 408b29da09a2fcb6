"""Tests of the operators on a GPU: `pytest -m gpu`. Without a CUDA device they are skipped; scripts/gpu-check runs
them where there is one."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def device():
    return torch.device("cuda", 0)
