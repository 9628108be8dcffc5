"""JSON schema of `params.yaml` for editors; `python -m acf.settings.json_schema` writes it."""

import json
from pathlib import Path
from typing import Any

from acf.registry import datasets
from acf.settings.config import SEEDS, DatasetConfig, RunConfig

SCHEMA_FILE = Path("workflow/schemas/params.schema.json")


def params_schema() -> dict[str, Any]:
    """Return the schema; `Params` checks more: merged values, names, and keys against each other."""
    schema = RunConfig.model_json_schema()
    sections = schema["properties"]
    override = {name: sections[name] for name in ("model", "training")}
    seed = {"type": "integer", "minimum": 0, "exclusiveMaximum": SEEDS}
    seeds = {"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}
    experiment = {
        "dataset": {"enum": sorted(datasets())},
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
                "datasets": _object(dict.fromkeys(sorted(datasets()), DatasetConfig.model_json_schema())),
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


def _object(properties: dict[str, Any], required: bool = False) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


def _named(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping from names to `value`, at least one."""
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$"},
        "additionalProperties": value,
        "minProperties": 1,
    }


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
