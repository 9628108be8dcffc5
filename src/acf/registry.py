"""Names that configurations use, each with the place of what it names; nothing is imported until asked for.

Adding an attention, a block, a branch, an activation, a task, an optimiser, a sink for live curves or a data set is one
new file and one line here. An analysis has two: what it measures, and its part of the report; its settings are a
section of `settings/analysis_config.py`.
"""

from importlib import import_module
from typing import Any

from acf.errors import ConfigError, MissingPackageError, shown
from acf.extras import needed_by

ATTENTIONS = {
    "l2": "acf.lipschitz.attention.l2:L2SelfAttention",
    "dot": "acf.lipschitz.attention.dot:DotProductSelfAttention",
    "clip": "acf.lipschitz.attention.clip:ClippedSelfAttention",
    "sinkhorn": "acf.lipschitz.attention.sinkhorn:SinkhornSelfAttention",
}

# Those whose bound holds for any bias of the logits. Softmax weights have bounds because their rows are nearly flat, or
# their kernel is positive, which a bias undoes.
BIASED_ATTENTIONS = ("sinkhorn",)

JOINS = {
    "convex": "acf.lipschitz.join:ConvexShare",
    "split": "acf.lipschitz.join:ChannelSplit",
    "concatenate": "acf.lipschitz.join:Concatenation",
}

BLOCKS = {
    "residual": "acf.flows.residual:ResidualBlock",
    "monotone": "acf.flows.monotone:MonotoneBlock",
}

BRANCHES = {
    "conv": "acf.lipschitz.branch:conv_branch",
    "dense": "acf.lipschitz.dense:dense_branch",
    "potential": "acf.lipschitz.potential:potential_branch",
}

ACTIVATIONS = {
    "lipswish": "acf.lipschitz.activations:LipSwish",
    "elu": "acf.lipschitz.activations:ELU",
    "clipswish": "acf.lipschitz.activations:CLipSwish",
    "cpila": "acf.lipschitz.pila:CPila",
}

TASKS = {
    "density": "acf.training.tasks.density_task:Density",
    "hybrid": "acf.training.tasks.hybrid_task:Hybrid",
    "classification": "acf.training.tasks.classification_task:Classification",
}
LABELLED_TASKS = ("hybrid", "classification")

OPTIMISERS = {
    "adamw": "acf.training.optimiser:adamw",
    "muon": "acf.training.optimiser:muon",
}

SINKS = {
    "dvclive": "acf.training.live.dvclive_sink:DVCLiveSink",
    "tensorboard": "acf.training.live.tensorboard_sink:TensorBoardSink",
}

DATASETS = {
    "digits": "acf.data.sources.digits:Digits",
    "fashion-mnist": "acf.data.sources.fashion_mnist:FashionMNIST",
    "mnist": "acf.data.sources.mnist:MNIST",
    "cifar10": "acf.data.sources.cifar10:CIFAR10",
    "svhn": "acf.data.sources.svhn:SVHN",
    "imagenet32": "acf.data.sources.imagenet:ImageNet32",
    "imagenet64": "acf.data.sources.imagenet:ImageNet64",
    "celebahq64": "acf.data.sources.celebahq:CelebAHQ64",
    "celebahq256": "acf.data.sources.celebahq:CelebAHQ256",
    "patches": "acf.data.sources.patches:Patches",
}

# Data sets of vectors: CSV and parquet files of one's own.
TABLES: dict[str, str] = {}

# Gains are counted from the last that can be fitted.
BASELINES = {
    "uniform": "acf.evaluation.densities:Uniform",
    "histogram": "acf.evaluation.densities:PixelHistogram",
    "gaussian": "acf.evaluation.densities:FullGaussian",
}

# The same for vectors.
BASELINES_OF_VECTORS = {
    "diagonal": "acf.evaluation.densities:DiagonalGaussian",
    "gaussian": "acf.evaluation.densities:VectorGaussian",
}

# What is looked at in trained models of images, a stage each, in the order of the report; `AnalysesConfig` has their
# settings.
ANALYSES = {
    "interpolation": "acf.evaluation.analyses.interpolation:interpolation",
    "attributes": "acf.evaluation.analyses.attributes:attributes",
    "noise": "acf.evaluation.analyses.gaussian_noise:gaussian_noise",
    "frechet": "acf.evaluation.analyses.frechet:frechet",
    "attention": "acf.evaluation.analyses.attention:attention",
    "audit": "acf.evaluation.analyses.audit:audit",
    "densities": "acf.evaluation.analyses.log_likelihoods:densities",
}

# The part of the report on each of them.
SECTIONS = {
    "interpolation": "acf.reporting.sections.interpolation_section:section",
    "attributes": "acf.reporting.sections.attributes_section:section",
    "noise": "acf.reporting.sections.noise_section:section",
    "frechet": "acf.reporting.sections.frechet_section:section",
    "attention": "acf.reporting.sections.attention_section:section",
    "audit": "acf.reporting.sections.audit_section:section",
    "densities": "acf.reporting.sections.densities_section:section",
}


def datasets() -> dict[str, str]:
    """Return all data sets, of images and of vectors."""
    return {**DATASETS, **TABLES}


def require(table: dict[str, str], name: str, what: str) -> None:
    """Raise unless `table` has `name`; `what` words the error ("attention", "data set").

    Raises:
        ConfigError: no such name; the message lists the known ones.
    """
    if name not in table:
        raise ConfigError(f"unknown {what} {shown(name)}; known: {', '.join(sorted(table))}")


def resolve(table: dict[str, str], name: str, what: str) -> Any:
    """Return the object that `table` names `name`, a name as for `require`.

    Raises:
        MissingPackageError: it needs an optional package that is not installed.
        ConfigError: as `require`, or what the name stands for cannot be imported.
    """
    require(table, name, what)
    module, _, attribute = table[name].partition(":")
    try:
        with needed_by(f"{what} {name!r}"):
            return getattr(import_module(module), attribute)
    except MissingPackageError:
        raise
    except Exception as error:  # a module can fail in any way while it is imported
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(
            f"{what} {name!r} cannot be used: {table[name]} cannot be imported ({reason}); mend that module, or the "
            f"line of {name!r} in registry.py"
        ) from error
