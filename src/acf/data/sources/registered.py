"""Data sets by their names in the registry, checked before they are used: one that is wrong harms no other."""

import inspect
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, create_model

from acf.data.prepared.manifest import PerSplit
from acf.data.sources.dataset import Dataset
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import Divided
from acf.data.sources.table import Table
from acf.data.sources.torchvision_dataset import TorchvisionDataset
from acf.errors import ConfigError
from acf.registry import TABLES, datasets, resolve


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a column stands twice")
    return names


class Facts(BaseModel):
    """What the attributes of any `Dataset` have to be."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    counts: PerSplit[Any]
    source: str
    licence: str
    citation: str
    remark: str
    bytes: int | None = Field(ge=0)
    manual: bool


Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_different)]
FACTS: tuple[tuple[Any, type[BaseModel]], ...] = (
    (Dataset, Facts),
    (
        ImageDataset,
        create_model(
            "FactsOfImages",
            shape=(tuple[PositiveInt, PositiveInt, PositiveInt], ...),
            levels=(int, Field(ge=2, le=256, strict=True)),
        ),
    ),
    (
        Divided,
        create_model("FactsOfDivided", test_share=(float, Field(gt=0, lt=1)), seed=(int, Field(ge=0))),
    ),
    (
        Table,
        create_model(
            "FactsOfTable",
            table=(str, Field(min_length=1)),
            columns=(Names | None, ...),
            label=(str | None, ...),
            delimiter=(str, Field(min_length=1, max_length=1)),
        ),
    ),
    (
        TorchvisionDataset,
        create_model(
            "FactsOfTorchvision",
            dataset=(str, Field(pattern=r"^[A-Za-z]\w*$")),
            arguments=(dict[str, Any], ...),
            splits=(PerSplit[dict[str, Any]] | None, ...),
            target_part=(int | str | None, ...),
        ),
    ),
)
"""What the attributes of each base have to be."""


def dataset_source(name: str) -> Dataset:
    """Return the data set that is registered as `name`.

    Raises:
        MissingPackageError: its module needs an optional package that is not installed.
        ConfigError: there is none, or it cannot be used: its module cannot be imported, its class is no
            `ImageDataset`, or no `Table` where it is registered as one, lacks attributes or has impossible ones. The
            message names class and attribute.
    """
    made = resolve(datasets(), name, "data set")
    base = Table if name in TABLES else ImageDataset
    if not (inspect.isclass(made) and issubclass(made, base)):
        raise ConfigError(f"data set {name!r} cannot be used: {datasets()[name]} is no subclass of {base.__name__}")
    try:
        fault = _fault(made, name)
    except Exception as error:  # a property or __init__ of one's own can fail in any way
        fault = f"fails with {type(error).__name__}: {error}".partition("\n")[0]
    if fault:
        place = f"class {made.__name__} of {made.__module__}"
        raise ConfigError(
            f"data set {name!r} cannot be used: {place} {fault}; {base.__name__} says what each attribute is"
        )
    source: Dataset = made()
    return source


def _fault(made: type[Dataset], name: str) -> str:
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
    absent = object()  # a property is there, even if it fails
    if missing := [name for name in declared if inspect.getattr_static(source, name, absent) is absent]:
        return f"has no attribute {', '.join(missing)}"
    for base, facts in reversed(FACTS):  # what a base asks for may be what the attributes above it are made of
        if not issubclass(made, base):
            continue
        try:
            facts.model_validate({attribute: getattr(source, attribute) for attribute in facts.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            attribute = first["loc"][0]
            return f"has {attribute} = {getattr(source, str(attribute))!r} ({first['msg']})"
    if source.name != name:
        return f"has the name {source.name!r}, which has to be its key in the registry"
    return ""
