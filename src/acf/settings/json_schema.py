"""JSON schema of `params.yaml` for editors; `python -m acf.settings.json_schema` writes it."""

import json
from pathlib import Path
from typing import Any

from acf.registry import DATASETS
from acf.settings.config import RunConfig

SCHEMA_FILE = Path("workflow/schemas/params.schema.json")


def params_schema() -> dict[str, Any]:
    """Return the schema; `Params` checks more: merged values, names, and keys against each other."""
    sections = RunConfig.model_json_schema()
    parts = sections["properties"]
    override = {name: parts[name] for name in ("model", "training")}
    seeds = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
    experiment = {"seeds": seeds, **parts, "variants": _mapping_to(_object(override))}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        **_object(
            {
                "defaults": _object(parts, required=True),
                "variants": _mapping_to(_object({"model": parts["model"]})),
                "experiments": _object(dict.fromkeys(sorted(DATASETS), _object(experiment, required=True))),
            },
            required=True,
        ),
        "$defs": sections["$defs"],
    }


def schema_text() -> str:
    """Return the content of `SCHEMA_FILE`."""
    return json.dumps(params_schema(), indent=2) + "\n"


def _object(properties: dict[str, Any], required: bool = False) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


def _mapping_to(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value, "minProperties": 1}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
