"""kernels/examples/retrieve.c, built from the installed library as its users build it, against the definitions."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mover.reference import cost

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "kernels" / "examples"
ITEMS, WIDTH = 150, 96


def make_rows() -> Tensor:
    """(3, n, d): text, video and audio as retrieve.c makes them."""
    state = 1

    def uniform() -> float:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 11) / 2**53 - 0.5

    rows = torch.empty(ITEMS * WIDTH, 3, dtype=torch.float64)
    for q in range(ITEMS * WIDTH):
        own = uniform()
        rows[q] = torch.tensor([own + 1.5 * uniform() for _ in range(3)], dtype=torch.float64)
    return normalize(rows.T.reshape(3, ITEMS, WIDTH), dim=-1)


def score(text: Tensor, video: Tensor, audio: Tensor) -> Tensor:
    """Vol(text_i, video_j, audio_j) as the function of alpha = |p - q|^2 / 2 whose gradient the library returns."""
    alpha, beta = cost(text, video) / 2, cost(text, audio) / 2
    gamma = (video - audio).square().sum(-1) / 2
    mixed = beta - gamma + alpha * (1 - beta)
    return (alpha * (2 - alpha) * beta * (2 - beta) - mixed.square()).sqrt()


@pytest.fixture(scope="session")
def expected() -> dict[str, float]:
    text, video, audio = make_rows()
    text.requires_grad_()
    target = torch.arange(ITEMS)

    def contrast(text: Tensor) -> Tensor:
        return cross_entropy(-score(text, video, audio) / 0.07, target)

    loss = contrast(text)
    (grad,) = torch.autograd.grad(loss, text)
    recall = (score(text, video, audio).argmin(1) == target).double().mean()
    after = contrast(normalize(text - 0.01 * ITEMS * grad, dim=-1))
    return {"recall": recall.item(), "loss": loss.item(), "after": after.item()}


def check_output(output: str, expected: dict[str, float], lends: bool) -> None:
    lines = {line[:17].strip(): line[17:] for line in output.splitlines()}
    version = (ROOT / "VERSION").read_text().strip()
    assert lines["libmover"] == f"{version}, {ITEMS} items of width {WIDTH}"
    assert lines["threads"] == ("2, of OpenMP" if lends else "1 (built without OpenMP)")
    assert lines["products"] == ("of the BLAS" if lends else "the library's own loops (built without a BLAS)")
    for pair in ("text to video", "video to audio"):
        iterations, error = re.fullmatch(r"(\d+) iterations, marginal error (\S+)", lines[pair]).groups()
        assert 1 <= int(iterations) < 100
        assert 0 < float(error) <= 1e-3
    assert 0.1 < expected["recall"] < 0.9  # else it would say little
    assert float(lines["Recall@1"]) == pytest.approx(expected["recall"], abs=1.5 / ITEMS)
    loss, after = map(float, re.fullmatch(r"(\S+), after a gradient step (\S+)", lines["loss"]).groups())
    assert loss == pytest.approx(expected["loss"], abs=2e-4)
    assert after == pytest.approx(expected["after"], abs=2e-4)
    assert after < loss - 0.1
    differences = re.fullmatch(r"plan (\S+), scores (\S+), gradient (\S+)", lines["differences"]).groups()
    assert all(float(difference) <= (1e-6 if lends else 0) for difference in differences), differences
    assert re.fullmatch(r"[\d.]+ alone, [\d.]+ with what is lent", lines["seconds"])


def execute(run, program, **variables):
    return run(program, str(ITEMS), str(WIDTH), **variables)


@pytest.mark.parametrize("lends", [True, False])
def test_with_cmake(run, prefix, openblas, expected, tmp_path, lends):
    options = [] if lends else ["-DLEND_THREADS=OFF", "-DLEND_BLAS=OFF"]
    strict = "-DCMAKE_C_FLAGS=-Werror -Wshadow -Wconversion"
    configure = ["cmake", "-S", EXAMPLES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", strict, *options]
    run(*configure, PKG_CONFIG_PATH=openblas)
    run("cmake", "--build", tmp_path)
    check_output(execute(run, tmp_path / "retrieve"), expected, lends)


def documented_command() -> str:
    """The lines of the comment in retrieve.c that compile it with pkg-config."""
    lines = re.findall(r"^ \*     (.*)$", (EXAMPLES / "retrieve.c").read_text(), re.MULTILINE)
    first = next(i for i, line in enumerate(lines) if line.startswith("cc "))
    return "\n".join(lines[first : first + 2])


@pytest.mark.parametrize("lends", [True, False])
def test_with_pkg_config(run, prefix, openblas, expected, tmp_path, lends):
    command = documented_command().replace("--libs openblas", "--libs scipy-openblas")
    assert command.count("\\\n") == 1
    assert "scipy-openblas" in command
    if not lends:
        command = re.sub(r"-fopenmp |-DHAVE_CBLAS |\$\([^)]*scipy-openblas\) ", "", command)
    command = command.replace("retrieve.c -o retrieve", f"{EXAMPLES}/retrieve.c -o {tmp_path}/retrieve")
    run("sh", "-c", command, PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig:{openblas}")
    check_output(execute(run, tmp_path / "retrieve", LD_LIBRARY_PATH=prefix / "lib"), expected, lends)


def test_a_wrong_argument_is_refused(run, prefixes, tmp_path):
    flags = run(
        "pkg-config", "--static", "--cflags", "--libs", "mover", PKG_CONFIG_PATH=prefixes["static"] / "lib/pkgconfig"
    )
    run("cc", "-std=c11", EXAMPLES / "retrieve.c", "-o", tmp_path / "retrieve", *flags.split())
    with pytest.raises(AssertionError, match="usage: retrieve"):
        run(tmp_path / "retrieve", "0")
