"""Evaluation from a checkpoint or an embeddings file to metrics.json. What `mover evaluate` does.

Ranking a file takes neither models nor media, so what these need is imported only where a checkpoint is embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mover.errors import UserError
from mover.evaluate.directions import directions, taking_part
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import load_embeddings
from mover.evaluate.intervals import LEVEL, RESAMPLES
from mover.evaluate.metrics import Metrics, metrics_of
from mover.evaluate.rank import Progress, Ranking, rankings
from mover.evaluate.results import provenance, write_metrics
from mover.evaluate.zero_shot import KEY, generalised, split_of, summary
from mover.train.device import pick_device

Say = Callable[[str], None]

_KEPT = ("checkpoint", "weights_sha256", "config", "manifest", "split", "missing_policy", "left_out")
"""What is told again of the provenance that a file carries."""


@dataclass(frozen=True)
class Result:
    """metrics: name of a row to values. meta: where they come from. path: the metrics.json written.

    embeddings: those that were ranked. rankings: the standing of every query.
    """

    metrics: Metrics
    meta: dict[str, Any]
    path: Path
    embeddings: Embeddings
    rankings: list[Ranking]


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    manifest: Path | None = None,
    split: str | None = None,
    missing: str | None = None,
    unusable: str = "last",
    dual_softmax: float | None = None,
    unseen: Sequence[str] = (),
    device: str = "auto",
    batch_size: int | None = None,
    out: Path | None = None,
    embeddings_out: Path | None = None,
    progress: bool = False,
    ranking: Progress | None = None,
    say: Say = lambda text: None,
) -> Result:
    """Embed a split with the model of a checkpoint, rank, and write metrics.json.

    The embeddings are kept; where they are there already, of the same weights, settings, clips and media, they are
    ranked as they are. An interrupted call goes on where it was.

    Args:
        checkpoint: a checkpoint folder, `runs/NAME/checkpoints/best`.
        manifest, split, missing, batch_size: in place of those of the checkpoint's configuration.
        unusable, dual_softmax, unseen: as in `evaluate_embeddings`.
        device: auto, cpu, cuda or cuda:N.
        out: the file to write; default: metrics.json in the folder of the run, for another split than the test
            split metrics-SPLIT.json.
        embeddings_out: where to keep the embeddings; default: embeddings.npz, embeddings-SPLIT.npz, there.
        progress: whether to draw bars while clips are read and embedded.
        ranking: called while scores are computed.
        say: takes a line about what is going on.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came while clips were embedded, and what was done is kept.
        UserError: no whole checkpoint, weights that do not fit, bad data, a clip that cannot be used under "fail".
    """
    from mover.evaluate.embed_checkpoint import embed_checkpoint
    from mover.evaluate.embed_parts import OutOfDate
    from mover.train.checkpoint import find_checkpoint, load_checkpoint_config
    from mover.train.run_folder import RunFolder

    config = load_checkpoint_config(find_checkpoint(checkpoint))
    split = split or config.data.test_split
    place = checkpoint if checkpoint.parent.name else checkpoint.absolute()
    run = RunFolder(place.parent.parent if place.parent.name == "checkpoints" else checkpoint)
    path = embeddings_out or run.of_split(run.embeddings, split, config)
    out = out or run.of_split(run.metrics, split, config)

    def embedded(overwrite: bool) -> Embeddings:
        return embed_checkpoint(
            checkpoint, path, manifest=manifest, split=split, missing=missing, device=device, batch_size=batch_size,
            overwrite=overwrite, progress=progress, say=say,
        )  # fmt: skip

    try:
        listed = embedded(overwrite=False)
    except OutOfDate:
        say(f"{path} was made of other weights, settings, clips or media: embedding anew")
        listed = embedded(overwrite=True)
    absent = [str(m) for m in listed.provenance["absent"]]
    anchor = config.objective.anchor if config.objective.anchor in listed.modalities or not absent else None
    meta = {key: listed.provenance[key] for key in ("checkpoint", "manifest", "split", "left_out")}
    return _finish(
        listed, missing or config.evaluate.missing, unusable, pick_device(device), out,
        {**meta, "embeddings": str(path)}, say, anchor, dual_softmax, unseen, ranking, absent,
    )  # fmt: skip


def evaluate_embeddings(
    path: Path,
    *,
    missing: str = "fail",
    unusable: str = "fail",
    anchor: str | None = None,
    dual_softmax: float | None = None,
    unseen: Sequence[str] = (),
    device: str = "auto",
    out: Path | None = None,
    ranking: Progress | None = None,
    say: Say = lambda text: None,
) -> Result:
    """Rank the embeddings of a file (see `mover.evaluate.embeddings_file`) and write the metrics.

    Args:
        path: the file, whoever made it.
        missing: "fail": refuse clips without a modality; "drop": leave them out of every direction; "mask": use them in
            the directions for which they have what is needed.
        unusable: rows that are zero or not finite: "fail": refuse them; "last": they rank last; "missing": they count
            as not there, and `missing` says what becomes of their clips.
        anchor: the modality that the joint directions compare with all others, where there is no text; default: that of
            the run that made the file, else the first.
        dual_softmax: a temperature, to rank by dual softmax as well.
        unseen: classes that were not trained on, to tell Recall@1 of their queries apart from that of the others.
        device: auto, cpu, cuda or cuda:N.
        out: the file to write; default: beside `path`, with the ending .metrics.json.
        ranking: called while scores are computed.
        say: takes a line about what is going on.

    Raises:
        UserError: a bad file, a clip without a modality or a row that cannot be used under "fail", or an anchor that
            does not fit.
    """
    listed = load_embeddings(path)
    if anchor is not None and "text" in listed.modalities:
        raise UserError(f"{path} has text, and joint directions then compare text with all others: leave --anchor out.")
    told = listed.provenance.get("anchor")
    anchor = anchor or (told if told in listed.modalities else None)
    about = {key: listed.provenance[key] for key in _KEPT if key in listed.provenance}
    meta = {"embeddings": str(path), **({"provenance": about} if about else {})}
    out = out or path.with_suffix(".metrics.json")
    where = pick_device(device)
    return _finish(listed, missing, unusable, where, out, meta, say, anchor, dual_softmax, unseen, ranking)


def _finish(
    listed: Embeddings,
    missing: str,
    unusable: str,
    device: torch.device,
    out: Path,
    meta: Mapping[str, Any],
    say: Say,
    anchor: str | None,
    dual_softmax: float | None,
    unseen: Sequence[str],
    progress: Progress | None,
    absent: Sequence[str] = (),
) -> Result:
    """Rank what the policies leave; `absent`: modalities of the run that are not among those listed."""
    source = meta["embeddings"]
    try:
        embeddings = listed.under(missing, unusable)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if missing == "fail":
        refuse_missing(source, embeddings)
    if not embeddings.ids:
        raise UserError(
            f"None of {len(listed.ids)} clips has all of {', '.join(listed.modalities)}: nothing is left under "
            "missing drop. Take mask, or leave a modality out of the run."
        )
    classes = split_of(embeddings, unseen) if unseen else None
    _tell(listed, embeddings, unusable, anchor, say)
    found = rankings(embeddings, device, progress, anchor, every_score=True, dual_softmax=dual_softmax)
    if not found:
        raise UserError("No clip has two modalities: there is nothing to rank.")
    metrics = metrics_of(found, len(embeddings.ids))
    meta = {**meta, **provenance(listed, missing, anchor, unusable)}
    meta["without"] |= dict.fromkeys(absent, len(listed.ids))
    meta["intervals"] = {
        "level": LEVEL, "method": "percentiles of a bootstrap over clips", "resamples": RESAMPLES, "seed": 0
    }  # fmt: skip
    if dual_softmax is not None:
        meta["dual_softmax"] = {"temperature": dual_softmax, "rows": "+dsl", "uses": "all queries at once"}
    if classes is not None:
        meta[KEY] = summary(classes)
        for name, row in generalised(embeddings, found, classes, device, anchor).items():
            metrics[name][KEY] = row
    write_metrics(out, metrics, meta)
    return Result(metrics, meta, out, embeddings, found)


def refuse_missing(source: str, embeddings: Embeddings) -> None:
    """Raises UserError where a clip lacks a modality; `source` is what the embeddings came from."""
    for modality in embeddings.modalities:
        without = embeddings.missing(modality)
        if without:
            raise UserError(
                f"{source}: {len(without)} of {len(embeddings.ids)} clips have no {modality}, first '{without[0]}': "
                "leave them out of every direction with --missing drop, or of those that need it with --missing mask."
            )


def _tell(listed: Embeddings, embeddings: Embeddings, unusable: str, anchor: str | None, say: Say) -> None:
    """What a reader of the numbers has to know of the rows."""
    for modality in listed.modalities:
        bad = listed.unusable(modality)
        if bad:
            fate = "counts as not there" if unusable == "missing" else "ranks last"
            say(f"{len(bad)} clips have a {modality} row that is zero or not finite and {fate}, first '{bad[0]}'")
        off = embeddings.not_unit(modality)
        if off is not None:
            say(
                f"{off.off} of {off.rows} {modality} rows are not of length 1 ({off.least:.3g} to {off.most:.3g}): "
                "they are normalised"
            )
    empty = [d for d in directions(embeddings.modalities, anchor) if not len(taking_part(embeddings, d))]
    if empty:
        say(f"no clip has what {', '.join(d.name for d in empty)} need: they are left out")
    if len(embeddings.ids) == 1:
        say("there is one clip: every rank is the first, whatever the embeddings")
