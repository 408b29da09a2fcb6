"""Files that claim, or unpack to, more than any memory: refused with a sentence, before the memory is taken."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.checkpoints import official_beats
from cases.media import MediaMaker
from mover.config import DataConfig
from mover.configs.loading import read_yaml
from mover.data.clip import Clip, Reference
from mover.data.decoded import decode_video
from mover.data.doctor import examine
from mover.data.features import read_features
from mover.data.limits import Limits
from mover.data.manifest import read_manifest
from mover.data.media import MediaError, read_image, read_pcm, read_video, scan_video
from mover.data.media_check import Part, check
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.evaluate.embeddings_file import load_embeddings
from mover.models.forms import check_audio_form
from mover.models.pretrained import read_beats_file, read_folder, read_json

from .conftest import Bounded

# ---- pictures --------------------------------------------------------------------------------------------------------


def png(width: int, height: int, rows: int) -> bytes:
    """A PNG that claims width x height pixels and holds so many rows of zeros: a kilobyte a million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    """A real JPEG of 16 x 16 whose header claims another size."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "jpeg")
    content = bytearray(out.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def gif(side: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("P", (16, 16)).save(out, "gif")
    content = bytearray(out.getvalue())
    content[6:10] = struct.pack("<HH", side, side)
    at = content.index(b",") + 5
    content[at : at + 4] = struct.pack("<HH", side, side)
    return bytes(content)


def webp(side: int) -> bytes:
    """A lossless WebP whose header claims another size, up to 16384."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "webp", lossless=True)
    content = bytearray(out.getvalue())
    at = content.index(b"VP8L") + 9
    bits = struct.unpack("<I", content[at : at + 4])[0] & ~0xFFFFFFF | (side - 1) | (side - 1) << 14
    content[at : at + 4] = struct.pack("<I", bits)
    return bytes(content)


def bmp(side: int) -> bytes:
    pixels = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + pixels


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("claims.png", png(60_000, 60_000, 1), "60000 x 60000"),
        ("holds.png", png(15_000, 15_000, 15_000), "15000 x 15000"),
        ("bomb.jpg", jpeg(60_000), "60000 x 60000"),
        ("bomb.gif", gif(60_000), "60000 x 60000"),
        ("bomb.webp", webp(16_384), "16384 x 16384"),
        ("bomb.bmp", bmp(60_000), "60000 x 60000"),
    ],
)
def test_pictures_beyond_the_limit_are_refused(
    name: str, content: bytes, size: str, tmp_path: Path, bounded: Bounded
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with bounded(), pytest.raises(MediaError, match=r"data\.max_pixels") as caught:
        read_image(path, 32)
    assert caught.value.status == "too_large" and str(path) in str(caught.value)
    known = size in str(caught.value)
    assert known or "9223372036854775807" in str(caught.value)  # larger than any limit, by the header's own reader


def test_the_limit_of_pixels_can_be_raised_and_lowered(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(120, 100, 100))
    assert read_image(path, 8, Limits(max_pixels=12_000)).shape == (3, 8, 8)
    with pytest.raises(MediaError, match="a picture of 120 x 100 pixels, more than data.max_pixels, 11999"):
        read_image(path, 8, Limits(max_pixels=11_999))
    assert check(Part("image", path), limits=Limits(max_pixels=11_999)).status == "too_large"


def test_the_doctor_marks_what_is_too_large_until_the_limit_is_raised(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(120, 100, 100))
    clips = [Clip("a", others={"image": Reference(tmp_path / "a.png")})]
    for most, status in ((11_999, {"image": "too_large"}), (12_000, {}), (11_999, {})):  # what was ok is remembered
        found = examine(clips, tmp_path / "record.jsonl", progress=False, limits=Limits(max_pixels=most))
        assert found.treated()[0].status == status


def test_image_files_larger_than_any_image_are_not_read(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with open(path, "r+b") as file:
        file.truncate(50_000_000_000)  # sparse
    with bounded(), pytest.raises(MediaError, match="an image file of 50000000000 bytes"):
        read_image(path, 8)


# ---- video -----------------------------------------------------------------------------------------------------------


def test_frames_beyond_the_limit_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    path = MediaMaker.write(tmp_path / "a.mp4", MediaMaker.grey([9, 90], 64, 48))
    small = Limits(max_pixels=64 * 48 - 1)
    for read in (lambda: read_video(path, 8, limits=small), lambda: scan_video(path, limits=small)):
        with pytest.raises(MediaError, match="a picture of 48 x 64 pixels") as caught:
            read()
        assert caught.value.status == "too_large"
    assert len(read_video(path, 8, limits=Limits(max_pixels=64 * 48)).times) == 2


def test_frames_larger_than_their_container_says_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    """The track's header claims 48 x 48; the pictures inside, PNGs of 60000 x 60000, say otherwise when they come."""
    path = MediaMaker.write(tmp_path / "a.mov", MediaMaker.grey([9, 90], 48, 48), codecs=("png", ""), options={})
    content = path.read_bytes().replace(
        struct.pack(">4sII", b"IHDR", 48, 48), struct.pack(">4sII", b"IHDR", 60_000, 60_000)
    )
    path.write_bytes(content)
    with bounded(), pytest.raises(MediaError, match="cannot be decoded|not one video frame"):
        read_video(path, 8)


def test_frames_kept_of_a_clip_are_limited(tmp_path: Path) -> None:
    path = MediaMaker.write(tmp_path / "a.mp4", MediaMaker.grey(range(0, 240, 10)))
    room = Limits(max_clip_bytes=24 * 3 * 8 * 8)
    assert len(read_video(path, 8, limits=room).times) == 24
    with pytest.raises(MediaError, match="its frames take more than data.max_clip_bytes"):
        read_video(path, 8, limits=Limits(max_clip_bytes=23 * 3 * 8 * 8))
    assert len(read_video(path, 8, lambda seconds: np.zeros(2), limits=Limits(max_clip_bytes=2 * 3 * 8 * 8)).times) == 2


def test_a_duration_without_end_asks_for_no_frames(tmp_path: Path, bounded: Bounded) -> None:
    """A cache of n frames a second asks for n times the seconds that the header claims."""
    path = MediaMaker.write(tmp_path / "a.mp4", MediaMaker.grey([9, 90]), options={})
    content = bytearray(path.read_bytes())
    for name, at in ((b"stts", 16), (b"mdhd", 20), (b"elst", 12)):  # of a frame, of the track, of what is shown of it
        place = content.index(name) + at
        content[place : place + 4] = b"\x00\xff\xff\xff"
    path.write_bytes(content)
    with bounded(), pytest.raises(MediaError, match="its frames take more than data.max_clip_bytes"):
        decode_video(Clip("a", video=path), DataConfig(image_size=64, cache_frames_per_second=1e6))


# ---- sound -----------------------------------------------------------------------------------------------------------


def wav(rate: int, channels: int, content: bytes, bits: int = 8) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(content))
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(content)) + head + content


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_rates_that_resampling_cannot_bear_are_refused(rate: int, tmp_path: Path, bounded: Bounded) -> None:
    """At one sample a second, 200 kB would be two days; a rate of billions needs a filter of gigabytes."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(rate, 1, bytes(200_000)))
    with bounded(), pytest.raises(MediaError, match=f"its audio has {rate} samples a second"):
        read_pcm(path, 16000)


def test_thousands_of_channels_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(16000, 65535, bytes(10 * 65535)))
    with bounded(), pytest.raises(MediaError):
        read_pcm(path, 16000)


def test_sound_longer_than_the_limit_is_refused_on_the_way(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(1000, 1, bytes(2_000_000)))  # 64 MB at 16 kHz
    assert len(read_pcm(path, 1000)) == 2_000_000
    with bounded(), pytest.raises(MediaError, match="its samples take more than data.max_clip_bytes, 10000000 bytes"):
        read_pcm(path, 16000, limits=Limits(max_clip_bytes=10_000_000))


# ---- features, embeddings --------------------------------------------------------------------------------------------


def npy_header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(9223372036854775807, 2)", "(10, 1000000000)"])
def test_features_that_claim_terabytes_are_refused(shape: str, tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_header(shape) + bytes(64))
    for row in (None, 3):
        with bounded(), pytest.raises(MediaError, match="a.npy"):
            read_features(Reference(path, row))


def test_sparse_files_of_features_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    """Files without content, as large as they claim to be."""
    plain, named = tmp_path / "a.npy", tmp_path / "b.safetensors"
    plain.write_bytes(npy_header("(10000000000,)"))
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}}).encode()
    named.write_bytes(struct.pack("<Q", len(header)) + header)
    for path, row in ((plain, None), (named, "x")):
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size + 4 * 10**10)
        with bounded(), pytest.raises(MediaError, match="its features take more than data.max_clip_bytes"):
            read_features(Reference(path, row))


def test_rows_of_a_large_file_are_read_alone(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_header("(10000000, 1000)"))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + 4 * 10**10)
    with bounded():
        assert read_features(Reference(path, 9_999_999)).shape == (1000,)


def test_archives_of_zeros_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ids", "text", "video"):
            with archive.open(f"{name}.npy", "w") as member:
                member.write(npy_header("(40000000,)"))
                for _ in range(10):
                    member.write(bytes(16_000_000))
    assert path.stat().st_size < 1_000_000
    with bounded(), pytest.raises(UserError, match="unpack to 480000.*save it uncompressed"):
        load_embeddings(path)


# ---- text ------------------------------------------------------------------------------------------------------------


def test_rows_of_a_manifest_without_end_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "captions": ["a"], "split": "train"}\n')
    with open(path, "r+b") as file:
        file.truncate(1_000_000_000)  # one line of zeros
    with bounded(), pytest.raises(UserError, match="line 2: more than 10000000 characters"):
        read_manifest(path)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_nesting_without_end_is_refused(deep: str, tmp_path: Path) -> None:
    for name in ("m.jsonl", "config.json", "tokenizer.json", "c.yaml"):
        (tmp_path / name).write_text(deep)
    (tmp_path / "row.jsonl").write_text('{"id": "a", "split": "x", "extra": {"b": ' + deep + "\n")
    for read in (
        lambda: read_manifest(tmp_path / "m.jsonl"),
        lambda: read_manifest(tmp_path / "row.jsonl"),
        lambda: read_json(tmp_path / "config.json", "model.text.checkpoint"),
        lambda: Tokenizer.load(tmp_path / "tokenizer.json", 12),
        lambda: read_yaml(tmp_path / "c.yaml"),
    ):
        with pytest.raises(UserError):
            read()


def test_aliases_that_multiply_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(lines))
    with bounded(), pytest.raises(UserError, match="aliases stand for more than 100000 values"):
        read_yaml(path)
    path.write_text("a: &a [*a]")
    with pytest.raises(UserError, match="aliases stand for"):
        read_yaml(path)
    path.write_text("base: &base {x: 1}\nother: {<<: *base}")
    assert read_yaml(path)["other"] == {"x": 1}


def test_a_configuration_of_gigabytes_is_not_read(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\n")
    with open(path, "r+b") as file:
        file.truncate(5_000_000_000)
    with bounded(), pytest.raises(UserError, match="longer than 1000000 characters"):
        read_yaml(path)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_sizes_that_the_weights_cannot_hold_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    content = official_beats()
    for key, value in (("encoder_embed_dim", 960_000), ("encoder_layers", 1001), ("embed_dim", 999_999)):
        path = tmp_path / f"{key}.pt"
        torch.save({**content, "cfg": {**content["cfg"], key: value}}, path)
        for read in (
            lambda path=path: read_beats_file(path, "model.audio.checkpoint"),
            lambda path=path: check_audio_form(path),
        ):
            with bounded(), pytest.raises(UserError, match="claims .* layers and at least .* parameters"):
                read()


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"])
def test_folders_that_claim_more_than_their_weights_are_refused(key: str, tmp_path: Path, bounded: Bounded) -> None:
    from transformers import RobertaConfig

    from mover.models.pretrained import read_folder_config

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", key: 10**9}))
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    assert read_folder("roberta", tmp_path, "model.text.checkpoint")[key] == 10**9
    with bounded(), pytest.raises(UserError, match="claims .* layers and at least .* parameters, which 1000 bytes"):
        read_folder_config(RobertaConfig, tmp_path, "model.text.checkpoint")


def test_compressed_tensors_are_refused(tmp_path: Path, bounded: Bounded) -> None:
    saved = io.BytesIO()
    torch.save(official_beats(), saved)
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, bytes(300_000_000) if name.endswith("/data/0") else whole.read(name))
    with bounded(), pytest.raises(UserError, match="holds compressed tensors"):
        read_beats_file(path, "model.audio.checkpoint")


def test_a_token_far_from_the_others_is_refused(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["a dog"], 12, 261).save(path)
    content = json.loads(path.read_text())
    content["model"]["vocab"]["zebra"] = 4_000_000_000
    path.write_text(json.dumps(content))
    with bounded(), pytest.raises(UserError, match="ids up to 4000000000"):
        Tokenizer.load(path, 12)
