"""Data sets by their names in the registry, checked before they are used: one that is wrong harms no other."""

import inspect
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, create_model

from acf.data.prepared.manifest import PerSplit
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import Divided
from acf.errors import ConfigError
from acf.registry import DATASETS, resolve


class Facts(BaseModel):
    """What the attributes of an `ImageDataset` have to be."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    levels: int = Field(ge=2, le=256, strict=True)
    counts: PerSplit[Any]
    source: str
    licence: str
    citation: str
    bytes: int | None = Field(ge=0)
    manual: bool


FactsOfDivided = create_model(
    "FactsOfDivided",
    __base__=Facts,
    test_share=(float, Field(gt=0, lt=1)),
    seed=(int, Field(ge=0)),
)


def dataset_source(name: str) -> ImageDataset:
    """Return the data set that is registered as `name`.

    Raises:
        MissingPackageError: its module needs an optional package that is not installed.
        ConfigError: there is none, or it cannot be used: its module cannot be imported, its class is no
            `ImageDataset`, lacks attributes or has impossible ones. The message names class and attribute.
    """
    made = resolve(DATASETS, name, "data set")
    if not (inspect.isclass(made) and issubclass(made, ImageDataset)):
        raise ConfigError(f"data set {name!r} cannot be used: {DATASETS[name]} is no subclass of ImageDataset")
    try:
        fault = _fault(made, name)
    except Exception as error:  # a property or __init__ of one's own can fail in any way
        fault = f"fails with {type(error).__name__}: {error}".partition("\n")[0]
    if fault:
        place = f"class {made.__name__} of {made.__module__}"
        raise ConfigError(
            f"data set {name!r} cannot be used: {place} {fault}; ImageDataset says what each attribute is"
        )
    source: ImageDataset = made()
    return source


def _fault(made: type[ImageDataset], name: str) -> str:
    """Return what is wrong with a class, as the end of a sentence; an empty text if nothing is."""
    if abstract := sorted(made.__abstractmethods__):
        return f"has no method {', '.join(abstract)}"
    source = made()
    declared = {
        attribute: None
        for base in reversed(made.__mro__)
        for attribute, kind in inspect.get_annotations(base).items()
        if "ClassVar" in str(kind)
    }
    if missing := [attribute for attribute in declared if not hasattr(source, attribute)]:
        return f"has no attribute {', '.join(missing)}"
    facts = FactsOfDivided if issubclass(made, Divided) else Facts
    try:
        facts.model_validate({attribute: getattr(source, attribute) for attribute in facts.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        attribute = first["loc"][0]
        return f"has {attribute} = {getattr(source, str(attribute))!r} ({first['msg']})"
    if source.name != name:
        return f"has the name {source.name!r}, which has to be its key in the registry"
    return ""
