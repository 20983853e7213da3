"""``clary doctor``: what this machine offers, and what is missing."""

from __future__ import annotations

import argparse

from clary.settings import Settings

HELP = "what this machine offers, and what is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.doctor import examine

    findings = examine(settings)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict:>7}  {finding.subject:<{width}}  {finding.detail}")
        if finding.remedy:
            print(f"{'':>7}  {'':<{width}}  -> {finding.remedy}")
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0
