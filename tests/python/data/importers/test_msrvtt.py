"""MSR-VTT: one JSON file, the lists of four protocols, and hostile annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases.annotations import MSRVTT_TEST_HEADER as ONE_A
from cases.annotations import msrvtt_document as document
from cases.annotations import msrvtt_sentence as sentence
from cases.annotations import msrvtt_video as video
from mover.data.importers import IMPORTERS
from mover.errors import UserError

msrvtt = IMPORTERS["msrvtt"]
Write = Callable[..., Path]
URL = "https://www.youtube.com/watch?v=-9lZi22q-Eo"


@pytest.fixture
def four(write: Write, media: Write) -> tuple[Path, Path]:
    """Annotations of video0 … video3 with two captions each, and their media."""
    names = [f"video{number}" for number in range(4)]
    sentences = [
        sentence(name, f"{word} {name}", number) for word in ("one", "two") for number, name in enumerate(names)
    ]
    path = write("MSRVTT_data.json", document([video(name) for name in names], sentences))
    return path, media(*(f"{name}.mp4" for name in names))


def test_full_keeps_all_captions_order_and_splits(write: Write, media: Write) -> None:
    folder = media("video2.MP4", "video0.mp4", "other.txt")
    path = write(
        "MSRVTT_data.json",
        document(
            [video("video2"), video("video0", "validate"), video("video1", "test")],
            [
                sentence("video0", "one "),
                sentence("video2", "ein Hund über ☃"),
                sentence("video0", "three", 5),
                sentence("video1"),
            ],
        ),
    )
    clips = msrvtt(path.parent, folder, protocol="full")  # the folder stands for the file in it
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("video2", "train", ("ein Hund über ☃",)),
        ("video0", "val", ("one", "three")),
        ("video1", "test", ("a dog",)),
    ]
    first, second, last = clips
    assert first.video == first.audio == folder / "video2.MP4" and first.status == {}
    assert first.start is None and first.duration == 10.0 and first.label == "3" and first.source == "msrvtt"
    assert last.video is None and last.status == {"video": "missing", "audio": "missing"}
    assert second.extra == {
        "url": URL, "start time": 2.5, "end time": 12.5, "id": 7, "youtube_id": "-9lZi22q-Eo",
        "sentences": [{"sen_id": 0}, {"sen_id": 5}],
    }  # fmt: skip


def test_the_two_files_it_was_first_published_as(write: Write, media: Write) -> None:
    write(
        "train_val_videodatainfo.json",
        document([video("v0"), video("v1", "validate")], [sentence("v0"), sentence("v1")]),
    )
    path = write("test_videodatainfo.json", document([video("v2", "test")], [sentence("v2")]))
    clips = msrvtt(path.parent, media("v0.mp4"), protocol="full")
    assert [(clip.id, clip.split) for clip in clips] == [("v0", "train"), ("v1", "val"), ("v2", "test")]
    write("test_videodatainfo.json", document([video("v0", "test")], [sentence("v0")]))
    with pytest.raises(
        UserError, match=r"test_videodatainfo.json, videos\[0\]: the id 'v0' occurs twice, first at .*train_val"
    ):
        msrvtt(path.parent, media("v0.mp4"), protocol="full")


@pytest.mark.parametrize(("protocol", "name"), [("1k-A", "MSRVTT_train.9k.csv"), ("7k", "MSRVTT_train.7k.csv")])
def test_1k_a_and_7k_test_on_the_caption_of_the_list(
    four: tuple[Path, Path], write: Write, protocol: str, name: str
) -> None:
    write(name, "\ufeffvideo_id\r\nvideo3\r\nvideo0\r\n\r\n")
    write("MSRVTT_JSFUSION_test.csv", 'key,vid_key,video_id,sentence\nret0,msr2,video2,"a man, running"\n')
    clips = msrvtt(*four, protocol=protocol)
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("video0", "train", ("one video0", "two video0")),
        ("video2", "test", ("a man, running",)),
        ("video3", "train", ("one video3", "two video3")),
    ]
    assert "sentences" in clips[0].extra and "sentences" not in clips[1].extra
    if protocol == "1k-A":  # the default
        assert msrvtt(four[0].parent, four[1]) == clips


def test_1k_b_tests_on_the_first_caption(four: tuple[Path, Path], write: Write) -> None:
    write("train_list_miech.txt", "video1\nvideo0\n")
    write("test_list_miech.txt", "video2\r\n\r\nvideo3")
    clips = msrvtt(*four, protocol="1k-B")
    assert [(clip.split, clip.captions) for clip in clips] == [
        ("train", ("one video0", "two video0")), ("train", ("one video1", "two video1")),
        ("test", ("one video2",)), ("test", ("one video3",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "video2\n",
            ONE_A + "r,m,video2,x\n",
            "test.csv, line 2: the id 'video2' occurs twice, first at .*9k.csv, line 2",
        ),
        ("video0\nvideo0\n", ONE_A, "MSRVTT_train.9k.csv, line 3: the id 'video0' occurs twice"),
        ("video9\n", "", "MSRVTT_train.9k.csv, line 2: 'video9' is not in .*MSRVTT_data.json. Use the lists of"),
        ("video0\n", "id\n", "MSRVTT_JSFUSION_test.csv: the first line must name a column 'video_id', got id"),
        ("video0\n", "video_id\nvideo1\n", "line 2: 'sentence' must be a string that is not empty, got None"),
        ("video0\n", ONE_A + "r,m,video2, \n", "line 2: 'sentence' must be a string that is not empty, got ' '"),
        (None, "", "There is no MSRVTT_train.9k.csv in .* The protocol 1k-A needs it beside .*--protocol full"),
    ],
)
def test_lists_that_are_refused(
    four: tuple[Path, Path], write: Write, train: str | None, test: str, message: str
) -> None:
    if train is not None:
        write("MSRVTT_train.9k.csv", "video_id\n" + train)
    write("MSRVTT_JSFUSION_test.csv", test)
    with pytest.raises(UserError, match=message):
        msrvtt(*four)


def test_an_unknown_protocol(four: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="msrvtt: 'protocol' must be one of 1k-A, 7k, 1k-B, full, got '1k-C'"):
        msrvtt(*four, protocol="1k-C")


def test_sounds_in_the_same_folder_or_in_one_of_their_own(four: tuple[Path, Path], media: Write) -> None:
    path, folder = four
    (clip, *_) = msrvtt(path, folder, protocol="full", audio=media("video0.wav", folder="a"))
    assert clip.video == folder / "video0.mp4" and clip.audio == folder.parent / "a" / "video0.wav"
    media("video1.wav")
    assert [clip.audio.name for clip in msrvtt(path, folder, protocol="full")][:2] == ["video0.mp4", "video1.wav"]


EMPTY = "must be a string that is not empty, got"
OUTSIDE = "leads out of the media folder"


@pytest.mark.parametrize(
    ("videos", "sentences", "message"),
    [
        ([video("v")], [sentence("v", " ")], rf"MSRVTT_data.json, sentences\[0\]: 'caption' {EMPTY} ' '"),
        ([video("v")], [sentence("v"), sentence("v", 7)], rf"sentences\[1\]: 'caption' {EMPTY} 7"),
        ([video("v")], [sentence("v", "\ud83d")], r"sentences\[0\]: 'caption' holds half a character"),
        ([video("v")], [sentence("w")], r"sentences\[0\]: video_id 'w' is not in 'videos'"),
        ([video("v"), video("u")], [sentence("v")], r"videos\[1\]: video 'u' has no sentence"),
        ([video("v"), video("v")], [sentence("v")], r"videos\[1\]: the id 'v' occurs twice, first at .*videos\[0\]"),
        ([video("v", split="")], [sentence("v")], rf"videos\[0\]: 'split' {EMPTY} ''"),
        ([{"split": "train"}], [sentence("v")], rf"videos\[0\]: 'video_id' {EMPTY} None"),
        ([video("../../etc/passwd")], [], rf"videos\[0\]: 'video_id' {OUTSIDE}: '../../etc/passwd'"),
        ([video("/etc/passwd")], [], rf"videos\[0\]: 'video_id' {OUTSIDE}"),
        ([video("a\\..\\b")], [], rf"videos\[0\]: 'video_id' {OUTSIDE}"),
        (["v"], [], r"videos\[0\]: expected an object, got 'v'"),
        ([], [], "the list 'videos' is empty"),
        ([video("x")], [sentence("x")], "Not one clip was found in .*none is named after a clip, as 'x.mp4' would be"),
    ],
)
def test_hostile(write: Write, media: Write, videos: list[Any], sentences: list[Any], message: str) -> None:
    path = write("MSRVTT_data.json", json.dumps(document(videos, sentences)))
    with pytest.raises(UserError, match=message):
        msrvtt(path, media("v.mp4"), protocol="full")


def test_a_length_that_is_no_number_is_not_known(write: Write, media: Write) -> None:
    path = write("MSRVTT_data.json", document([video("v", **{"start time": "zero"})], [sentence("v")]))
    assert msrvtt(path, media("v.mp4"), protocol="full")[0].duration is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"videos": [\n  {"video_id": }]}', r"MSRVTT_data.json is not valid JSON: Expecting value: line 2 column 16"),
        (b'{"videos": NaN}', "is not valid JSON: NaN is no number of JSON"),
        (b'{"videos": ' + b"[" * 100_000, "is not valid JSON"),
        (b"[]", "expected an object with the lists 'videos' and 'sentences'"),
        (b"\xff\xfe\xfa", "it is not UTF-8 text"),
        (b'{"videos": "\0"}', "holds zero bytes"),
    ],
)
def test_files_that_are_not_json(write: Write, media: Write, content: bytes, message: str) -> None:
    path = write("MSRVTT_data.json", "")
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        msrvtt(path, media("v.mp4"), protocol="full")


def test_paths_that_are_not_there(four: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        msrvtt(tmp_path / "none.json", four[1])
    with pytest.raises(UserError, match=re.escape(f"The media folder {tmp_path / 'nowhere'} cannot be listed")):
        msrvtt(four[0], tmp_path / "nowhere", protocol="full")
