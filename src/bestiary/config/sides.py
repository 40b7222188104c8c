"""The side of a topic: whether messages about it are trained on or probed with."""

from __future__ import annotations

from bestiary.records import Side, sha256_bytes

PROBED = 103
"""Of 256: the share of topics that is kept for probes, about 40%."""


def side_of(topic: str) -> Side:
    """The side of a topic, by its hash alone: no later topic can move an earlier one."""
    digest = bytes.fromhex(sha256_bytes(f"side:{topic.casefold()}".encode()))
    return "probe" if digest[0] < PROBED else "train"
