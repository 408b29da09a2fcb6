"""Log-mel filter bank as Kaldi defines it, in the form BEATs was trained on.

Frames of 25 ms every 10 ms without padding, each minus its mean, pre-emphasised by 0.97, under the povey window
(hann to the power 0.85), 512-point power spectrum, 128 triangles spaced evenly on the mel scale between 20 Hz and
8 kHz, logarithm, then the normalisation of BEATs.

The steps up to the window are linear, so they are applied in a cheaper order with the same result:
    window * ((x[i] - m) - 0.97 (x[i-1] - m))  =  window * (x[i] - 0.97 x[i-1])  -  0.03 m window
pre-emphasises the waveform once instead of each of its overlapping frames. The window is zero at both ends of a
frame, so sample 0, which has no predecessor, drops out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 16000
FRAME_LENGTH = 400
FRAME_SHIFT = 160
MEL_BINS = 128

_FFT_SIZE = 512
_SPECTRUM_BINS = _FFT_SIZE // 2  # Kaldi leaves the Nyquist bin out
_PREEMPHASIS = 0.97
_WINDOW_POWER = 0.85
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
_FLOOR = 1.1920929e-07  # of the mel energies, before the logarithm
_FULL_SCALE = 32768.0  # waveforms are in [-1, 1]; Kaldi counts in 16-bit steps
MEAN, TWICE_STD = 15.41663, 2 * 6.55582
_BLOCK = math.gcd(FRAME_LENGTH, FRAME_SHIFT)
_FRAMES_AT_ONCE = 512  # on a CPU: keeps the spectra of one pass within the cache


def frame_count(samples: int) -> int:
    """Number of whole frames in so many samples: 1 + (samples - 400) // 160, and 0 below 400 samples."""
    return max(0, 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT)


def frame_counts(samples: Tensor) -> Tensor:
    """`frame_count` of each entry of an integer tensor, of the same shape and dtype."""
    return (1 + torch.div(samples - FRAME_LENGTH, FRAME_SHIFT, rounding_mode="floor")).clamp_min(0)


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def mel_triangles() -> Tensor:
    """Weights of the 128 mel filters over the spectrum bins 0..255, float64, (256, 128)."""
    bins = _mel(torch.arange(_SPECTRUM_BINS, dtype=torch.float64, device="cpu") * (SAMPLE_RATE / _FFT_SIZE))
    ends = _mel(torch.tensor([LOWEST_HZ, HIGHEST_HZ], dtype=torch.float64, device="cpu"))
    corners = torch.linspace(float(ends[0]), float(ends[1]), MEL_BINS + 2, dtype=torch.float64, device="cpu")
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0)


class FilterBank(nn.Module):
    """Waveforms to normalised log-mel features. No parameters; float32 whatever the autocast; no gradient."""

    window: Tensor
    triangles: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64, device="cpu") ** _WINDOW_POWER
        self.register_buffer("window", (window[1:] * _FULL_SCALE).float(), persistent=False)
        # Each row twice: real and imaginary part of a bin are summed by the product with the triangles.
        triangles = mel_triangles().float().repeat_interleave(2, dim=0)
        self.register_buffer("triangles", triangles, persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Features of each frame.

        Args:
            waveform: (B, n) float, 16 kHz mono, amplitudes in [-1, 1].

        Returns:
            float32 (B, T, 128) with T = frame_count(n).
        """
        batch, samples = waveform.shape
        frames = frame_count(samples)
        if batch == 0 or frames == 0:
            return waveform.new_zeros(batch, frames, MEL_BINS, dtype=torch.float32)
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            clips_at_once = max(1, _FRAMES_AT_ONCE // frames) if waveform.device.type == "cpu" else batch
            return torch.cat([self._features(clips, frames) for clips in waveform.split(clips_at_once)])

    def _features(self, waveform: Tensor, frames: int) -> Tensor:
        batch, samples = waveform.shape
        # No frame sees a constant. Without a large one the order of the steps here costs no accuracy.
        waveform = waveform - waveform[:, :FRAME_LENGTH].mean(1, keepdim=True)
        blocks = waveform[:, : samples // _BLOCK * _BLOCK].reshape(batch, -1, _BLOCK).sum(-1)
        means = blocks.unfold(1, FRAME_LENGTH // _BLOCK, FRAME_SHIFT // _BLOCK).sum(-1) / FRAME_LENGTH  # (B, T)
        emphasised = torch.sub(waveform[:, 1:], waveform[:, :-1], alpha=_PREEMPHASIS)

        padded = waveform.new_zeros(batch, frames, _FFT_SIZE)
        windowed = padded[..., : FRAME_LENGTH - 1]
        torch.mul(emphasised.unfold(1, FRAME_LENGTH - 1, FRAME_SHIFT), self.window, out=windowed)
        windowed.addcmul_(means.unsqueeze(-1), self.window, value=_PREEMPHASIS - 1.0)

        spectrum = torch.view_as_real(torch.fft.rfft(padded))[..., :_SPECTRUM_BINS, :]  # (B, T, 256, 2)
        energies = spectrum.flatten(-2).square_() @ self.triangles  # (B, T, 128)
        return energies.clamp_min_(_FLOOR).log_().sub_(MEAN).div_(TWICE_STD)


def pad_to_frames(waveform: Tensor, frames: int) -> Tensor:
    """The waveform (B, n), zero-padded at its end if it holds fewer than so many whole frames."""
    needed = FRAME_LENGTH + (frames - 1) * FRAME_SHIFT
    return F.pad(waveform, (0, max(0, needed - waveform.shape[1])))
