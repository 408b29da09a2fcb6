"""The filter bank against a float64 oracle that follows the definition frame by frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mover.models.filterbank import FilterBank, frame_count, frame_counts, mel_triangles


def oracle(waveform: np.ndarray) -> np.ndarray:
    """Kaldi's log-mel filter bank and the normalisation of BEATs, float64, (T, 128)."""
    scaled = waveform.astype(np.float64) * 32768.0
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    low, high = mel(20.0), mel(8000.0)
    step = (high - low) / 129
    filters = np.zeros((128, 256))
    for m in range(128):
        left, centre, right = low + m * step, low + (m + 1) * step, low + (m + 2) * step
        for i in range(256):
            x = mel(i * 16000 / 512)
            if left < x <= centre:
                filters[m, i] = (x - left) / (centre - left)
            elif centre < x < right:
                filters[m, i] = (right - x) / (right - centre)

    rows = []
    start = 0
    while start + 400 <= len(scaled):
        frame = scaled[start : start + 400] - scaled[start : start + 400].mean()
        previous = np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft((frame - 0.97 * previous) * window, n=512)) ** 2
        energies = np.maximum(filters @ power[:256], 1.1920929e-07)
        rows.append((np.log(energies) - 15.41663) / (2 * 6.55582))
        start += 160
    return np.stack(rows)


def single_precision(waveform: np.ndarray) -> np.ndarray:
    """The definition once more, in float32 throughout: the accuracy that is to be had."""
    frames = (torch.from_numpy(waveform) * 2**15).unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    emphasised = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    spectrum = torch.fft.rfft(emphasised * torch.hann_window(400, periodic=False) ** 0.85, n=512)
    energies = (spectrum.abs().square()[:, :256] @ mel_triangles().float()).clamp_min(1.1920929e-07)
    return ((energies.log() - 15.41663) / (2 * 6.55582)).numpy()


def _signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(7000) / 16000
    noise = rng.standard_normal(7000)
    return {
        "noise": 0.1 * noise,
        "quiet noise on an offset": 0.3 + 1e-3 * noise,
        "speech-like": 0.1 * np.convolve(noise, 0.9 ** np.arange(40), "same") * (1 + np.sin(30 * time)),
        "chirp": 0.5 * np.sin(2 * np.pi * (100 + 6000 * time) * time) + 1e-3 * noise,
        "chord": sum(0.2 * np.sin(2 * np.pi * f * time) for f in (220.0, 554.4, 3520.0)) + 1e-4 * noise,
        "clipped": np.clip(3 * noise, -1, 1),
        "silence": np.zeros(7000),
    }


@pytest.mark.parametrize("name", list(_signals()))
def test_matches_the_oracle(name: str) -> None:
    waveform = _signals()[name].astype(np.float32)
    ours = FilterBank()(torch.from_numpy(waveform)[None])[0]
    assert ours.dtype == torch.float32
    expected = oracle(waveform)
    # Bins far below the loudest hold rounding of any float32 transform; there the same steps in float32 set the bound.
    unavoidable = 2 * np.abs(single_precision(waveform) - expected).max()
    bound = 1e-4 if name in ("noise", "clipped", "silence", "speech-like") else max(1e-4, unavoidable)
    np.testing.assert_allclose(ours.numpy(), expected, atol=bound, rtol=0)


def test_triangles_are_a_partition_between_the_first_and_last_centre() -> None:
    sums = mel_triangles().sum(1)
    mel = 1127 * torch.log1p(torch.arange(256, dtype=torch.float64) * 31.25 / 700)
    low, high = (1127 * math.log1p(f / 700) for f in (20, 8000))
    step = (high - low) / 129
    inside = (mel >= low + step) & (mel <= high - step)
    torch.testing.assert_close(sums[inside], torch.ones_like(sums[inside]))
    assert sums[0] == 0  # 0 Hz lies below 20 Hz


def test_rows_do_not_depend_on_their_batch() -> None:
    waveform = 0.1 * torch.randn(9, 16000)
    together = FilterBank()(waveform)
    assert together.shape == (9, 98, 128)
    alone = torch.cat([FilterBank()(row[None]) for row in waveform])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("samples", [0, 399, 400, 401, 559, 560, 2799, 2800, 16000])
def test_frame_counts(samples: int) -> None:
    whole = len([start for start in range(0, max(samples, 1), 160) if start + 400 <= samples])
    assert frame_count(samples) == whole
    assert frame_counts(torch.tensor([samples])).tolist() == [whole]
    assert FilterBank()(torch.zeros(2, samples)).shape == (2, whole, 128)


def test_input_is_left_alone_and_layout_does_not_matter() -> None:
    waveform = torch.randn(2000, 3).t()  # not contiguous
    before = waveform.clone()
    features = FilterBank()(waveform)
    assert torch.equal(waveform, before)
    torch.testing.assert_close(features, FilterBank()(waveform.contiguous()))
    assert FilterBank()(torch.zeros(0, 2000)).shape == (0, frame_count(2000), 128)


def test_float32_under_autocast() -> None:
    waveform = 0.1 * torch.randn(2, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = FilterBank()(waveform)
    assert features.dtype == torch.float32
    assert torch.equal(features, FilterBank()(waveform))


def test_matches_torchaudio() -> None:
    try:
        from torchaudio.compliance import kaldi
    except Exception as error:  # one built for another torch fails in ways of its own
        pytest.skip(f"torchaudio cannot be imported: {error}")
    waveform = 0.1 * torch.randn(1, 8000)
    theirs = kaldi.fbank(waveform * 2**15, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10)
    torch.testing.assert_close(FilterBank()(waveform)[0], (theirs - 15.41663) / (2 * 6.55582), atol=1e-4, rtol=0)
