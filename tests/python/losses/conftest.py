import pytest
import torch

from cases.star import embeddings


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def z():
    """Embeddings (6, 8) of three modalities that resemble each other; leaves that ask for a gradient."""
    return embeddings(("text", "video", "audio"), 6, 8)
