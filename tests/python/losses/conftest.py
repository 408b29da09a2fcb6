import pytest
import torch

from cases.operators import unit_rows


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def z():
    """Embeddings (6, 8) of three modalities that resemble each other; leaves that ask for a gradient."""
    common = unit_rows(6, 8, seed=9)
    modalities = {"text": 1, "video": 2, "audio": 3}
    return {
        name: torch.nn.functional.normalize(common + 0.6 * unit_rows(6, 8, seed=seed), dim=1).requires_grad_()
        for name, seed in modalities.items()
    }
