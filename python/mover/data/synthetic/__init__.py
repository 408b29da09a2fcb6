"""The embedded data set: small clips made by rule, written as real media files and read like any other data set.

`generate` makes it. design.py says what there is to see and hear, pictures.py and sounds.py make it visible and
audible, captions.py puts it into words, writing.py encodes it, folder.py puts it all together.
"""

from mover.data.synthetic.folder import generate

__all__ = ["generate"]
