"""Where files that come from outside may lead: importers stay in the media folder, manifests name any regular file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cases.annotations import KINETICS_HEADER
from cases.media import MediaMaker
from mover.data.clip import Reference
from mover.data.features import read_features
from mover.data.importers import IMPORTERS
from mover.data.importers.fields import clip_name
from mover.data.manifest import read_manifest
from mover.data.media import MediaError, read_image, read_pcm, read_video, scan_video
from mover.errors import UserError

OUTSIDE = ["../a", "/etc/a", "a/../../b", "..", "..\\a", "\\\\host\\a", "C:\\a", "C:a", "a\0b", "/", "\\a"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_that_lead_out_of_the_media_folder_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="leads out of the media folder"):
        clip_name(name, "a.csv, line 2", "video_id")


@pytest.mark.parametrize("split", ["../../secret", "/etc", "..\\x"])
def test_splits_that_are_folders_stay_inside(split: str, tmp_path: Path) -> None:
    (tmp_path / "k700").mkdir()
    (tmp_path / "t.csv").write_text(KINETICS_HEADER + f"x,up,0,10,{split}\n")
    with pytest.raises(UserError, match="line 2: 'split' leads out of the media folder"):
        IMPORTERS["kinetics700"](tmp_path / "t.csv", tmp_path / "k700")


def test_a_name_too_long_for_a_folder_is_a_clip_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "k700").mkdir()
    (tmp_path / "k700" / "up_000000_000010.mp4").touch()
    (tmp_path / "t.csv").write_text(KINETICS_HEADER + f"x,up,0,10,train\n{'y' * 300},other,0,10,train\n")
    clips = IMPORTERS["kinetics700"](tmp_path / "t.csv", tmp_path / "k700")
    assert clips[0].video is not None and clips[1].status == {"video": "missing", "audio": "missing"}


def test_manifests_may_name_files_anywhere(tmp_path: Path) -> None:
    """Media often lie on another disk than the manifest: absolute paths, `..` and links are the user's own."""
    far = tmp_path / "disk" / "a.mp4"
    far.parent.mkdir()
    MediaMaker.write(far, MediaMaker.grey([9, 90]))
    (tmp_path / "data").mkdir()
    os.symlink(far, tmp_path / "data" / "link.mp4")
    path = tmp_path / "data" / "m.jsonl"
    for name in (str(far), "../disk/a.mp4", "link.mp4"):
        path.write_text('{"id": "a", "captions": [], "split": "x", "video": "' + name + '"}\n')
        (clip,) = read_manifest(path)
        assert clip.video is not None and scan_video(clip.video)["frames"] == 2


@pytest.mark.parametrize("row", ['"video": "a\\u0000b"', '"others": {"x": "a\\u0000.npy"}', '"id": "a\\u0000"'])
def test_zero_bytes_in_a_manifest_are_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "captions": [], "split": "x", ' + row + "}\n")
    with pytest.raises(UserError, match="line 1: field"):
        read_manifest(path)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would never end, a device never stop."""
    for name in ("pipe.mp4", "pipe.png", "pipe.npy"):
        os.mkfifo(tmp_path / name)
    os.symlink("/dev/zero", tmp_path / "zero.png")
    for read in (
        lambda: read_video(tmp_path / "pipe.mp4", 8),
        lambda: read_pcm(tmp_path / "pipe.mp4", 16000),
        lambda: read_image(tmp_path / "pipe.png", 8),
        lambda: read_image(tmp_path / "zero.png", 8),
        lambda: read_image(tmp_path, 8),
        lambda: read_features(Reference(tmp_path / "pipe.npy")),
    ):
        with pytest.raises(MediaError, match="it is not a file"):
            read()


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
    ],
    ids=["hls", "concat", "sdp", "dash"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mkv"])
def test_playlists_open_no_other_file(playlist: str, suffix: str, tmp_path: Path) -> None:
    target = MediaMaker.write(tmp_path / "secret.mp4", MediaMaker.grey([9, 90]), samples=MediaMaker.tone(1.0))
    path = tmp_path / f"a{suffix}"
    path.write_text(playlist.format(target.name))
    for read in (lambda: read_video(path, 8), lambda: read_pcm(path, 16000), lambda: read_image(path, 8)):
        with pytest.raises(MediaError, match="cannot be decoded"):
            read()


def test_names_that_are_patterns_or_protocols_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`%d` is no series, `concat:` and `http:` are no protocols."""
    from PIL import Image

    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / "a1.png")
    monkeypatch.chdir(tmp_path)
    for name in ("a%d.png", "concat:a1.png", "http:a1.png"):
        for read in (lambda name=name: read_image(Path(name), 8), lambda name=name: read_video(Path(name), 8)):
            with pytest.raises(MediaError) as caught:
                read()
            assert caught.value.status == "missing"
