"""The command `acf graph`: dvc.yaml, written from its template for the experiments of params.yaml."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from acf.errors import ConfigError
from acf.runs.code import CODE
from acf.runs.files import write_atomically
from acf.stages.project import Project

TEMPLATE = Path("workflow/dvc.yaml.j2")
GRAPH = Path("dvc.yaml")


def write_graph(root: Path = Path(".")) -> None:
    """Write dvc.yaml.

    Raises:
        ConfigError: params.yaml or the template is missing or wrong.
    """
    project = Project(root)
    path, text = project.root / GRAPH, graph_text(project)
    changed = not _holds(path, text)
    if changed:
        write_atomically(path, text.encode())
    print(f"wrote {path}" if changed else f"{path}: up to date")


def check_graph(root: Path = Path(".")) -> None:
    """Check that dvc.yaml is what `write_graph` would write.

    Raises:
        ConfigError: it is not; the message says what to do.
    """
    project = Project(root)
    path = project.root / GRAPH
    if not _holds(path, graph_text(project)):
        raise ConfigError(f"{path} is not the graph of {project.params.path}; run: acf graph")
    print(f"{path}: up to date")


def graph_text(project: Project) -> str:
    """Return the content of dvc.yaml for the experiments in params.yaml.

    Raises:
        ConfigError: the template is missing or damaged.
    """
    path, params = project.root / TEMPLATE, project.params
    experiments = {
        name: {
            "analyses": params.analyses_made(name),
            "samples": project.sample_files(name),
            "source": params.seen(name).source,
        }
        for name in params.experiments
    }
    labelled = [name for name in params.experiments if params.reads_labels(name)]
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    try:
        template = environment.from_string(path.read_text(encoding="utf-8"))
        return template.render(stages=CODE, prepared=params.datasets, experiments=experiments, labelled=labelled)
    except FileNotFoundError:
        raise ConfigError(f"{path} not found; run acf in the project's top folder") from None
    except Exception as error:  # a damaged template can make jinja fail in any way
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path} is damaged: {reason}; restore it from version control") from None


def _holds(path: Path, text: str) -> bool:
    """Whether a file is there with this content."""
    return path.is_file() and path.read_bytes() == text.encode()
