"""Print the JSON schema of config files, for editors: python tools/config_schema.py > config/schema.json."""

import json
from typing import Any

from m2pt import catalog
from m2pt.config.strict import Strict

# Fields are described by their docstrings. Pydantic takes a second to find them, so commands do without; the
# classes that are made below inherit this.
Strict.model_config["use_attribute_docstrings"] = True

from m2pt.config.config import config_class, settings_class  # noqa: E402

HEADER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Config of m2pt",
    "$comment": "Made by `make config/schema.json`: edit m2pt/config and m2pt/catalog instead.",
}


def config_schema() -> dict[str, Any]:
    """Return the schema of a config, with the modalities, layouts and kinds of run of the catalog."""
    schema = config_class().model_json_schema()
    definitions = schema["$defs"]
    sections = {}
    for name in catalog.MODALITIES:
        section = settings_class(name).model_json_schema()
        definitions |= section.pop("$defs")
        definitions[f"modality_{name}"] = section
        sections[name] = {"$ref": f"#/$defs/modality_{name}"}
    schema["properties"]["modalities"] |= {"properties": sections, "additionalProperties": False}
    definitions["Dataset"]["properties"]["layout"]["enum"] = list(catalog.LAYOUTS)
    return HEADER | {
        key: schema[key] for key in ("type", "properties", "required", "additionalProperties", "$defs")
    }


if __name__ == "__main__":
    print(json.dumps(config_schema(), indent=1))
