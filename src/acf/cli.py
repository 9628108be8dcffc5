"""The command line `acf`: one thin command per stage, and a few to look around."""

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typing_extensions import override

from acf.errors import AcfError, ConfigError, LostRankError, NotContractiveError, StoppedError, TrainingError
from acf.extras import needed_by
from acf.runs.files import explanation
from acf.runs.launch import LOST, is_launched
from acf.runs.ranks import Place
from acf.runs.signals import Interruptible
from acf.runs.streams import flush_output, open_streams
from acf.runs.threads import wait_passively
from acf.settings.analysis_config import AnalysesConfig
from acf.settings.analysis_section import AnalysisSection

# Below 2^63, as in params.yaml: what torch's generators and both engines take.
HIGHEST_SEED = 2**63 - 1


class _Commands(TyperGroup):
    """The commands of the program, which name the extra of a package that one of them lacks."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            with needed_by(f"acf {ctx.invoked_subcommand}"):
                raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Contractive normalizing flows with Lipschitz-constrained self-attention.",
)

data_app = typer.Typer(no_args_is_help=True, help="Show and verify the data sets.")
app.add_typer(data_app, name="data")
runs_app = typer.Typer(help="Show the runs that the run store keeps, and free space.")
app.add_typer(runs_app, name="runs")

Dataset = Annotated[str, typer.Option(help="Data set that `acf data list` shows, or one made of it in params.yaml.")]
Experiment = Annotated[str, typer.Option(help="Experiment, a key under `experiments` in params.yaml.")]
Variant = Annotated[str, typer.Option(help="Variant, a key under `experiments.<experiment>.variants`.")]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, data order and noise.", min=0, max=HIGHEST_SEED)]
Device = Annotated[
    str,
    typer.Option(
        envvar="ACF_DEVICE", help="cpu, cuda:1, mps; cuda: any free one; auto: any free one of ACF_DEVICES or of all."
    ),
]

STOPPED = 130
"""Exit code after a signal to stop, whichever it was; typer's for Ctrl-C."""
OUT_OF_MEMORY = (
    "out of memory; lower training.batch_size (and raise training.accumulate as much), evaluation.batch_size or "
    "sampling.samples in params.yaml, or use a device with more"
)


@app.command()
def prepare(dataset: Dataset) -> None:
    """Fetch a data set and convert it to data/<dataset>/{train,test}.pth."""
    from acf.stages.prepare import prepare as stage
    from acf.stages.project import Project

    project = Project()
    stage(project.source(dataset), project.data)


@data_app.command("list")
def data_list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of a table.")] = False,
) -> None:
    """Show every data set: ready, partial, missing, manual or broken; size, licence, source, citation."""
    import json

    from acf.data.listing import overview, show

    entries = overview()
    if as_json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=2))
    else:
        show(entries)


@data_app.command("verify")
def data_verify(dataset: Annotated[str, typer.Argument(help="Data set.")]) -> None:
    """Recompute the content hashes of a prepared data set."""
    from acf.data import verify as check
    from acf.registry import datasets, require
    from acf.stages.project import Project

    project = Project()
    prepared = project.source(dataset)
    require(datasets(), prepared, "data set")
    manifest = check(prepared, project.data)
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items())
    print(f"{prepared}: content verified, {counts} {manifest.unit}")


@app.command()
def explain(
    stage: Annotated[
        str, typer.Argument(help="A stage: prepare, train, evaluate, baselines, sample, an analysis, ...")
    ],
    experiment: Annotated[str | None, typer.Option(help="Experiment, of all stages but prepare and index.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant, of all stages of one model.")] = None,
    seed: Seed = 0,
    dataset: Annotated[str | None, typer.Option(help="Data set, of prepare.")] = None,
) -> None:
    """Say why a stage would compute, go on, restore or wait; nothing is computed or written."""
    import shutil
    import textwrap

    from acf.stages.explain import explain as explained

    text = explained(stage, experiment, variant, seed, dataset)
    if sys.stdout.isatty():
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(text)


@runs_app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of a table.")] = False,
) -> None:
    """Show every stored run: state, bits/dim, size, age, and whether params.yaml and the code still name it."""
    import json

    if context.invoked_subcommand is not None:
        return
    from acf.stages.run_list import list_runs, show

    entries = list_runs()
    if as_json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=2))
    else:
        show(entries)


@runs_app.command("prune")
def runs_prune(
    older_than: Annotated[float, typer.Option(help="Only runs that did not change for so many days.", min=0)] = 0,
    interrupted: Annotated[bool, typer.Option("--interrupted", help="Only runs that are not finished.")] = False,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Also runs of earlier versions, and damaged ones."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; needed where there is no terminal.")] = False,
) -> None:
    """Remove stored runs that params.yaml and the present code no longer name; running ones always stay."""
    from acf.stages.prune import Choice, prune

    def confirm(question: str) -> bool:
        if dry_run:
            print("nothing was removed (--dry-run)")
        elif not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError("nothing was removed, as there is no terminal to ask at; add --yes to remove these runs")
        return not dry_run and (yes or typer.confirm(question))

    prune(Choice(older_than, interrupted, unknown), confirm)


@app.command()
def train(
    experiment: Experiment,
    variant: Variant,
    seed: Seed = 0,
    device: Device = "auto",
    processes: Annotated[
        int, typer.Option(envvar="ACF_PROCESSES", help="Processes that share the work, a device each.", min=1, max=1024)
    ] = 1,
    live: Annotated[
        str, typer.Option(envvar="ACF_LIVE", help="Where to show curves while it trains: dvclive,tensorboard or one.")
    ] = "",
    live_folder: Annotated[Path, typer.Option(envvar="ACF_LIVE_FOLDER", help="Where the files of --live go.")] = Path(
        ".acf/live"
    ),
) -> None:
    """Train one variant; an interrupted run resumes from its last checkpoint.

    Under torchrun or srun, each process that they start is one of those that share the work.
    """
    from acf.stages.live import Live
    from acf.stages.train import train as stage

    stage(experiment, variant, seed, device, processes=processes, live=Live.of(live, live_folder))


@app.command()
def evaluate(experiment: Experiment, variant: Variant, seed: Seed = 0, device: Device = "auto") -> None:
    """Measure test bits/dim, certificate and reconstruction error of a trained model."""
    from acf.stages.evaluate import evaluate as stage

    stage(experiment, variant, seed, device)


@app.command()
def baselines(experiment: Experiment) -> None:
    """Measure test bits/dim of the simple densities that a flow has to beat."""
    from acf.stages.baselines import baselines as stage

    stage(experiment)


@app.command()
def sample(experiment: Experiment, variant: Variant, seed: Seed = 0, device: Device = "auto") -> None:
    """Draw sample and reconstruction grids of a trained model."""
    from acf.stages.sample import sample as stage

    stage(experiment, variant, seed, device)


def _add_analysis(name: str, section: type[AnalysisSection]) -> None:
    def command(experiment: Experiment, variant: Variant, seed: Seed = 0, device: Device = "auto") -> None:
        from acf.settings.params import Run
        from acf.stages.analyse import analyse

        analyse(name, Run(experiment, variant, seed), device)

    app.command(name, help=f"{section.__doc__}")(command)


for _name, _field in AnalysesConfig.model_fields.items():
    _add_analysis(_name, cast(type[AnalysisSection], _field.annotation))


@app.command()
def toy(
    name: Annotated[str | None, typer.Argument(help="A toy that --list shows, or all.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of training; by default about a minute of them.", min=1)
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    to: Annotated[Path, typer.Option(help="Folder that gets a folder for each toy.")] = Path("toys"),
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Learn p(x | c), c the part of the density.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Only show the names of the toys.")] = False,
) -> None:
    """Train a flow on a density of the plane, and draw both: density.png, samples, metrics, model."""
    from acf.data.toy_densities import TOYS
    from acf.stages.toy import STEPS, toy_names
    from acf.stages.toy import toy as command

    if show:
        print("\n".join(TOYS))
        return
    for one in toy_names(name, conditional):
        command(one, STEPS if steps is None else steps, seed, device, to, conditional=conditional)


@app.command()
def report(experiment: Experiment) -> None:
    """Write the comparison report of one experiment from its results files."""
    from acf.stages.report import report as stage

    stage(experiment)


@app.command()
def export(
    experiment: Experiment,
    variant: Variant,
    to: Annotated[Path, typer.Option(help="Folder for model.safetensors, config.json and README.md.")],
    seed: Seed = 0,
    licence: Annotated[str, typer.Option(help="Licence of the weights as the Hub names it: mit, cc-by-4.0, ...")] = (
        "unknown"
    ),
    replace: Annotated[bool, typer.Option("--replace", help="Replace files of these names that differ.")] = False,
) -> None:
    """Write a trained and evaluated model with a model card into a folder that needs no project."""
    from acf.settings.params import Run
    from acf.stages.export import export as command

    command(Run(experiment, variant, seed), to, licence, replace)


@app.command()
def index() -> None:
    """Write reports/index.html over the reports of all experiments."""
    from acf.stages.index import index as stage

    stage()


@app.command()
def readme(
    check: Annotated[bool, typer.Option("--check", help="Only say whether both are up to date.")] = False,
) -> None:
    """Rewrite what README.md and docs/results.md say of results from the reports."""
    from acf.stages.project import Project
    from acf.stages.readme import check_readme, write_readme

    (check_readme if check else write_readme)(Project().root)


@app.command()
def graph(
    check: Annotated[bool, typer.Option("--check", help="Only say whether dvc.yaml is up to date.")] = False,
) -> None:
    """Write dvc.yaml for the experiments in params.yaml; needed after one was added or renamed."""
    from acf.stages.graph import check_graph, write_graph

    check_graph() if check else write_graph()


@app.command()
def code() -> None:
    """Write code/<stage>.json, by which DVC sees changes of the code but not of its comments."""
    from acf.stages.code_notes import write_code

    write_code()


@app.command()
def sync() -> None:
    """Have DVC take over what is up to date, such as what Snakemake has built; then `dvc push` shares it."""
    from acf.stages.sync import sync as command

    command()


def main() -> None:
    """Run the command line; an expected error is one message without a traceback.

    The exit code is 1 after an error, without a message where the reader of standard output has gone (`head`), and 130
    after a signal to stop (`acf.runs.signals`), whichever it was.
    """
    output = open_streams()
    wait_passively()
    with Interruptible() as signals:
        try:
            code = _run()
        except BaseException:  # typer knows of KeyboardInterrupt; libraries make other exceptions of it
            if signals.received is None:
                raise
            code = STOPPED
        if code == STOPPED and signals.received is not None and not _is_follower():
            print(f"interrupted by {signals.received.name}; run the same command again to go on", file=sys.stderr)
    sys.exit(flush_output(output, code))


def _run() -> int:
    """Run the command and return its exit code, after a message where it failed."""
    try:
        app()
    except SystemExit as end:  # typer's way to end, whatever the code
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except StoppedError as stop:
        if not _is_follower():
            print(f"interrupted: {stop}", file=sys.stderr)
        return STOPPED
    except LostRankError as lost:
        if is_launched():  # what launched this process says which one was lost
            return LOST
        if not _is_follower():
            print(f"error: {lost}", file=sys.stderr)
    except (TrainingError, NotContractiveError) as error:
        if not _is_follower():
            print(f"error: {error}", file=sys.stderr)
    except AcfError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {explanation(error)}", file=sys.stderr)
    except SyntaxError as error:
        print(f"error: {error.filename}:{error.lineno}: {error.msg}; mend that file", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        message = str(error)
        if not (isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message):
            raise
        print(f"error: {OUT_OF_MEMORY} ({message.partition(chr(10))[0]})", file=sys.stderr)
    return 1


def _is_follower() -> bool:
    """Whether another process of the same training says what all of them have agreed on."""
    try:
        place = Place.of_environment()
    except AcfError:  # which has been said
        return False
    return place is not None and place.rank > 0


if __name__ == "__main__":
    main()
