"""Scenes as frames: one shape, drawn from its distance function, moving over a dark texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mover.data.synthetic.design import BACKGROUNDS, FPS, MOTIONS, SECONDS, SHAPES, SIZE, Scene

RADII = (0.16, 0.25, 0.38)
"""Radius of a shape as a share of the frame, for each size."""

_RGB = np.array(
    [
        (225, 45, 40),
        (250, 135, 25),
        (245, 225, 50),
        (50, 190, 60),
        (60, 220, 225),
        (55, 85, 235),
        (145, 60, 200),
        (250, 130, 185),
        (245, 245, 245),
        (140, 85, 45),
    ],
    dtype=np.float32,
)
"""(10, 3), in the order of COLOURS."""

_TINTS = np.array([(1.0, 1.0, 1.0), (0.5, 0.7, 1.8), (0.6, 1.5, 0.6), (1.8, 0.6, 0.8)], dtype=np.float32)
"""(4, 3), in the order of BACKGROUNDS: grey, blue, green, red, all dark."""

_REACH = 0.25
"""How far a shape travels from the centre, as a share of the frame: one patch of 16 pixels. A shape then looks the same
to the patches it reaches as to those it left, and a tiny model learns it from few clips."""

_EDGE = 1.2
"""Width of the soft edge of a shape, pixels."""

_HALO = 8.0
"""Distance over which a halo fades, pixels."""

Field = np.ndarray


def draw(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """uint8 (F, SIZE, SIZE, 3), F = SECONDS · FPS: the frames of a scene; `random` places and times it."""
    times = np.arange(round(SECONDS * FPS)) / FPS  # (F,)
    motion = _motion(MOTIONS[scene.motion], times, random)  # x, y, width, height, opacity, halo: (6, F)
    radius = RADII[scene.size] * random.uniform(0.95, 1.05)
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    x, y, width, height, opacity, halo = (row.astype(np.float32)[:, None, None] for row in motion)
    u = (axis[None, None, :] - x) / (radius * width)  # (F, 1, SIZE), in radii from the centre
    v = (axis[None, :, None] - y) / (radius * height)  # (F, SIZE, 1), downwards
    distance = _DISTANCE[SHAPES[scene.shape]](*np.broadcast_arrays(u, v))  # (F, SIZE, SIZE), in radii
    pixels = distance * (radius * SIZE * np.minimum(width, height))
    cover = (np.clip(0.5 - pixels / _EDGE, 0, 1) * opacity)[..., None]  # (F, SIZE, SIZE, 1)
    colour = np.clip(_RGB[scene.colour] * random.uniform(0.92, 1.05), 0, 255).astype(np.float32)
    backdrop = _background(scene.background, random)[None]
    backdrop = backdrop + (halo * np.exp(-np.maximum(pixels, 0) / _HALO))[..., None] * colour
    return np.rint(np.clip(backdrop + cover * (colour - backdrop), 0, 255)).astype(np.uint8)


def _motion(name: str, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (6, F): centre x and y as shares of the frame, factors of width and height, opacity, halo.

    One cycle lasts the whole clip (blinking and glowing: half of it), so frames half a second apart always differ,
    whatever the phase. No motion has a direction of its own. Places are left slowly and passed quickly.
    """
    phase = random.uniform(0, 2 * np.pi)
    angle = 2 * np.pi * times / SECONDS + phase
    wave, other = (np.tanh(1.5 * wave) / np.tanh(1.5) for wave in (np.sin(angle), np.cos(angle)))
    other = other * random.choice((-1.0, 1.0))
    x, y = (np.full_like(times, 0.5 + random.uniform(-0.01, 0.01)) for _ in range(2))
    width, height, opacity = np.ones((3, len(times)))
    halo = np.zeros_like(times)
    if name == "sideways":
        x = x + _REACH * wave
    elif name == "vertical":
        y = y + _REACH * wave
    elif name == "circling":
        x, y = x + _REACH * (wave + other) / 2, y + _REACH * (wave - other) / 2
    elif name == "pulsing":
        width = height = 1 + 0.3 * wave
    elif name == "stretching":
        width, height = 1 + 0.38 * wave, 1 - 0.38 * wave
    elif name == "blinking":
        opacity = (np.sin(2 * angle) > 0).astype(float)
    elif name == "glowing":
        halo = 0.7 * (np.sin(2 * angle) > 0)
    return np.stack([x, y, width, height, opacity, halo])


def _background(kind: int, random: np.random.Generator) -> np.ndarray:
    """float32 (SIZE, SIZE, 3): a texture in its own tint, dark and of low contrast, the same in all frames."""
    name = BACKGROUNDS[kind]
    dark, light = random.uniform(16, 26), random.uniform(52, 64)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + random.integers(0, 16, size=(2, 1, 1))
    if name == "plain":
        pattern = np.full((SIZE, SIZE), random.uniform(0, 0.5))
    elif name == "striped":
        pattern = (columns // 4) % 2
    elif name == "chequered":
        pattern = (columns // 8 + rows // 8) % 2
    else:
        pattern = np.repeat(np.repeat(random.random((SIZE // 2, SIZE // 2)) < 0.12, 2, axis=0), 2, axis=1)
    return (dark + (light - dark) * pattern[..., None]).astype(np.float32) * _TINTS[kind]


def _polygon(*corners: tuple[float, float]) -> Callable[[Field, Field], Field]:
    """Distance to a convex polygon, corners clockwise on the screen (v downwards); exact inside and along the edges."""

    def distance(u: Field, v: Field) -> Field:
        sides = []
        for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1], strict=True):
            length = float(np.hypot(u1 - u0, v1 - v0))
            sides.append(((u - u0) * ((v1 - v0) / length)) - ((v - v0) * ((u1 - u0) / length)))
        return np.maximum.reduce(sides)

    return distance


def _box(half_width: float, half_height: float) -> Callable[[Field, Field], Field]:
    return lambda u, v: np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: Field, v: Field, u0: float = 0.0, v0: float = 0.0, radius: float = 1.0) -> Field:
    return np.hypot(u - u0, v - v0) - radius


def _cross(u: Field, v: Field, reach: float = 1.0, half_width: float = 0.27) -> Field:
    return np.minimum(_box(reach, half_width)(u, v), _box(half_width, reach)(u, v))


def _saltire(u: Field, v: Field) -> Field:
    half = np.float32(np.sqrt(0.5))
    return _cross((u + v) * half, (u - v) * half, 1.15, 0.26)


def _dumbbell(u: Field, v: Field) -> Field:
    return np.minimum(_disc(np.abs(u), v, 0.6, 0.0, 0.38), _box(0.6, 0.1)(u, v))


def _arch(u: Field, v: Field) -> Field:
    top = np.maximum(np.abs(u) - 0.9, np.abs(v + 0.65) - 0.25)
    legs = np.maximum(np.abs(np.abs(u) - 0.65) - 0.25, np.abs(v) - 0.9)
    return np.minimum(top, legs)


_DISTANCE: dict[str, Callable[[Field, Field], Field]] = {
    "circle": lambda u, v: _disc(u, v, radius=0.9),
    "bar": _box(1.0, 0.33),
    "pillar": _box(0.33, 1.0),
    "triangle": _polygon((0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)),
    "cross": _cross,
    "saltire": _saltire,
    "ring": lambda u, v: np.abs(_disc(u, v, radius=0.82)) - 0.16,
    "dumbbell": _dumbbell,
    "clover": lambda u, v: _disc(np.abs(u), np.abs(v), 0.58, 0.58, 0.38),
    "arch": _arch,
}
