"""SoundDescs: sound effects with a description each.

`descriptions.pkl`: {id: text}; `categories.pkl`: {id: text or list of texts}, for some ids;
`train_list.txt`, `val_list.txt`, `test_list.txt`: one id in each line. Pickles are read as
data: one that names anything to call is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, shown, text, texts
from mover.data.importers.importer import Importer
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.pickles import read_pickle
from mover.data.importers.splits import assign, find_list
from mover.errors import UserError

SPLITS = ("train", "val", "test")


def load(annotations: Path, media: Path, *, source: str = "sounddescs") -> list[Clip]:
    """Clips in the order of `descriptions.pkl`, those that are in one of the lists.

    annotations: folder with the files above. media: folder with `<id>.<extension>`.
    A category becomes the label when it is the only one; all are kept under `extra`. Raises UserError naming the file
    and the id for anything malformed.
    """
    remedy = "Name the folder that holds descriptions.pkl and the three lists."
    path = find_list(annotations, ["descriptions.pkl"], remedy)
    lists = {split: find_list(annotations, [f"{split}_list.txt"], remedy) for split in SPLITS}
    descriptions = _mapping(path)
    categories = _categories(annotations / "categories.pkl")
    clips = {}
    for key, value in descriptions.items():
        where = f"{path}, {shown(key)}"
        name = clip_name(key, where, "id")
        captions = (
            texts(value, where, "description") if isinstance(value, list) else [text(value, where, "description")]
        )
        tags = categories.get(name, [])
        extra = {"categories": tags} if tags else {}
        label = tags[0] if len(tags) == 1 else None
        clips[name] = Clip(name, tuple(captions), label=label, source=source, extra=extra)
    files = MediaFiles(media, None, ("audio",))
    chosen = [files.attach(clip, clip.id) for clip in assign(clips, lists, path)[0]]
    files.check_found()
    return chosen


def _mapping(path: Path) -> dict[Any, Any]:
    value = read_pickle(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a dict from ids, got {type(value).__name__}. Fetch it again.")
    return value


def _categories(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    found = {}
    for key, value in _mapping(path).items():
        tags = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        tags = [tags] if isinstance(tags, str) else [] if tags is None else tags
        if not isinstance(tags, list):
            raise UserError(f"{path}, {shown(key)}: expected a category or a list of them, got {shown(tags)}.")
        found[str(key)] = [text(tag, f"{path}, {shown(key)}", "category") for tag in tags if tag != ""]
    return found


IMPORTER = Importer(
    name="sounddescs",
    title="SoundDescs: sound effects with descriptions",
    guide="""\
--annotations is a folder with
  descriptions.pkl, categories.pkl (may be absent)
  train_list.txt, val_list.txt, test_list.txt               23,085 / 4,947 / 4,947 clips
A pickle that holds more than containers, strings and numbers is refused.
Media: <id>.wav.

  mover import sounddescs --annotations sounddescs --media sounddescs/audio --out data/sounddescs/manifest.jsonl""",
    load=load,
)
