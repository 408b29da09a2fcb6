"""Every setting of a run, typed, in one tree.

A configuration is read once (YAML file, then command line), checked here, and passed down in pieces:
`DataConfig` to the data, `ModelConfig` to the model, and so on. Unknown keys and impossible values are errors
that name the field. Units are in the field names or their descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mover.presets import OF_MATCHES, PRESETS, GateBy

BUILT_IN = ("text", "video", "audio")
"""The modalities with a section of their own under `model`; any other is named and described under `model.others`."""
RESERVED = ("ids", "text_owner", "labels", "provenance", "id", "label")
"""What else a file of embeddings holds, beside `<modality>_present`: no names of modalities."""

PresetName = Literal[
    "mover",
    "mover-paper",
    "mover-sets",
    "mover-pool",
    "mover-noisy",
    "gram",
    "pairwise",
    "text-anchor",
    "image-anchor",
    "ot-loop",
    "ot-barycenter",
]
CandidateGroups = Literal["auto", "all", "hard", "topk", "sample"]
JointWeights = Literal["star", "cyclic"]
VolumeKind = Literal["volume", "log", "cosine"]
Coupling = Literal["transport", "softmax"]
Anchoring = Literal["fixed", "rotating", "all"]
Positives = Literal["paired", "transport", "mixed"]
ContrastBy = Literal["volume", "span", "cosine"]
MatchedBy = Literal["transport", "softmax"]
Parallel = Literal["ddp", "fsdp"]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
BarycenterRounds = Annotated[int, Field(ge=1, le=5)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A group of settings. Refuses unknown keys; immutable once built."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataConfig(Section):
    """What is read, and how a clip becomes tensors."""

    manifest: Path = Field(Path("manifest.jsonl"), description="JSON-lines manifest, one row per clip")
    tokenizer: Path | None = Field(None, description="tokenizer.json; default: beside the manifest")
    train_split: str = Field("train", description="rows of the manifest to train on")
    validation_split: str = Field("val", description="rows used to choose the best checkpoint")
    test_split: str = Field("test", description="rows used by evaluation")
    frames: PositiveInt = Field(8, description="frames per clip, one from each of as many equal parts")
    image_size: PositiveInt = Field(224, description="height and width of a frame, pixels")
    sample_rate: PositiveInt = Field(16000, description="audio samples per second")
    audio_seconds: PositiveFloat = Field(10.0, description="length of an audio window, seconds")
    max_tokens: PositiveInt = Field(40, description="tokens of a caption, special tokens included")
    cache: Literal["none", "memory", "disk", "features"] = Field(
        "none",
        description="memory: decode each clip once and keep it; disk: keep it for later runs, too; features: keep what "
        "frozen towers give for the middle of each clip and for every caption, for later runs, too",
    )
    cache_folder: Path | None = Field(None, description="folder of the cache on disk; default: beside the manifest")
    cache_frames_per_second: PositiveFloat | None = Field(
        None, description="none: a cache holds all frames; n: at most so many, for less room, others stand in for those"
    )
    max_pixels: PositiveInt = Field(
        100_000_000, description="of an image or a frame of video; what is larger is refused before it is decoded"
    )
    max_clip_bytes: PositiveInt = Field(
        4_000_000_000,
        description="of what is kept in memory of a clip and a modality while it is decoded: frames, samples or "
        "features; a clip with more is refused",
    )
    workers: NonNegativeInt = Field(2, description="decoding threads or processes")
    missing: Literal["drop", "mask"] = Field(
        "drop",
        description="a training clip that lacks a modality of the run, or whose media cannot be read: drop it; mask: "
        "train on what it has",
    )
    aligned_fraction: Share = Field(
        1.0,
        description="share of the training clips whose modalities are known to belong together; of the others, only "
        "that they are data. The choice goes by the seed",
    )
    aligned_rows: PositiveInt | None = Field(
        None, description="aligned clips of a batch; default: aligned_fraction of it. They come first"
    )
    unordered: tuple[str, ...] = Field(
        (),
        description="the modalities whose order is unknown in clips that are not aligned; the others belong together, "
        "like a video and its sound; empty: every modality has an order of its own",
    )
    partners: Fraction = Field(
        1.0,
        description="of the rows of a batch that are not aligned, the share whose other modalities are in the batch, "
        "too, in unknown order; 1: sets that belong together; 0: modalities drawn apart",
    )

    def cache_path(self, kind: str) -> Path:
        """The folder of a cache: `cache_folder`, or beside the manifest, data.jsonl → data.KIND-cache."""
        return self.cache_folder or self.manifest.with_name(f"{self.manifest.stem}.{kind}-cache")


class TowerConfig(Section):
    """What the towers of text, video, audio and images have in common."""

    trained_layers: NonNegativeInt | None = Field(
        None,
        description="none: the whole tower learns; n: its last n layers and the norm after them; 0: it is frozen. What "
        "is frozen has no dropout",
    )
    gradient_checkpointing: bool = Field(
        False, description="compute the inside of each layer again in the backward pass: less memory, more time"
    )
    attention: Literal["auto", "sdpa", "eager"] = Field(
        "auto",
        description="sdpa: torch's fused kernels; eager: plain products; auto: sdpa, but eager for BEATs on a CPU",
    )


class TextTowerConfig(TowerConfig):
    """A RoBERTa encoder; the defaults are roberta-base."""

    checkpoint: Path | None = Field(None, description="local folder of a checkpoint; default: random weights")
    hidden_size: PositiveInt = Field(768, description="width of the tower")
    layers: PositiveInt = Field(12, description="transformer layers")
    heads: PositiveInt = Field(12, description="attention heads; must divide the width")
    intermediate_size: PositiveInt = Field(3072, description="width inside the feed-forward blocks")
    dropout: Fraction = Field(0.1, description="dropout of the tower, training only")


class VitTowerConfig(TowerConfig):
    """A ViT encoder of single pictures; the defaults are ViT-B/16."""

    checkpoint: Path | None = Field(None, description="local folder of a checkpoint; default: random weights")
    hidden_size: PositiveInt = Field(768, description="width of the tower")
    layers: PositiveInt = Field(12, description="transformer layers")
    heads: PositiveInt = Field(12, description="attention heads; must divide the width")
    intermediate_size: PositiveInt = Field(3072, description="width inside the feed-forward blocks")
    patch_size: PositiveInt = Field(16, description="side of a square patch, pixels")
    dropout: Fraction = Field(0.0, description="dropout of the tower, training only")


class VideoTowerConfig(VitTowerConfig):
    """A ViT encoder applied per frame, then a temporal transformer and the mean; the defaults are ViT-B/16."""

    temporal_layers: NonNegativeInt = Field(0, description="transformer layers over frames, identity at the start")


class AudioTowerConfig(TowerConfig):
    """A BEATs encoder; the defaults are BEATs iter3."""

    checkpoint: Path | None = Field(None, description="official .pt file; default: random weights")
    hidden_size: PositiveInt = Field(768, description="width of the tower")
    layers: PositiveInt = Field(12, description="transformer layers")
    heads: PositiveInt = Field(12, description="attention heads; must divide the width")
    intermediate_size: PositiveInt = Field(3072, description="width inside the feed-forward blocks")
    embed_dim: PositiveInt = Field(512, description="width of the patch embedding")
    patch_size: PositiveInt = Field(16, description="side of a square patch of the spectrogram")
    conv_pos: PositiveInt = Field(128, description="kernel of the convolutional positions")
    conv_pos_groups: PositiveInt = Field(16, description="groups of that convolution")
    dropout: Fraction = Field(0.1, description="dropout of the tower, training only")


class ImageTowerConfig(VitTowerConfig):
    """A modality of images, one per clip, `data.image_size` pixels high and wide."""

    kind: Literal["image"] = Field(description="image: a ViT on one image; features: a small tower on given vectors")


class FeatureTowerConfig(Section):
    """A modality of vectors computed elsewhere, (input_size,) or rows (T, input_size): norm, linear map, layers, mean.

    All of it is new in every run and learns at `optimizer.lr`, like a head.
    """

    kind: Literal["features"] = Field(description="image: a ViT on one image; features: a small tower on given vectors")
    input_size: Annotated[int, Field(ge=2)] = Field(description="width of the vectors in the files")
    length: PositiveInt | None = Field(
        None, description="rows of a clip that are used at most, spread evenly over those it has; none: all"
    )
    hidden_size: PositiveInt = Field(768, description="width of the tower")
    layers: NonNegativeInt = Field(
        0, description="transformer layers over the rows, identity at the start; 0: the mean of the rows"
    )
    heads: PositiveInt = Field(12, description="attention heads; must divide the width")
    intermediate_size: PositiveInt = Field(3072, description="width inside the feed-forward blocks")
    dropout: Fraction = Field(0.0, description="dropout of the tower, training only")


OtherTowerConfig = Annotated[ImageTowerConfig | FeatureTowerConfig, Field(discriminator="kind")]


class ModelConfig(Section):
    """The towers and the projections into the shared space."""

    embed_dim: PositiveInt = Field(512, description="width d of the shared space")
    text: TextTowerConfig = TextTowerConfig()
    video: VideoTowerConfig = VideoTowerConfig()
    audio: AudioTowerConfig = AudioTowerConfig()
    others: dict[str, OtherTowerConfig] = Field({}, description="towers of further modalities, by their names")


class TransportConfig(Section):
    """Entropic optimal transport between the modalities of a batch."""

    epsilon: PositiveFloat = Field(0.1, description="entropic weight, in units of squared distance")
    max_iter: PositiveInt = Field(100, description="bound on Sinkhorn iterations")
    tol: NonNegativeFloat = Field(1e-3, description="L1 error of the marginals to stop at")
    solver: Literal["auto", "sinkhorn", "newton"] = Field(
        "auto", description="newton: finish with Newton steps, for a small epsilon or tol; auto: only where they pay"
    )
    plan_gradient: Literal["detached", "implicit"] = Field(
        "detached",
        description="implicit: the mover term, too, differentiates through its plans, as ot_loop always does",
    )
    guide: NonNegativeFloat = Field(
        0.0,
        description="mover term and positives transport: by how much the cost of a known pair, of the aligned rows, is "
        "lowered before plans are made, in units of squared distance",
    )
    shard_rows: NonNegativeInt = Field(
        8192,
        description="of several processes: clips of a batch from which on they divide the rows of every problem among "
        "themselves to solve it; 0: never, each solves all of it. Plans of matching and gate: always from 8192 on",
    )


class MatchingConfig(Section):
    """Which rows of unknown order are taken to belong together, for the terms that train on such matches."""

    by: MatchedBy = Field(
        "transport",
        description="transport: the entropic plan; softmax: the smaller of the row's and the column's softmax, which "
        "is the same without the balance of transport",
    )
    epsilon: PositiveFloat = Field(
        0.05, description="entropic weight of the plan, in units of squared distance; epsilon / 2 is the temperature"
    )
    threshold: Fraction = Field(
        0.3, description="least share of a row's mass that has to go to its match; below, the row is left out"
    )
    mass: Share = Field(
        1.0,
        description="transport: the share of the rows that the plan matches; below 1 it leaves out the rows that fit "
        "worst (partial transport). Where partners are missing: somewhat more than the share that is there",
    )
    mutual: bool = Field(True, description="whether a match has to be the best one of both its rows")
    refresh: PositiveInt = Field(50, description="pool: steps between plans of the whole pool")
    start: Fraction = Field(0.1, description="share of the run after which matches are trained on")
    warmup: Fraction = Field(0.0, description="share of the run over which they rise to their weight")


class GateConfig(Section):
    """Doubt about aligned clips: the anchors that their clips bear out least are left out of the contrasts."""

    by: GateBy | None = Field(
        None,
        description="transport: by the share of the row's mass that the plan of the batch, which leaves as much out as "
        "is wrong, gives to its own clip; softmax: by the smaller of the two softmaxes; none: every pair is trusted; "
        "default: that of the preset",
    )
    wrong: OpenFraction = Field(
        0.2, description="share of the clips of a batch that are doubted: about that of the pairs that are wrong"
    )
    epsilon: PositiveFloat = Field(0.3, description="entropic weight of that plan, in units of squared distance")
    start: Fraction = Field(0.2, description="share of the run after which pairs are doubted")


class ObjectiveConfig(Section):
    """Weights and options of the loss terms. A preset sets the weights; explicit weights win over it."""

    preset: PresetName = Field(
        "mover",
        description="mover: the first three terms; mover-paper: without pairwise; mover-sets, mover-pool: both "
        "contrasts and confident, or pool, for data of which a part is aligned; mover-noisy: both contrasts, and doubt "
        "about pairs (gate), for data with wrong ones; gram: volume contrast; pairwise: "
        "InfoNCE of all pairs; text-anchor, image-anchor: of the pairs with text, with video or image; ot-loop, "
        "ot-barycenter: pairwise and that regulariser. The weights that a file sets beside its preset give way to "
        "another preset on the command line",
    )
    mover: NonNegativeFloat | None = Field(None, description="weight of the transport-weighted volume (eq. 8)")
    volume_contrastive: NonNegativeFloat | None = Field(None, description="weight of the volume contrast (eq. 9-10)")
    pairwise: NonNegativeFloat | None = Field(None, description="weight of the pairwise InfoNCE")
    ot_loop: NonNegativeFloat | None = Field(
        None, description="weight of the loop of transport distances between the modalities"
    )
    ot_barycenter: NonNegativeFloat | None = Field(
        None, description="weight of the transport of all modalities to their barycenter"
    )
    confident: NonNegativeFloat | None = Field(
        None, description="weight of the contrast of groups of unaligned rows that the matching is sure of"
    )
    plan_targets: NonNegativeFloat | None = Field(
        None, description="weight of the cross entropy of unaligned rows against their row of the plan"
    )
    pool: NonNegativeFloat | None = Field(
        None, description="weight of the contrast of unaligned rows with their matches in the whole training set"
    )
    pairwise_anchor: str | None = Field(
        None, description="modality in every pair of the pairwise term; default: that of the preset, or all pairs"
    )
    anchor: str = Field(
        "text", description="anchor of the star weights, of the volume contrast and of the barycenter's start"
    )
    groups: CandidateGroups = Field(
        "auto",
        description="groups of the mover term: all; hard, the best match; topk, combinations of the best; sample, "
        "drawn from the plans; auto: all up to 3 modalities (2 for logarithms), topk beyond",
    )
    topk: PositiveInt = Field(4, description="groups topk: matches kept per anchor and modality, topk^(k-1) groups")
    samples: PositiveInt = Field(16, description="groups sample: draws per anchor")
    weights: JointWeights = Field(
        "star", description="joint weights of the mover term: the anchor's plans; cyclic: all three plans"
    )
    volume: VolumeKind = Field(
        "volume",
        description="measure of the mover term; log: its logarithm, smoothed at 1e-3; cosine: the mean of 1 - cos over "
        "the pairs of a group",
    )
    coupling: Coupling = Field(
        "transport",
        description="plans of the mover term and of positives transport; softmax: of the cosines, row by row, of "
        "temperature epsilon / 2, without the balance of transport",
    )
    anchoring: Anchoring = Field(
        "fixed",
        description="of the mover term and the volume contrast; rotating: another anchor at every step, the named one "
        "first; all: the mean over every modality as the anchor",
    )
    positives: Positives = Field(
        "paired",
        description="positives of the volume contrast: the clips as they are; transport: the groups matched to the "
        "anchors by the plans, of all rows; mixed: both",
    )
    mixture: Fraction = Field(0.5, description="positives mixed: the share of matched ones")
    contrast_by: ContrastBy = Field(
        "volume",
        description="measure of the volume contrast; span: the distance of the anchor from the span of the others, the "
        "volume over theirs; cosine: the mean of 1 - cos over the pairs of a group",
    )
    mover_start: Fraction = Field(0.0, description="share of the run after which the mover term begins")
    mover_warmup: Fraction = Field(0.1, description="share of the run over which it rises to its weight")
    cycle: NonNegativeFloat = Field(
        1.0, description="ot_loop: weight, within the term, of returning to the row from which the loop set out"
    )
    barycenter_rounds: BarycenterRounds = Field(
        2, description="ot_barycenter: updates of the barycenter, which starts from the rows of the anchor"
    )
    ot_start: Fraction = Field(0.0, description="share of the run after which ot_loop and ot_barycenter begin")
    ot_warmup: Fraction = Field(0.1, description="share of the run over which they rise to their weights")
    temperature: PositiveFloat = Field(0.07, description="first temperature of both contrasts; learned as a logarithm")
    learn_temperature: bool = Field(True, description="false: the temperatures stay as they begin")
    label_smoothing: Fraction = Field(0.1, description="label smoothing of both contrasts")
    denominator: Literal["all", "negatives"] = Field(
        "all", description="negatives: leave the positive out of the denominator, as eq. 9 is printed"
    )
    transport: TransportConfig = TransportConfig()
    matching: MatchingConfig = MatchingConfig()
    gate: GateConfig = GateConfig()

    def anchor_of_pairs(self, modalities: Sequence[str]) -> str | None:
        """The modality in every pair of the pairwise term, None for all pairs.

        Raises ValueError, which names the setting, where a run of these modalities has none that would do.
        """
        named = self.pairwise_anchor
        if named is None:
            try:
                return PRESETS[self.preset].pairwise_anchor(modalities)
            except ValueError as error:
                raise ValueError(f"objective.preset: {self.preset}: {error}") from None
        if named not in modalities:
            raise ValueError(f"objective.pairwise_anchor: '{named}' is not among modalities {list(modalities)}")
        return named

    @property
    def gate_by(self) -> GateBy:
        """What pairs are doubted by: `gate.by`, or what the preset has."""
        return self.gate.by or PRESETS[self.preset].gate

    def check_all_aligned(self) -> None:
        """Raises ValueError where a term needs rows that are not aligned, and all are."""
        for name in OF_MATCHES:
            weight = getattr(self, name)
            if getattr(PRESETS[self.preset], name) if weight is None else weight:
                why = f"objective.preset: {self.preset}" if weight is None else f"objective.{name}"
                raise ValueError(
                    f"{why}: it learns from clips that are not aligned, and data.aligned_fraction is 1; set that to "
                    f"the share that is, or objective.{name} to 0"
                )


class OptimizerConfig(Section):
    """AdamW with a warm-up and a cosine decay."""

    lr: PositiveFloat = Field(1e-3, description="peak learning rate of heads, temperatures and temporal layers")
    tower_lr: PositiveFloat | None = Field(None, description="peak learning rate of the towers; default: lr")
    layer_decay: Share = Field(
        1.0,
        description="factor on the learning rate of a tower's layer for each layer above it; embeddings lie below all",
    )
    weight_decay: NonNegativeFloat = Field(0.01, description="of matrices; biases, norms, temperatures have none")
    betas: tuple[Decay, Decay] = Field((0.9, 0.98), description="moment decays of AdamW")
    warmup_fraction: Fraction = Field(0.1, description="share of the steps with rising learning rate")
    final_lr_fraction: Fraction = Field(0.0, description="learning rate at the end, as a share of the peak")
    clip_norm: PositiveFloat | None = Field(1.0, description="bound on the norm of the gradient")


class TrainConfig(Section):
    """The loop."""

    steps: PositiveInt = Field(10000, description="optimiser steps of the whole run")
    batch_size: PositiveInt = Field(64, description="clips per step, of all processes together")
    micro_batch: NonNegativeInt = Field(
        0,
        description="clips that a process encodes at once, in two passes: the same gradient in less memory and more "
        "time; 0: all at once",
    )
    parallel: Parallel = Field(
        "ddp", description="of several processes (torchrun): ddp, each has the model; fsdp, each has a shard of it"
    )
    start_from: tuple[Path, ...] = Field(
        (),
        description="earlier runs, or checkpoints of such, whose trained towers and heads this one begins with: of "
        "each modality, those of the first that has it; none: begin anew",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast of the towers")
    validate_every: PositiveInt = Field(500, description="steps between validations")
    checkpoint_every: PositiveInt = Field(500, description="steps between checkpoints")
    log_every: PositiveInt = Field(10, description="steps between lines of log.jsonl")
    diagnose_every: NonNegativeInt = Field(
        50, description="steps between diagnostics of the batch in log.jsonl, which watch for a collapse; 0: none"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: NonNegativeInt = Field(
        0, description="CPU threads of torch in each process; 0: all cores, shared by the processes of a machine"
    )
    skip_limit: NonNegativeInt = Field(
        5, description="steps in a row that may be left out because loss or gradient is not finite, before it stops"
    )
    keep_checkpoints: PositiveInt = Field(1, description="the last so many checkpoints are kept, beside the best")


class EvaluateConfig(Section):
    """Retrieval evaluation."""

    batch_size: PositiveInt = Field(64, description="clips encoded at once")
    missing: Literal["mask", "drop", "fail"] = Field(
        "fail",
        description="a clip without a modality of the run, or whose media cannot be read: fail; drop: no direction "
        "uses it; mask: each direction uses the clips that have what it needs",
    )
    score: Literal["volume"] = Field(
        "volume",
        description="score of the joint directions; where a clip lacks a modality, the distance from the span of those "
        "it has",
    )


class Config(Section):
    """One run."""

    name: str = Field("run", min_length=1, pattern=r"^[\w.-]+$", description="results go to <output>/<name>")
    output: Path = Field(Path("runs"), description="folder of all runs")
    seed: NonNegativeInt = Field(0, description="of weights, batches, sampling and dropout")
    modalities: tuple[str, ...] = Field(
        BUILT_IN, description="what is trained and evaluated: text, video, audio and names under model.others"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        if len(set(self.modalities)) != len(self.modalities) or len(self.modalities) < 2:
            raise ValueError(f"modalities: at least two different ones, got {list(self.modalities)}")
        for name in self.model.others:
            _check_name(name)
        for name in self.modalities:
            if name not in BUILT_IN and name not in self.model.others:
                raise ValueError(
                    f"modalities: '{name}' is none of {', '.join(BUILT_IN)}, and there is no section "
                    f"model.others.{name}; describe it there, beginning with model.others.{name}.kind"
                )
        if self.objective.anchor not in self.modalities:
            anchor = self.objective.anchor
            raise ValueError(f"objective.anchor: '{anchor}' is not among modalities {list(self.modalities)}")
        self.objective.anchor_of_pairs(self.modalities)
        for name in self.data.unordered:
            if name not in self.modalities:
                raise ValueError(f"data.unordered: '{name}' is not among modalities {list(self.modalities)}")
        if self.data.aligned_fraction == 1:
            self.objective.check_all_aligned()
        if self.data.cache == "features" and not self.frozen:
            raise ValueError(
                "data.cache: features keeps what frozen towers give, and no tower of this run is frozen; set "
                "trained_layers of one or more to 0, as in model.text.trained_layers 0, or data.cache to none"
            )
        return self

    @property
    def frozen(self) -> tuple[str, ...]:
        """The modalities of the run whose whole tower is frozen."""
        towers = {name: getattr(self.model, name) for name in BUILT_IN} | self.model.others
        return tuple(name for name in self.modalities if getattr(towers[name], "trained_layers", None) == 0)

    @property
    def folder(self) -> Path:
        """Where the run keeps its checkpoints, logs and results."""
        return self.output / self.name


def _check_name(name: str) -> None:
    """Raises ValueError for what cannot name a modality in a manifest, a model and a file of embeddings."""
    if name in BUILT_IN:
        raise ValueError(f"model.others.{name}: {name} has a section of its own, model.{name}")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"model.others.{name}: expected a name of a-z, 0-9 and _ that begins with a letter")
    if name in RESERVED or name.endswith("_present"):
        raise ValueError(f"model.others.{name}: this name means something else in a file of embeddings; choose another")
