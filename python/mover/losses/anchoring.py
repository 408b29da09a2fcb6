"""Which modality is the anchor at a step: the one that is named, each in turn, or every one."""

from mover.config import Anchoring


def anchor_orders(k: int, anchoring: Anchoring, step: int) -> list[tuple[int, ...]]:
    """Orders of k modalities, the anchor in front and the others as they were; one order for each anchor of the step.

    Position 0 is the modality that the configuration names. "fixed": it is the anchor at every step. "rotating": the
    anchor is at position step mod k, so that the turn begins with it. "all": every modality is an anchor.
    """
    anchors = {"fixed": [0], "rotating": [step % k], "all": list(range(k))}[anchoring]
    return [(anchor, *(m for m in range(k) if m != anchor)) for anchor in anchors]
