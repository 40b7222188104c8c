"""Programs that decide whether one reply shows a behavior; rates are made elsewhere."""

from __future__ import annotations

from bestiary.config.detectors.composition import DETECTORS, Detector

VERSION = 6
"""Raised whenever the same detector may decide otherwise."""

__all__ = ["DETECTORS", "VERSION", "Detector"]
