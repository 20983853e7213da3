"""Writes the reference pages that the code itself knows best: settings, operations, algorithms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from clary.algorithms.algorithm import specs
from clary.protocol.models import ServiceModels
from clary.services.operation import handler_name, load_operations
from clary.settings import Settings

NOTE = "<!-- Generated from the code by docs/generate_reference.py; edit the code. -->\n\n"


def write(folder: Path) -> None:
    """Write the generated pages into ``folder``, leaving a page alone whose text is as it was."""
    for name, lines in (("settings", settings()), ("operations", operations()), ("algorithms", algorithms())):
        page, text = folder / f"{name}.md", NOTE + "\n".join(lines) + "\n"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def settings() -> Iterator[str]:
    yield "# Settings\n"
    yield "Read in this order, the later winning: the default, `clary.toml` in the working directory (or the"
    yield "file that `CLARY_CONFIG` names), the environment variable, the flag of `clary up`.\n"
    yield "| in `clary.toml` | variable | default | meaning |"
    yield "|---|---|---|---|"
    for field in dataclasses.fields(Settings):
        shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        variable = f"CLARY_{field.name.upper()}"
        yield f"| `{field.name}` | `{variable}` | `{shown or ' '}` | {field.metadata['description']} |"


def operations() -> Iterator[str]:
    yield "# Operations\n"
    yield "What Clary answers of each AWS service. Anything else is refused with an error that names the"
    yield "operation."
    models = ServiceModels()
    handlers = load_operations()
    for service in sorted({service for service, _ in handlers}):
        names = [n for n in models[service].operation_names if (service, handler_name(n)) in handlers]
        yield f"\n## {service}\n"
        yield ", ".join(f"`{name}`" for name in sorted(names))


def algorithms() -> Iterator[str]:
    yield "# Built-in algorithms\n"
    for spec in specs():
        yield f"\n## {spec.name}\n"
        yield f"Trains on up to {spec.most_instances} instance(s).\n"
        yield "| channel | required | content types | input modes |"
        yield "|---|---|---|---|"
        for channel in spec.channels:
            types = ", ".join(f"`{each}`" for each in channel.content_types) or "any"
            required = "yes" if channel.required else ""
            yield f"| `{channel.name}` | {required} | {types} | {', '.join(channel.input_modes)} |"
        yield ""
        yield "| hyperparameter | type | values | default | required | tunable |"
        yield "|---|---|---|---|---|---|"
        for parameter in spec.hyperparameters:
            yield (
                f"| `{parameter.name}` | {parameter.kind} | {parameter.described_values()} | "
                f"{'' if parameter.default is None else f'`{parameter.default}`'} | "
                f"{'yes' if parameter.required else ''} | {'yes' if parameter.tunable else ''} |"
            )
