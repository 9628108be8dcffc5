"""JSON schema of `params.yaml` for editors; `python -m acf.settings.json_schema` writes it."""

import json
from pathlib import Path
from typing import Any

from acf.registry import DATASETS, datasets
from acf.settings.config import SEEDS, DatasetConfig, RunConfig

SCHEMA_FILE = Path("workflow/schemas/params.schema.json")
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
MADE = f"^({'|'.join(sorted(DATASETS))})-[A-Za-z0-9_-]+$"
"""Names of what is made of a data set of images."""


def params_schema() -> dict[str, Any]:
    """Return the schema; `Params` checks more: merged values, names, and keys against each other."""
    schema = RunConfig.model_json_schema()
    sections = schema["properties"]
    override = {name: sections[name] for name in ("model", "training")}
    seed = {"type": "integer", "minimum": 0, "exclusiveMaximum": SEEDS}
    seeds = {"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}
    experiment = {
        "dataset": {"anyOf": [{"enum": sorted(datasets())}, {"type": "string", "pattern": MADE}]},
        "seeds": seeds,
        **sections,
        "variants": _named(_object(override)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        **_object(
            {
                "defaults": _object(sections, required=True),
                "datasets": _datasets(),
                "variants": _named(_object({"model": sections["model"]})),
                "experiments": _named(_object(experiment, required=True)),
            },
            required=True,
        ),
        "$defs": schema["$defs"],
    }


def schema_text() -> str:
    """Return the content of `SCHEMA_FILE`."""
    return json.dumps(params_schema(), indent=2) + "\n"


def _datasets() -> dict[str, Any]:
    """Return the schema of `datasets`: registered ones, and others that name one as their source."""
    section = DatasetConfig.model_json_schema()
    registered = {**section, "properties": {"levels": section["properties"]["levels"]}}
    made = {**section, "properties": {**section["properties"], "source": {"enum": sorted(DATASETS)}}}
    return {
        **_object(dict.fromkeys(sorted(datasets()), registered)),
        "patternProperties": {MADE: {**made, "required": ["source"]}},
    }


def _object(properties: dict[str, Any], required: bool = False) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


def _named(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping from names to `value`, at least one."""
    return {
        "type": "object",
        "propertyNames": {"pattern": NAME},
        "additionalProperties": value,
        "minProperties": 1,
    }


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
