"""Scenes in words: varied words and order, and in training attributes left unsaid now and then."""

from __future__ import annotations

import numpy as np

from mover.data.synthetic.design import Scene

DROP = 0.1
"""Chance that a training caption leaves an attribute unsaid."""

SOUND = 0.5
"""Chance that a training caption speaks of the sound at all; full captions always do."""

_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc"),
        "bar": ("bar", "plank"),
        "pillar": ("pillar", "column"),
        "triangle": ("triangle",),
        "cross": ("cross", "plus sign"),
        "saltire": ("saltire", "letter x"),
        "ring": ("ring", "hoop"),
        "dumbbell": ("dumbbell",),
        "clover": ("clover",),
        "arch": ("arch", "gate"),
    },
    "colour": {
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
        "white": ("white",),
        "brown": ("brown",),
    },
    "size": {"small": ("small", "little", "tiny"), "medium": ("medium", "middling"), "large": ("large", "big", "huge")},
    "motion": {
        "still": ("resting in place", "keeping still", "not moving at all"),
        "sideways": ("sliding from side to side", "moving left and right"),
        "vertical": ("bouncing up and down", "rising and falling"),
        "glowing": ("glowing now and then", "lighting up its surroundings"),
        "circling": ("going round and round", "moving in circles"),
        "pulsing": ("growing and shrinking", "pulsing in size"),
        "blinking": ("blinking on and off", "flashing again and again"),
        "stretching": ("stretching and squashing", "turning wide and narrow"),
    },
    "background": {
        "plain": ("on a plain background", "on an empty ground"),
        "striped": ("on a striped background", "in front of stripes"),
        "chequered": ("on a chequered background", "over a chessboard"),
        "speckled": ("on a speckled background", "among scattered dots"),
    },
    "timbre": {
        "pure": ("pure", "clear"),
        "hollow": ("hollow",),
        "buzzing": ("buzzing",),
        "bell": ("bell-like", "clanging"),
        "organ": ("organ-like",),
        "breathy": ("breathy", "airy"),
        "warbling": ("warbling", "trembling"),
        "rough": ("rough", "growling"),
        "chirping": ("chirping",),
        "chord": ("chord-like", "harmonious"),
    },
    "pitch": {"high": ("high", "shrill"), "middle": ("mid-range",), "low": ("low", "deep")},
    "pattern": {
        "steady": ("held without a pause", "in one steady stretch"),
        "alternating": ("switching between two notes", "alternating in pitch"),
        "gliding": ("gliding in pitch", "wailing like a siren"),
        "pairs": ("in pairs of beats", "knocking twice each time"),
        "swelling": ("swelling and fading", "coming and going slowly"),
        "slow": ("in slow beats", "with long pauses"),
        "fast": ("in rapid beats", "in a quick rattle"),
        "single": ("just once", "in a single burst"),
    },
    "ambience": {
        "quiet": ("with nothing else to hear", "and no noise around"),
        "rumble": ("over a rumble", "with distant rumbling"),
        "hiss": ("over a hiss", "with hissing noise"),
        "crackle": ("over a crackle", "with crackling noise"),
    },
}

_NOTHING = {"shape": ("shape", "figure", "thing")}
_TONES = ("tone", "sound", "note")

_PICTURES = (
    "{thing} {motion} {background}",
    "{thing} {background} {motion}",
    "{background} {thing} {motion}",
    "there is {thing} {motion} {background}",
    "{thing} is {motion} {background}",
)
_STILLS = ("{thing} {background}", "{background} {thing}", "there is {thing} {background}")
"""For captions that leave the motion unsaid."""

_BOTH = ("{picture}, with {tone}", "{picture} and {tone}", "{tone} while {picture}", "{picture} to {tone}")


def describe(scene: Scene, random: np.random.Generator, full: bool) -> str:
    """One caption. `full`: every attribute of picture and sound is said; otherwise each may be left out."""
    words = {}
    for kind, name in scene.attributes().items():
        said = full or random.random() >= DROP
        choices = _WORDS[kind][name] if said else _NOTHING.get(kind, ("",))
        words[kind] = _one(random, choices)
    thing = _article(words["size"], words["colour"], words["shape"])
    template = _one(random, _PICTURES if words["motion"] else _STILLS)
    picture = template.format(thing=thing, motion=words["motion"], background=words["background"])
    sound = _article(words["pitch"], words["timbre"], _one(random, _TONES)) + f" {words['pattern']} {words['ambience']}"
    heard = full or random.random() < SOUND
    joint = _one(random, _BOTH)
    return " ".join((joint.format(picture=picture, tone=sound) if heard else picture).split()).replace(" ,", ",")


def describe_often(scene: Scene, count: int, random: np.random.Generator) -> list[str]:
    """`count` different training captions of a scene."""
    captions: list[str] = []
    while len(captions) < count:
        caption = describe(scene, random, full=False)
        if caption not in captions:
            captions.append(caption)
    return captions


def _one(random: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(random.integers(len(choices)))]


def _article(*words: str) -> str:
    """ "a" or "an" before the words that are said."""
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
