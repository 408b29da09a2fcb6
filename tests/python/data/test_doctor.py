"""The check of media: every fault found and named, every file read once, nothing lost when it is stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mover.cli import main
from mover.data import Clip, Reference, doctor, media, read_manifest, write_manifest
from mover.data.doctor import examine, record_of
from mover.data.doctor_report import Report
from mover.data.limits import Limits
from mover.data.media_check import Part, check
from mover.errors import UserError


@pytest.fixture(scope="module")
def template(make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every state."""
    tmp_path = tmp_path_factory.mktemp("template")
    sound = make.tone(1.0)
    make.write(tmp_path / "good one.mp4", make.grey([9] * 8), samples=sound)
    make.write(tmp_path / "mute.mp4", make.grey([9] * 8))
    make.write(tmp_path / "hush.mp4", make.grey([9] * 8), samples=sound * 0)
    make.write(tmp_path / "click.wav", samples=sound[:800], codecs=("", "pcm_s16le"))
    whole = make.write(tmp_path / "long.mp4", make.grey(list(range(0, 240, 2))), samples=make.tone(15.0)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    np.save(tmp_path / "depth.npy", np.ones((3, 4), np.float32))
    np.save(tmp_path / "odd.npy", np.array([np.nan]))
    make.write(tmp_path / "picture.mov", make.grey([7]), codecs=("png", "")).rename(tmp_path / "image.png")
    return tmp_path


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of those files."""
    return shutil.copytree(template, tmp_path / "media")


def both(folder: Path, name: str, **fields) -> Clip:
    path = folder / f"{name}.mp4"
    return Clip(name, ("a caption",), path, path, **fields)


@pytest.fixture
def clips(folder: Path) -> list[Clip]:
    names = ["good one", "mute", "hush", "half", "empty", "folder", "absent"]
    extra = {"kept": [1, {"ü": None}]}
    others = {
        "depth": Reference(folder / "depth.npy", 2),
        "image": Reference(folder / "image.png"),
        "notes": Reference(folder / "odd.npy"),
    }
    return [
        *(both(folder, name, extra=extra) for name in names),
        Clip("click", ("a caption",), folder / "good one.mp4", folder / "click.wav", split="test"),
        Clip("part", ("a caption",), folder / "long.mp4", folder / "long.mp4", start=3.0, duration=2.0, split="test"),
        Clip(
            "beyond", ("a caption",), folder / "long.mp4", folder / "long.mp4", start=30.0, duration=2.0, split="test"
        ),
        Clip("others", ("a caption",), others=others, split="test"),
        Clip("deep", (), others={"depth": Reference(folder / "depth.npy", 3)}, split="test"),
        Clip("none", ("a caption",), status={"video": "missing"}, split="test"),
    ]


STATUSES = {
    "mute": {"audio": "no_audio_track"},
    "half": {"video": "corrupt", "audio": "corrupt"},
    "empty": {"video": "corrupt", "audio": "corrupt"},
    "folder": {"video": "corrupt", "audio": "corrupt"},
    "absent": {"video": "missing", "audio": "missing"},
    "click": {"audio": "too_short"},
    "beyond": {"video": "too_short", "audio": "too_short"},
    "others": {"notes": "corrupt"},
    "deep": {"depth": "corrupt"},
    "none": {"video": "missing"},
}


def ask(clips: Sequence[Clip], folder: Path, **options) -> doctor.Examination:
    return examine(clips, folder / "record.jsonl", progress=False, **options)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened as media, one for each time."""
    names: list[str] = []
    plain = media.av.open

    def note(name, *arguments, **options):
        names.append(os.path.basename(name) if isinstance(name, str) else "image")
        return plain(name, *arguments, **options)

    monkeypatch.setattr(media.av, "open", note)
    return names


@pytest.mark.parametrize("workers", [1, 3])
def test_every_fault_is_found(clips: list[Clip], folder: Path, workers: int) -> None:
    examination = ask(clips, folder, workers=workers)
    assert {clip.id: clip.status for clip in examination.treated() if clip.status} == STATUSES
    assert [replace(clip, status={}) for clip in examination.treated()] == [replace(clip, status={}) for clip in clips]
    found = dict(zip([clip.id for clip in clips], examination.findings, strict=True))
    assert found["good one"]["video"].facts == {"frames": 8, "seconds": 1.0, "width": 32, "height": 32}
    assert found["good one"]["audio"].facts == {"seconds": 1.0}
    assert found["hush"]["audio"].facts == {"seconds": 1.0, "silent": True}
    assert found["part"]["video"].facts["seconds"] == found["part"]["audio"].facts["seconds"] == 2.0
    assert found["part"]["video"].facts["frames"] == 16
    assert found["others"]["depth"].facts == {"shape": [4]}
    assert found["click"]["audio"].reason.startswith("the audio has 0.050 s")
    assert all(finding.reason for row in found.values() for finding in row.values() if finding.status != "ok")


def test_each_part_is_read_once_and_only_when_something_is_new(clips, folder: Path, opened: list[str], make) -> None:
    twins = [*clips, *(replace(clip, id=f"{clip.id} again", split="val") for clip in clips)]
    first = ask(twins, folder)
    assert max(opened.count(name) for name in ("good one.mp4", "mute.mp4", "hush.mp4")) == 2, "picture and sound"
    assert first.recalled == 0 and first.findings[: len(clips)] == first.findings[len(clips) :]
    opened.clear()
    second = ask(twins, folder)
    assert not opened and second.findings == first.findings
    assert second.checked == 2, "what is not there is looked for again"
    make.write(folder / "mute.mp4", make.grey([9] * 4), samples=make.tone(0.5))
    make.write(folder / "absent.mp4", make.grey([9] * 4), samples=make.tone(0.5))
    opened.clear()  # of what writing them opened
    third = ask(twins, folder)
    assert sorted(opened) == ["absent.mp4"] * 2 + ["mute.mp4"] * 2
    assert not {"mute", "absent"} & {clip.id for clip in third.treated() if clip.status}
    opened.clear()
    ask([replace(clips[0], start=0.25, duration=0.5)], folder)
    assert opened == ["good one.mp4"] * 2, "another stretch of a file is another part"
    ask(clips[:1], folder, again=True)
    assert opened == ["good one.mp4"] * 4
    os.utime(folder / "good one.mp4", ns=(1, 1))
    ask(clips[:1], folder)
    assert opened == ["good one.mp4"] * 6, "the same size at another time"


def test_what_was_found_before_an_interruption_stays(clips, folder: Path, monkeypatch, opened: list[str]) -> None:
    seen: list[Part] = []

    def interrupted(part: Part, quick: bool, limits: Limits):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(part)
        return check(part, quick, limits)

    monkeypatch.setattr(doctor, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(clips, folder, workers=1)
    monkeypatch.undo()
    with open(folder / "record.jsonl", "a") as record:
        record.write('{"part": [1, "vid')  # as a crash would leave it
    examination = ask(clips, folder, workers=1)
    assert examination.recalled == 5
    assert {clip.id: clip.status for clip in examination.treated() if clip.status} == STATUSES
    assert ask(clips, folder).recalled == examination.recalled + examination.checked - 2


@pytest.mark.parametrize("text", ["\n\n", "null\n", "[]\n", '{"part": 1}\n', "\0\0\xff\n", '{"state": []}\n'])
def test_a_damaged_record_is_passed_over(clips: list[Clip], folder: Path, text: str) -> None:
    (folder / "record.jsonl").write_text(text, encoding="latin-1")
    assert ask(clips[:2], folder).recalled == 0
    assert ask(clips[:2], folder).recalled == 4


def test_a_quick_look_is_not_taken_for_more_than_it_is(clips: list[Clip], folder: Path, opened: list[str]) -> None:
    quick = ask(clips, folder, quick=True)
    found = {clip.id: clip.status for clip in quick.treated() if clip.status}
    damaged = {"half": {}, "click": {}}
    assert {name: status for name, status in found.items() if name not in damaged} == {
        name: status for name, status in STATUSES.items() if name not in damaged
    }
    noted = replace(clips[0], status={"video": "corrupt", "audio": "missing"})
    (treated,) = ask([noted], folder, quick=True).treated()
    assert treated.status == {"video": "corrupt"}, "headers do not show that it is whole"
    opened.clear()
    assert ask(clips, folder).treated() != quick.treated() and "good one.mp4" in opened
    opened.clear()
    assert ask(clips, folder, quick=True).treated() == ask(clips, folder).treated() and not opened


def test_whatever_a_library_raises_is_a_finding(clips: list[Clip], folder: Path, monkeypatch) -> None:
    def fails(*arguments, **options):
        raise RuntimeError("the decoder gave up")

    monkeypatch.setattr("mover.data.media_check.scan_video", fails)
    finding = check(Part("video", folder / "good one.mp4"))
    assert (finding.status, finding.reason) == ("corrupt", "it cannot be read: the decoder gave up")
    assert check(Part("video", Path("zero\0byte"))).status == "corrupt"
    os.mkfifo(folder / "pipe.mp4")
    assert check(Part("video", folder / "pipe.mp4")).reason == "it is not a file"


def test_the_report_counts(clips: list[Clip], folder: Path) -> None:
    report = Report(ask(clips, folder))
    assert report.modalities == ["text", "video", "audio", "depth", "image", "notes"]
    assert dict(report.counts["video"]) == {"ok": 5, "corrupt": 3, "missing": 4, "too_short": 1}
    assert report.splits["train"] == {"clips": 7, "complete": 0, "usable": 3}
    assert report.silent == ["hush"] and report.code == 1
    lines = "\n".join(report.lines())
    assert "train: 7 clips, 0 with everything (text, video, audio, depth, image, notes), 3 with two modalities" in lines
    assert "in 1 clips (hush) the sound is silence" in lines and "… and " in lines
    assert str(folder / "mute.mp4") in lines and "there is no audio track" in lines
    summed = Counter[tuple[str, str]]()
    for (modality, status, _), count in report.reasons.items():
        summed[modality, status] += count
    assert summed == Counter((modality, status) for _, modality, status, _ in report.amiss)
    assert not any(letter.isdigit() for _, _, why in report.reasons for letter in why)
    document = json.loads(json.dumps(report.document()))
    assert sum(row["clips"] for row in document["reasons"]) == len(report.amiss)
    assert document["clips"][0]["video"]["frames"] == 8 and len(document["clips"]) == len(clips)
    good = [clips[0], replace(clips[0], id="b")]
    assert Report(ask(good, folder)).code == 0
    assert Report(ask([replace(clips[4], id="a")], folder)).code == 2


def test_reasons_are_counted_whatever_their_numbers(clips: list[Clip], folder: Path) -> None:
    gone = [replace(clips[0], id=f"gone{i}", video=folder / f"gone{i}.mp4", audio=None) for i in range(12)]
    lines = Report(ask([*gone, clips[0]], folder)).lines()
    assert "  12  video missing: there is no such file" in lines
    assert "  12  audio missing: the manifest names none" in lines
    assert sum(line.startswith("  gone") for line in lines) == 10 and lines[-1] == "  … and 14 more"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(clips: list[Clip], folder: Path, capsys) -> None:
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, clips)
    before = manifest.read_bytes()
    assert run(capsys, "doctor", manifest, "--dry-run", "--json", folder / "all.json")[0] == 1
    assert manifest.read_bytes() == before and record_of(manifest).exists()
    assert json.loads((folder / "all.json").read_text())["splits"]["train"]["usable"] == 3
    code, out, _ = run(capsys, "doctor", manifest, "--out", folder / "elsewhere" / "m.jsonl")
    assert code == 1 and manifest.read_bytes() == before and "known from manifest.doctor.jsonl" in out
    assert {clip.id: clip.status for clip in read_manifest(folder / "elsewhere" / "m.jsonl") if clip.status} == STATUSES
    code, out, _ = run(capsys, "doctor", manifest, "--split", "test")
    assert code == 1 and "5 clips with other statuses" not in out
    assert {c.id: c.status for c in read_manifest(manifest) if c.status and c.split == "train"} == {}
    assert run(capsys, "doctor", manifest)[0] == 1
    after = read_manifest(manifest)
    assert {clip.id: clip.status for clip in after if clip.status} == STATUSES
    assert [replace(clip, status={}) for clip in after] == [replace(clip, status={}) for clip in clips]
    untouched = [line for line in before.decode().splitlines() if json.loads(line)["id"] not in STATUSES]
    assert set(untouched) <= set(manifest.read_text().splitlines())
    stamp = manifest.stat().st_mtime_ns
    code, out, _ = run(capsys, "doctor", manifest)
    assert "nothing to write" in out and manifest.stat().st_mtime_ns == stamp


def test_exit_codes(clips: list[Clip], folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = folder / "m.jsonl"
    write_manifest(manifest, clips[:1])
    assert run(capsys, "doctor", manifest)[0] == 0
    write_manifest(manifest, clips[4:6])
    assert run(capsys, "doctor", manifest, "--dry-run")[0] == 2, "captions alone teach nothing"
    code, _, err = run(capsys, "doctor", folder / "nowhere.jsonl")
    assert code == 2 and "There is no manifest" in err
    code, _, err = run(capsys, "doctor", manifest, "--dry-run", "--out", folder / "x")
    assert code == 2 and "--dry-run" in err
    code, _, err = run(capsys, "doctor", manifest, "--split", "val")
    assert code == 2 and "No clip belongs to the split 'val'" in err
    code, _, err = run(capsys, "doctor", manifest, "--again", "--record", folder / "good one.mp4" / "r.jsonl")
    assert code == 2 and "record" in err


def test_a_manifest_that_changes_meanwhile_is_left_alone(clips, folder: Path, capsys, monkeypatch) -> None:
    manifest = folder / "m.jsonl"
    write_manifest(manifest, clips)

    def meddle(part: Part, quick: bool, limits: Limits):
        write_manifest(manifest, clips[:1])
        return check(part, quick, limits)

    monkeypatch.setattr(doctor, "check", meddle)
    code, _, err = run(capsys, "doctor", manifest)
    assert code == 2 and "was changed while its media were checked" in err
    assert len(read_manifest(manifest)) == 1


def test_a_record_without_room(clips: list[Clip], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(UserError, match=r"record .*record\.jsonl cannot be written: No space left"):
        ask(clips[:1], folder)
