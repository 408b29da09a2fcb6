"""What is fuzzed of the Python package: each target reads bytes as a file from outside would be read.

A target may raise `UserError` and nothing else. It has seeds, whole inputs that are as they should be, and words,
pieces of the format.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Seeds = Callable[[Path], list[bytes]]
PART = b"\n--part--\n"


@dataclass(frozen=True)
class Target:
    """run: reads an input, with an empty folder of its own. seeds: makes the inputs to begin with, in such a folder."""

    run: Callable[[bytes, Path], None]
    seeds: Seeds
    words: tuple[bytes, ...] = ()


def _unpacked(archive: bytes) -> bytes:
    """A zip archive as its parts, which mutations leave readable: name, line break, content, `PART`."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return PART.join(name.encode() + b"\n" + opened.read(name) for name in opened.namelist())


def _packed(parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for part in parts.split(PART):
            name, _, content = part.partition(b"\n")
            archive.writestr(name.decode("latin-1").replace("\0", "") or "x", content)
    return out.getvalue()


def _file(data: bytes, folder: Path, endings: tuple[str, ...]) -> Path:
    """The input as a file: its first byte says which ending, and whether what follows are the parts of an archive."""
    kind, content = (data[0], data[1:]) if data else (0, b"")
    path = folder / f"input{endings[kind % len(endings)]}"
    path.write_bytes(_packed(content) if kind >= 128 else content)
    return path


# ---- manifest --------------------------------------------------------------------------------------------------------


def _manifest(data: bytes, folder: Path) -> None:
    """What is read is written and read again, the same."""
    from mover.data.manifest import read_manifest, write_manifest

    path = folder / "manifest.jsonl"
    path.write_bytes(data)
    clips = read_manifest(path)
    write_manifest(path, clips)
    assert read_manifest(path) == clips


def _manifest_seeds(folder: Path) -> list[bytes]:
    row = {
        "id": "a",
        "captions": ["a dog", "ein Hünd"],
        "video": "a.mp4",
        "audio": "/b.wav",
        "split": "train",
        "start": 1,
    }
    more = {"others": {"notes": {"file": "n.npy", "row": 3}, "image": "i.png"}, "status": {"image": "corrupt"}}
    full = (
        row | more | {"duration": 2.5, "label": "dog", "source": "x", "dataset_version": "1", "extra": {"a": [1, {}]}}
    )
    return [
        json.dumps(row).encode(),
        json.dumps(full).encode(),
        json.dumps(row).encode() + b"\n" + json.dumps(full | {"id": "b"}).encode(),
    ]


# ---- importers -------------------------------------------------------------------------------------------------------

_COMMANDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "msrvtt": ("msrvtt", "msrvtt/videos", {}),
    "audiocaps": ("audiocaps/dataset", "audiocaps/audio", {}),
    "vatex": ("vatex", "vatex/videos", {"language": "both"}),
    "clotho": ("clotho", "clotho", {}),
    "vast-json": ("annotations/msrvtt", "videos", {}),
    "sounddescs": ("sounddescs", "sounddescs/audio", {}),
    "vggsound": ("vggsound.csv", "vggsound/video", {}),
    "audioset": ("audioset", "audioset/audio", {"train": "both"}),
    "kinetics700": ("k700/annotations", "k700", {}),
}
"""Importer to annotations, media and options, as `cases.data_sets` lays them out."""


class _Empty:
    """Stands in for a library of media: importers open none."""

    def put(self, folder: Path, names: Any) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def _laid_out(folder: Path) -> list[tuple[str, Path]]:
    """Every data set below the folder; importer and annotation file, in a fixed order."""
    from cases.data_sets import BUILDERS

    files = []
    for name, (place, _, _) in _COMMANDS.items():
        root = folder / name
        if not root.exists():
            BUILDERS[name](root, _Empty())  # type: ignore[arg-type]
        at = root / place
        found = [at] if at.is_file() else sorted(path for path in at.iterdir() if path.is_file())
        files += [(name, path) for path in found]
    return files


def _importers(data: bytes, folder: Path) -> None:
    """The first byte says which annotation file has the rest as its content; its importer reads all of its set."""
    from mover.data.importers import IMPORTERS
    from mover.data.manifest import read_manifest, write_manifest

    files = _laid_out(folder.parent / "sets")
    name, path = files[(data[0] if data else 0) % len(files)]
    before = path.read_bytes()
    annotations, media, options = _COMMANDS[name]
    root = folder.parent / "sets" / name
    path.write_bytes(data[1:])
    try:
        clips = IMPORTERS[name](root / annotations, root / media, **options)
    finally:
        path.write_bytes(before)
    for clip in clips:
        for modality in ("video", "audio", "image"):
            place = clip.media(modality)
            assert place is None or place.resolve().is_relative_to(root), f"{place} is outside of the media folder"
    if clips:
        write_manifest(folder / "manifest.jsonl", clips)
        assert len(read_manifest(folder / "manifest.jsonl")) == len(clips)


def _importer_seeds(folder: Path) -> list[bytes]:
    return [bytes([number]) + path.read_bytes() for number, (_, path) in enumerate(_laid_out(folder.parent / "sets"))]


# ---- configurations --------------------------------------------------------------------------------------------------


def _config(data: bytes, folder: Path) -> None:
    """What is loaded is saved and loaded again, the same."""
    from mover.configs import load_config, save_config

    path = folder / "config.yaml"
    path.write_bytes(data)
    config = load_config(path)
    save_config(config, path)
    assert load_config(path) == config


def _config_seeds(folder: Path) -> list[bytes]:
    from mover import configs

    shipped = sorted(Path(configs.__file__).parent.glob("*.yaml"))
    plain = b"a: &a [1, 0x1f, 1e3, ~, yes, 2001-01-01, !!binary aGk=]\nb: *a\n? [x]\n: {y: 1}\n<<: {z: 2}\n"
    others = b"modalities: [text, notes]\nmodel:\n  others:\n    notes: {kind: features, input_size: 8}\n"
    return [*(path.read_bytes() for path in shipped), plain, others]


# ---- features and embeddings -----------------------------------------------------------------------------------------


def _array(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _safetensors(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    from safetensors.numpy import save

    return save(arrays, metadata)


def _features(data: bytes, folder: Path) -> None:
    from mover.data.clip import Reference
    from mover.data.features import read_features

    path = _file(data, folder, (".npy", ".safetensors"))
    for row in (None, 1) if path.suffix == ".npy" else ("rows",):
        read_features(Reference(path, row))


def _feature_seeds(folder: Path) -> list[bytes]:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = [_array(rows), _array(rows.astype(">f8")), _array(np.array(["1.5", "2"])), _array(np.asfortranarray(rows))]
    return [*(b"\0" + array for array in plain), b"\1" + _safetensors({"rows": rows, "more": rows[0]})]


def _embeddings(data: bytes, folder: Path) -> None:
    """What is loaded is saved and loaded again."""
    from mover.evaluate.embeddings_file import load_embeddings, load_provenance, save_embeddings

    path = _file(data, folder, (".npz", ".safetensors", ".parquet"))
    load_provenance(path)
    embeddings = load_embeddings(path)
    for modality in embeddings.modalities:
        embeddings.unusable(modality)
    save_embeddings(embeddings, folder / "again.npz")
    assert load_embeddings(folder / "again.npz").ids == embeddings.ids


def _embeddings_seeds(folder: Path) -> list[bytes]:
    from mover.evaluate.embeddings import Embeddings
    from mover.evaluate.embeddings_file import save_embeddings

    rows = np.eye(3, 4, dtype=np.float32)
    every = np.ones(3, dtype=np.bool_)
    made = Embeddings(
        ["a", "b", "c"],
        {"text": rows, "video": rows},
        np.arange(3),
        {"text": every, "video": every},
        ("x", "", "y"),
        {"by": "me"},
    )
    seeds = []
    for kind, suffix in enumerate((".npz", ".safetensors", ".parquet")):
        save_embeddings(made, folder / f"seed{suffix}")
        content = (folder / f"seed{suffix}").read_bytes()
        seeds.append(bytes([kind]) + content)
        if suffix == ".npz":
            seeds.append(bytes([129]) + _unpacked(content))  # 129 % 3 is 0
    return seeds


# ---- checkpoints and tokenizers --------------------------------------------------------------------------------------


def _checkpoint(data: bytes, folder: Path) -> None:
    """A BEATs file, looked at in both ways and loaded into its tower."""
    from mover.config import AudioTowerConfig
    from mover.errors import UserError
    from mover.models.audio import AudioEncoder
    from mover.models.forms import check_audio_form
    from mover.models.inspection import inspect

    path = _file(data, folder, (".pt",))
    inspect(path)
    with contextlib.suppress(UserError):
        check_audio_form(path)
    AudioEncoder(AudioTowerConfig(checkpoint=path), 16000)


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    import torch

    from cases.checkpoints import official_beats

    saved, old = io.BytesIO(), io.BytesIO()
    torch.save(official_beats(), saved)
    torch.save(official_beats(1), old, _use_new_zipfile_serialization=False)
    plain = pickle.dumps({"cfg": {}, "model": {}}, 2)
    return [b"\x80" + _unpacked(saved.getvalue()), b"\0" + saved.getvalue(), b"\0" + old.getvalue(), b"\0" + plain]


def _tokenizer(data: bytes, folder: Path) -> None:
    from mover.data.tokenizer import Tokenizer

    path = folder / "tokenizer.json"
    path.write_bytes(data)
    tokenizer = Tokenizer.load(path, 12)
    assert tokenizer.vocab_size < 100_000
    tokenizer.encode(["a dog barks", "", "Hünd \U0001f415"])
    tokenizer.fingerprint()


def _tokenizer_seeds(folder: Path) -> list[bytes]:
    from mover.data.tokenizer import Tokenizer

    Tokenizer.train(["a dog barks", "two dogs"], 12, 270).save(folder / "tokenizer.json")
    content = (folder / "tokenizer.json").read_bytes()
    return [content, json.dumps(json.loads(content)).encode()]


# ---- media -----------------------------------------------------------------------------------------------------------

_MEDIA = (".mp4", ".mkv", ".wav", ".flac", ".png", ".jpg", ".gif", ".bmp", ".webp", ".tiff", ".mp3", ".avi")


def _media(data: bytes, folder: Path) -> None:
    """A file of media, read as every kind it may be."""
    from mover.data.clip import IMAGE_EXTENSIONS
    from mover.data.media import MediaError, read_image, read_pcm, read_video
    from mover.data.media_check import Part, check

    kind = data[0] % len(_MEDIA) if data else 0
    path = _file(bytes([kind]) + data[1:], folder, _MEDIA)
    if path.suffix in IMAGE_EXTENSIONS:
        read_image(path, 8)
        return
    for kind in ("video", "audio"):
        for quick in (True, False):
            check(Part(kind, path), quick)
        check(Part(kind, path, 0.25, 0.5))
    for read in (
        lambda: read_video(path, 8, lambda seconds: np.linspace(0, seconds, 3)),
        lambda: read_pcm(path, 16000),
    ):
        with contextlib.suppress(MediaError):
            read()


def _media_seeds(folder: Path) -> list[bytes]:
    from PIL import Image

    from cases.media import MediaMaker

    frames, tone = MediaMaker.grey((10, 90, 170, 250)), MediaMaker.tone(0.5)
    codecs = {
        ".mkv": ("mpeg4", "flac"),
        ".avi": ("mpeg4", "pcm_s16le"),
        ".wav": ("", "pcm_s16le"),
        ".flac": ("", "flac"),
        ".mp3": ("", "mp3"),
    }
    seeds = []
    for kind, suffix in enumerate(_MEDIA):
        path = folder / f"seed{suffix}"
        if suffix in (".mp4", ".mkv", ".avi"):
            MediaMaker.write(path, frames, samples=tone, codecs=codecs.get(suffix, ("libx264", "aac")), options={})
        elif suffix in codecs:
            MediaMaker.write(path, samples=tone, codecs=codecs[suffix], options={})
        else:
            Image.fromarray(frames[1]).save(path)
        seeds.append(bytes([kind]) + path.read_bytes())
    return seeds


def _media_index(data: bytes, folder: Path) -> None:
    """Names of files, and names that are looked for; nothing outside of the folder is found."""
    from mover.data.media_index import MediaIndex

    there, _, wanted = data.partition(PART)
    for name in there.split(b"\n")[:20]:
        try:
            (folder / name.decode("utf-8", "surrogateescape").replace("/", "_")).touch()
        except (OSError, ValueError):
            continue
    index = MediaIndex(folder)
    for name in wanted.split(b"\n"):
        found = index.find(name.decode("utf-8", "surrogateescape"))
        assert found is None or found.parent == folder


def _media_index_seeds(folder: Path) -> list[bytes]:
    return ["a.mp4\nb.wav\nÄ.mkv\nc.MP4".encode() + PART + "a\nb\nÄ\n../a\n/etc/passwd\nc".encode()]


TARGETS: dict[str, Target] = {
    "manifest": Target(
        _manifest, _manifest_seeds, (b'"start": ', b'"others": ', b'"id": "', b'"row": ', b"null", b"{}", b"[]")
    ),
    "importers": Target(
        _importers, _importer_seeds, (b'"../', b"/etc/", b",,", b'"', b"\\u0000", b"cposix\nsystem\n", b"\x8c\x02os")
    ),
    "config": Target(
        _config,
        _config_seeds,
        (
            b"&a ",
            b"*a",
            b"!!python/object/apply:os.system ",
            b"<<: ",
            b"? ",
            b"!!int ",
            b"!!timestamp ",
            b"- ",
            b"kind: ",
        ),
    ),
    "features": Target(
        _features, _feature_seeds, (b"'descr': '|O'", b"'shape': (", b"999999999999, ", b"'<f4'", b"'<U9'", b'"F64"')
    ),
    "embeddings": Target(
        _embeddings,
        _embeddings_seeds,
        (b"'|O'", b"'shape': (", b"999999999, ", b"_present", b"text_owner.npy\n", PART, b"provenance.npy\n"),
    ),
    "beats": Target(
        _checkpoint,
        _checkpoint_seeds,
        (b"cposix\nsystem\n", b"encoder_layers", b"J\xff\xff\xff\x7f", b"cbuiltins\neval\n", b"ctorch\n", PART),
    ),
    "tokenizer": Target(
        _tokenizer,
        _tokenizer_seeds,
        (b'"type":', b'"Split"', b'"Regex":"(a+)+$"', b'"id":4294967295', b'"Unigram"', b'"WordPiece"', b"null", b"[]"),
    ),
    "media": Target(
        _media,
        _media_seeds,
        (b"moov", b"stsd", b"IHDR\x00\x00\xff\xff\x00\x00\xff\xff", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"fmt "),
    ),
    "media_index": Target(_media_index, _media_index_seeds, (b"..", b"/", b"\0", b".mp4")),
}
