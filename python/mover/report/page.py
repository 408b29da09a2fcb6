"""The page: sections in the order in which one reads them, rendered by a template that escapes whatever it is given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import mover
from mover.config import Config
from mover.configs import differences
from mover.configs.shown import setting_text
from mover.durable_file import durable_file
from mover.errors import UserError
from mover.evaluate.analysis import analyse
from mover.evaluate.directions import Direction
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import metrics_of
from mover.evaluate.rank import Ranking, rankings
from mover.evaluate.standing import Standing
from mover.evaluate.tsne import project
from mover.report import curves, diagnostics, plan_maps, ranks, space, volumes
from mover.report.charts import Chart
from mover.report.gallery import Gallery, candidates_of, gallery
from mover.report.material import Material, Say
from mover.report.words import asked, gains, letters, summary

TEMPLATES = Path(__file__).parent / "templates"
SAME = 0.02
"""Points of R@1 that one set of embeddings may give on two machines."""
SCORES = {"cosine": "cosine", "volume": "volume", "span": "distance from the span"}


@dataclass(frozen=True)
class Row:
    """A direction in the table of metrics. low, high: the interval of R@1 in percent, None where none is known."""

    name: str
    score: str
    values: dict[str, float]
    low: float | None
    high: float | None


def build_report(
    material: Material, *, queries: int = 24, seed: int = 0, progress: bool = False, say: Say = lambda text: None
) -> str:
    """The page as HTML, complete in itself.

    Args:
        material: what it tells of.
        queries: in the gallery, both directions together; 0: no gallery.
        seed: of all that is sampled.
        progress: whether to draw bars. say: takes a line about what is going on.
    """
    embeddings = material.embeddings
    say(f"ranking {len(embeddings.ids)} clips")
    found = rankings(embeddings, material.device, anchor=material.anchor, every_score=True)
    if not found:
        raise UserError("No clip has two modalities: there is nothing to rank.")
    ranked = [ranking for ranking in found if ranking.name == ranking.direction.name]
    every = [ranking.direction for ranking in ranked]
    metrics, notes = _metrics(material, found)
    say("training and transport plans")
    plan_strips = plan_maps.plan_strips(material.plans)
    say("volumes and embedding space")
    groups = volumes.groups_of(embeddings, _joint(every), seed)
    numbers, tsne, more = _space(material, seed)
    galleries = _galleries(material, ranked[-2:], queries, seed, progress, say)
    rows = [_row(name, row) for name, row in metrics.items()]
    joint = {d.name for d in every if len(d.others) > 1}
    return render(
        name=material.name,
        summary=summary(metrics, every),
        origin=_origin(material),
        letters=letters(embeddings.modalities),
        gains=gains(metrics, every),
        asked={d.name: asked(d) for d in every},
        rows=rows,
        singles=[row for row in rows if row.name.split(" ")[0] not in joint],
        joints=[row for row in rows if row.name.split(" ")[0] in joint],
        tiles=[row for row in rows if row.name in {d.name for d in every[-2:]}],
        notes={**material.notes, **notes, **more},
        training=curves.training_charts(material.log),
        diagnostics=diagnostics.diagnostic_charts(material.log),
        alarms=diagnostics.alarms(material.log),
        plans=plan_strips,
        plan_chart=plan_maps.plan_chart(material.plans) if plan_strips else None,
        ranks=[ranks.rank_chart(r.name, r.standing, *_by_chance(embeddings, r)) for r in ranked],
        groups=groups,
        volume_chart=None if groups is None else volumes.volume_chart(groups),
        tsne=tsne,
        numbers=numbers,
        galleries=galleries,
        facts=_facts(material),
        settings=_settings(material.config),
        version=mover.__version__,
        seed=seed,
    )  # fmt: skip


def render(**values: Any) -> str:
    """The template with these values. Text is escaped; the style and the script are ours, the script by its hash."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment.filters["number"] = lambda value, digits=1: f"{value:,.{digits}f}"
    environment.globals.update(scores=SCORES)
    template = environment.get_template("page.html")
    return template.render(policy=policy, script=Markup(script), style=Markup(style), **values)


def write_page(page: str, path: Path) -> None:
    """Write the page, whole or not at all. Raises UserError where it cannot be written."""
    with durable_file(path) as file:
        file.write(page.encode())


def _metrics(material: Material, found: Sequence[Ranking]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The metrics that were found, if the embeddings still give them; else new ones, and a note on that."""
    fresh = metrics_of(found, len(material.embeddings.ids), resamples=0)
    if material.metrics:
        rows = material.metrics
        same = [abs(rows[name]["R@1"] - row["R@1"]) < SAME for name, row in fresh.items() if name in rows]
        if same and all(same):
            return rows, {}
        note = "The metrics.json there is of other embeddings: the numbers were computed anew."
        return metrics_of(found, len(material.embeddings.ids)), {"metrics": note}
    return metrics_of(found, len(material.embeddings.ids)), {}


def _row(name: str, values: dict[str, Any]) -> Row:
    interval = (values.get("intervals") or {}).get("R@1") or (None, None)
    return Row(name, str(values.get("score", "")), values, *interval)


def _joint(every: Sequence[Direction]) -> Direction:
    """The direction that compares with the most others; of equals the last but one."""
    return max(reversed(every), key=lambda d: len(d.others))


def _by_chance(embeddings: Embeddings, ranking: Ranking) -> tuple[Standing, int]:
    """Where right answers would stand by chance, and among how many candidates."""
    positions, owners = candidates_of(embeddings, ranking)
    own = np.bincount(owners, minlength=len(embeddings.ids))[ranking.query_clip]
    return ranks.by_chance(len(positions), own), len(positions)


def _space(material: Material, seed: int) -> tuple[list[space.Number], list[Chart], dict[str, str]]:
    numbers = space.numbers(analyse(material.embeddings, seed=seed))
    try:
        return numbers, space.tsne_charts(project(material.embeddings, seed=seed)), {}
    except UserError as error:
        return numbers, [], {"space": str(error)}


def _galleries(
    material: Material, both: Sequence[Ranking], queries: int, seed: int, progress: bool, say: Say
) -> list[Gallery]:
    """Of the last two directions: the joint ones, or of the last pair."""
    found = []
    captions = _captions(material)
    for i, ranking in enumerate(both):
        count = (queries + len(both) - 1 - i) // len(both)
        if count:
            say(f"gallery of {ranking.name}")
            shown = gallery(
                material.embeddings, ranking, material.clips, captions, count=count, seed=seed,
                device=material.device, progress=progress,
            )  # fmt: skip
            found.append(shown)
    return found


def _captions(material: Material) -> list[str | None]:
    """The caption of each row of text: the j-th row of a clip is its j-th caption, where it has as many of both."""
    owners = material.embeddings.text_owner
    counts = np.bincount(owners, minlength=len(material.embeddings.ids))
    seen = np.zeros_like(counts)
    captions: list[str | None] = []
    for owner in owners:
        clip = material.clips.get(material.embeddings.ids[owner])
        whole = clip is not None and len(clip.captions) == counts[owner]
        captions.append(clip.captions[seen[owner]] if clip is not None and whole else None)
        seen[owner] += 1
    return captions


def _origin(material: Material) -> str:
    """On what, in a line."""
    meta = material.meta
    split = f", split {meta['split']}" if meta.get("split") else ""
    captions = f" with {meta['captions']:,} captions" if meta["captions"] else ""
    return f"{meta['clips']:,} of {meta['listed']:,} clips{captions}{split}, missing media: {meta['missing_policy']}."


def _facts(material: Material) -> list[tuple[str, str]]:
    """What the numbers were computed on, and with: name and value."""
    meta = material.meta
    run: dict[str, Any] = next((line for line in reversed(material.log) if line.get("kind") == "run"), {})
    last = max((line["step"] for line in material.log), default=None)
    drawn = meta.get("intervals") or {}
    without = ", ".join(f"{n} without {m}" for m, n in meta.get("without", {}).items() if n)
    best = [line for line in material.log if line.get("kind") == "validation" and "mean" in line]
    facts = [
        ("Clips ranked", f"{meta['clips']:,} of {meta['listed']:,} listed" + (f" ({without})" if without else "")),
        ("Captions", f"{meta['captions']:,}"),
        ("Missing media", f"policy {meta['missing_policy']}"),
        ("Rows that cannot be used", _unusable(meta)),
        ("Ties", str(meta.get("ties", ""))),
        ("Intervals", f"{drawn['method']}, {drawn['resamples']:,} resamples" if "method" in drawn else ""),
        ("Split", str(meta.get("split", ""))),
        ("Manifest", str(meta.get("manifest", ""))),
        ("Embeddings", str(meta.get("embeddings", ""))),
        ("SHA-256 of the ids", str(meta.get("ids_sha256", ""))),
        ("Checkpoint", str(meta.get("checkpoint", ""))),
        ("Trained for", "" if last is None else f"{last:,} steps"),
        ("Best validation at step", str(max(best, key=lambda line: line["mean"])["step"]) if best else ""),
        ("Training clips", f"{run['training_clips']:,}" if "training_clips" in run else ""),
        ("Parameters", _parameters(run)),
        ("Trained on", str(run.get("device", ""))),
        ("Trained with", _code(run)),
        ("Page made with", f"mover {mover.__version__}"),
    ]
    return [(name, value) for name, value in facts if value]


def _unusable(meta: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} of {m}" for m, n in (meta.get("unusable_rows") or {}).items() if n)
    return f"{counts}, policy {meta.get('unusable_policy', 'last')}" if counts else ""


def _parameters(run: dict[str, Any]) -> str:
    sizes = run.get("parameters") or {}
    if "all" not in sizes:
        return ""
    learning = "" if sizes["all"] == sizes["learning"] else f", {sizes['learning']:,} of them learn"
    return f"{sizes['all']:,}{learning}"


def _code(run: dict[str, Any]) -> str:
    if "version" not in run:
        return ""
    commit = f", commit {run['commit']}" if run.get("commit") else ""
    return f"mover {run['version']}{commit}, torch {run['torch']}"


def _settings(config: Config | None) -> list[tuple[str, str, str]]:
    """Setting, value and default of all that differs from the defaults."""
    if config is None:
        return []
    changed = differences(Config(), config)
    return [(name, setting_text(value), setting_text(default)) for name, (default, value) in changed.items()]
