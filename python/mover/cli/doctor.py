"""`mover doctor`: check the media of a manifest and note there what is amiss."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.parser import Parser, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from mover.data.manifest import Clip

_DESCRIPTION = """\
Check the media that a manifest names: that each file is there, decodes to its end, has the track it is named for and is
long enough. The statuses go into the manifest (ok, missing, no_audio_track, corrupt, too_short,
too_large), where training and evaluation heed them. Silent sound is remarked on, no fault.

  mover doctor data/msrvtt/manifest.jsonl
  mover doctor data/msrvtt/manifest.jsonl --quick --dry-run
  mover doctor data/msrvtt/manifest.jsonl --split test --json doctor.json

Each part of a file that the rows name is decoded once, by threads. What is found is kept in a record beside the
manifest (manifest.doctor.jsonl) as it comes: a check that was stopped (Ctrl-C) goes on where it was, and a later one
reads only files that are new or have changed.

Exit code 0: every clip has everything; 1: some lack something, and the counts say what remains; 2: an error, or not one
clip has two modalities."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(prog="mover doctor", description=_DESCRIPTION, usage="mover doctor MANIFEST …")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest to check, and to write statuses into")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the manifest with statuses here instead")
    parser.add_argument("--dry-run", action="store_true", help="leave the manifest as it is")
    parser.add_argument("--split", metavar="NAME", help="only the clips of this split [all]")
    parser.add_argument(
        "--quick", action="store_true",
        help="headers only, nothing is decoded: finds files and tracks that are missing, not all that is damaged",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found here")
    parser.add_argument("--record", type=Path, metavar="FILE", help="record to go on from [beside the manifest]")
    parser.add_argument("--again", action="store_true", help="check everything again, whatever the record says")
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="INT",
        help="threads that decode [one per processor]",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=positive, metavar="INT", help="as data.max_pixels of the run [its default]"
    )
    parser.add_argument(
        "--max-clip-bytes", type=positive, metavar="INT", help="as data.max_clip_bytes of the run [its default]"
    )
    options = parser.parse_args(list(argv))
    if options.dry_run and options.out is not None:
        raise UserError("--dry-run writes no manifest, and --out names one. Leave one of them out.")

    from mover.data.doctor import examine, record_of
    from mover.data.doctor_report import Report
    from mover.data.fingerprint import file_state
    from mover.data.limits import LIMITS, Limits
    from mover.data.manifest import read_manifest, select_split, write_atomically

    before = file_state(options.manifest)
    listed = read_manifest(options.manifest)
    clips = listed if options.split is None else select_split(listed, options.split)
    record = options.record or record_of(options.manifest)
    examination = examine(
        clips, record, quick=options.quick, again=options.again, workers=options.workers, progress=sys.stderr.isatty(),
        limits=Limits(options.max_pixels or LIMITS.max_pixels, options.max_clip_bytes or LIMITS.max_clip_bytes),
    )  # fmt: skip
    report = Report(examination)
    known = f", {examination.recalled} known from {record.name}" if examination.recalled else ""
    print(f"{options.manifest}: {len(clips)} clips; {examination.checked} parts of files checked{known}")
    print("\n".join(report.lines()))
    if options.json is not None:
        document = {"manifest": str(options.manifest), "quick": options.quick, **report.document()}
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")
    if not options.dry_run:
        if file_state(options.manifest) != before:
            raise UserError(
                f"{options.manifest} was changed while its media were checked. Run the command again: what was found "
                f"is in {record}."
            )
        treated = {clip.id: clip for clip in examination.treated()}
        _write(options.manifest, options.out, listed, [treated.get(clip.id, clip) for clip in listed])
    return report.code


def _write(manifest: Path, out: Path | None, listed: Sequence[Clip], treated: Sequence[Clip]) -> None:
    from mover.data.manifest import write_manifest

    changed = sum(old is not new for old, new in zip(listed, treated, strict=True))
    if out is None and not changed:
        print(f"{manifest}: its statuses are as found, nothing to write")
        return
    target = Path(os.path.realpath(manifest if out is None else out))  # a link stays a link
    try:
        write_manifest(target, treated)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}. Name another file with --out.") from None
    print(f"{out or manifest}: written, {changed} clips with other statuses than before")
