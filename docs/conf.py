"""Sphinx: Markdown pages, and reference pages generated from the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate_reference

project = "Clary"
author = "The Clary founders"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Clary"
exclude_patterns = ["_build"]
myst_heading_anchors = 3

generate_reference.write(Path(__file__).parent / "reference")
