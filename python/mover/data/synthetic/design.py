"""What the clips are made of, how sound is tied to picture, and which clips are in which split.

A picture has a shape (10), a colour (10), a size (3), a motion (8) and a background (4). A sound has a timbre (10), a
pitch (3), a pattern (8) and an ambience (4). The rule that ties them, by position in the tuples below:

    shape → timbre    size → pitch    motion → pattern    background → ambience    (colour: no sound)

So a clip's key (shape, size, motion, background), one of 960, is what picture, sound and full caption all tell; the
colour is told by picture and caption only. The splits share no key: every test clip is a combination of parts that
training never showed together, and every validation or test clip has a key of its own, so that 100 % is reachable in
every direction of retrieval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mover.data.sampling import generator
from mover.errors import UserError

SIZE = 64
"""Height and width of a frame, pixels."""
FPS = 8
SECONDS = 2.0
SAMPLE_RATE = 16000

SHAPES = ("circle", "bar", "pillar", "triangle", "cross", "saltire", "ring", "dumbbell", "clover", "arch")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "brown")
SIZES = ("small", "medium", "large")
MOTIONS = ("still", "sideways", "vertical", "glowing", "circling", "pulsing", "blinking", "stretching")
BACKGROUNDS = ("plain", "striped", "chequered", "speckled")

TIMBRES = ("pure", "hollow", "buzzing", "bell", "organ", "breathy", "warbling", "rough", "chirping", "chord")
PITCHES = ("high", "middle", "low")
PATTERNS = ("steady", "alternating", "gliding", "pairs", "swelling", "slow", "fast", "single")
AMBIENCES = ("quiet", "rumble", "hiss", "crackle")

KEYS = len(SHAPES) * len(SIZES) * len(MOTIONS) * len(BACKGROUNDS)

_SPLIT, _COLOUR = 0, 1


@dataclass(frozen=True)
class Scene:
    """One clip: positions in the tuples above. number: position in the data set, from which its randomness comes."""

    number: int
    split: str
    shape: int
    colour: int
    size: int
    motion: int
    background: int

    @property
    def id(self) -> str:
        """Name of the clip and of its file."""
        return f"video{self.number}"

    @property
    def key(self) -> tuple[int, int, int, int]:
        """(shape, size, motion, background) and, by the rule, (timbre, pitch, pattern, ambience)."""
        return self.shape, self.size, self.motion, self.background

    def attributes(self) -> dict[str, str]:
        """Names of everything in the clip, picture first."""
        return {
            "shape": SHAPES[self.shape],
            "colour": COLOURS[self.colour],
            "size": SIZES[self.size],
            "motion": MOTIONS[self.motion],
            "background": BACKGROUNDS[self.background],
            "timbre": TIMBRES[self.shape],
            "pitch": PITCHES[self.size],
            "pattern": PATTERNS[self.motion],
            "ambience": AMBIENCES[self.background],
        }


def scenes(train: int, validation: int, test: int, seed: int) -> list[Scene]:
    """All clips, training first, then validation ("val") and test. Equal arguments give equal clips.

    Training clips go round the keys that are left, with another colour each time round until all ten are used.
    Raises UserError for counts below 1 and for more validation and test clips than leave training a key.
    """
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        if count < 1:
            raise UserError(f"The number of {name} clips must be at least 1, got {count}.")
    held_out = validation + test
    if held_out >= KEYS:
        raise UserError(
            f"validation + test must be less than {KEYS}, the number of combinations, since each clip has its own and "
            f"training needs some: got {validation} + {test}."
        )
    keys = generator(seed, _SPLIT).permutation(KEYS)
    left = keys[held_out:]
    plan = [("train", int(left[i % len(left)]), i // len(left)) for i in range(train)]
    plan += [("val", int(key), 0) for key in keys[test:held_out]]
    plan += [("test", int(key), 0) for key in keys[:test]]
    return [_scene(number, split, key, turn, seed) for number, (split, key, turn) in enumerate(plan)]


def _scene(number: int, split: str, key: int, turn: int, seed: int) -> Scene:
    shape, size, motion, background = np.unravel_index(key, (len(SHAPES), len(SIZES), len(MOTIONS), len(BACKGROUNDS)))
    colours = generator(seed, _COLOUR, key).permutation(len(COLOURS))
    colour = int(colours[turn % len(COLOURS)])
    return Scene(number, split, int(shape), colour, int(size), int(motion), int(background))
