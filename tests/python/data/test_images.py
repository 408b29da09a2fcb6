"""Images of every kind that references may name, as the same square of pixels."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from mover.data.media import MediaError, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwP"
    "FxgWFBgSFBUU/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAgHCf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/"
    "2gAOBEMATQBZAEsAAD8AYAKI01Tf/9k="
)
"""8 x 8 pixels of about (200, 40, 90), four channels, inverted as image editors store them."""


def picture(height: int = 40, width: int = 40) -> np.ndarray:
    """uint8 (height, width, 3): red and green above blue and white."""
    quarters = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return quarters.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the four quarters, in reading order, rounded to full channels."""
    size = pixels.shape[-1]
    near, far = size // 4, 3 * size // 4
    places = [(near, near), (near, far), (far, near), (far, far)]
    return [tuple(int(value > 127) * 255 for value in pixels[:, row, column]) for row, column in places]


def encode(path: Path, codec: str, pixels: np.ndarray, pixel_format: str) -> Path:
    """One picture, or several for an animation, by an encoder of its own."""
    frames = pixels if pixels.ndim == 4 else pixels[None]
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base, context.framerate = pixel_format, 1, 1
    if codec == "gif":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("gif", rate=10)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixel_format)))
            container.mux(stream.encode())
        return path
    frame = av.VideoFrame.from_ndarray(frames[0], "rgb24").reformat(format=pixel_format)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def png(rows: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows of bytes (height, bytes per row), written by hand."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height = len(rows)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    width = rows.shape[1] * 8 // (depth * channels)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *chunks, (b"IDAT", body)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.jpg", "mjpeg", "yuvj444p"),
        ("a.png", "png", "rgb24"),
        ("a.webp", "libwebp", "bgra"),
        ("a.bmp", "bmp", "bgr24"),
        ("a.gif", "gif", "rgb8"),
        ("a.tiff", "tiff", "rgb24"),
    ],
)
def test_kinds(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    path = encode(tmp_path / name, codec, picture(40, 80), pixel_format)
    pixels = read_image(path, 32)
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]
    assert corners(read_image(path.rename(tmp_path / "no extension"), 64)) == [RED, GREEN, BLUE, WHITE]


def test_depths_and_channels(tmp_path: Path) -> None:
    colours = picture()
    alpha = np.zeros((40, 40, 1), np.uint8)
    grey = np.full((40, 40), 99, np.uint8)
    palette = (b"PLTE", bytes([*RED, *GREEN, *BLUE, *WHITE]))
    indices = np.array([[0, 1], [2, 3]], np.uint8).repeat(20, 0).repeat(20, 1)
    coloured = {
        "transparent": png(np.concatenate([colours, alpha], 2).reshape(40, -1), 8, 6),
        "deep": png(colours.repeat(2, 2).reshape(40, -1), 16, 2),
        "palette": png(indices, 8, 3, palette),
        "clear palette": png(indices, 8, 3, palette, (b"tRNS", b"\0\0\0\0")),
    }
    for name, content in coloured.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        assert corners(read_image(tmp_path / f"{name}.png", 40)) == [RED, GREEN, BLUE, WHITE], name
    for depth, rows in ((8, grey), (16, grey.repeat(2, 1))):
        (tmp_path / "grey.png").write_bytes(png(rows, depth, 0))
        np.testing.assert_allclose(read_image(tmp_path / "grey.png", 16), 99, atol=1)
    (tmp_path / "print.jpg").write_bytes(CMYK_JPEG)
    np.testing.assert_allclose(read_image(tmp_path / "print.jpg", 4).mean((1, 2)), (200, 40, 90), atol=4)


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    frames = np.stack([picture(), 255 - picture(), np.zeros_like(picture())])
    path = encode(tmp_path / "moves.gif", "gif", frames, "rgb8")
    assert corners(read_image(path, 40)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_orientation(tmp_path: Path, orientation: int, expected: list[tuple[int, ...]]) -> None:
    content = encode(tmp_path / "turned.jpg", "mjpeg", picture(40, 80), "yuvj444p").read_bytes()
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 0)
    (tmp_path / "turned.jpg").write_bytes(
        content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    )
    assert corners(read_image(tmp_path / "turned.jpg", 40)) == expected


@pytest.mark.parametrize("shape", [(1, 1), (2, 1000), (1000, 2), (1, 20000), (3, 23), (7, 64)])
def test_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    even = np.full((*shape, 3), (10, 200, 60), np.uint8)
    pixels = read_image(encode(tmp_path / "odd.png", "png", even, "rgb24"), 33)
    np.testing.assert_allclose(pixels, np.broadcast_to(np.array([10, 200, 60])[:, None, None], (3, 33, 33)), atol=1)


def test_a_slim_picture_is_cut_before_it_is_scaled(tmp_path: Path) -> None:
    slim = np.zeros((20, 1000, 3), np.uint8)
    slim[:, 490:510] = picture(20, 20)
    assert corners(read_image(encode(tmp_path / "slim.png", "png", slim, "rgb24"), 40)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("name", ["photo%d.png", "photo%03d.png", "a*?[b].png", "-x.png", "a:b 雪.png", "file:x.png"])
def test_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "plain.png", "png", picture(), "rgb24").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert corners(read_image(Path(name), 20)) == [RED, GREEN, BLUE, WHITE]


def test_unusable_files(make, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.png", "png", picture(), "rgb24").read_bytes()
    sound = make.write(tmp_path / "sound.mp4", samples=make.tone(0.5)).read_bytes()
    contents = {"empty": b"", "text": b"no image\n" * 50, "half": whole[: len(whole) // 2], "sound": sound}
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    expected = dict.fromkeys([*contents, "folder"], "corrupt") | {"absent": "missing", "dangling": "missing"}
    for name, status in expected.items():
        with pytest.raises(MediaError) as caught:
            read_image(tmp_path / f"{name}.png", 16)
        assert caught.value.status == status and f"{name}.png" in str(caught.value)
