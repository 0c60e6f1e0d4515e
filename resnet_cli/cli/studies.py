"""Commands on one network: eval, and those of the studies (lesion, paths, signal)."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import annotated_types
import typer

from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    AssumeOption,
    BudgetOption,
    CheckpointOption,
    CheckpointsOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    EngineOption,
    ImagesOption,
    JsonOption,
    LocalOutOption,
    NormalizeOption,
    ProfileOption,
    QuietOption,
    SetOption,
    StudySeedOption,
    VerboseOption,
    complete_experiment,
)
from resnet_cli.cli.shared import (
    check_checkpoint,
    check_checkpoints,
    check_words,
    file_names,
    find_network,
    local_folder,
    make_context,
    make_display,
    make_stopper,
    range_of,
    show_files,
    span,
    unusual,
    writable,
)
from resnet_cli.config.fields import chance_error, first_error_message
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Option, Study, options_of, studies_of
from resnet_cli.weights.cards import bundled_names

if TYPE_CHECKING:
    from resnet_cli.studies.runner import Written


@app.command(
    name="eval",
    epilog=examples(
        "eval",
        "eval --checkpoint preact110-cifar10 --data-dir DATA",
        "eval --checkpoint x.th --normalize imagenet --data-dir DATA",
    ),
)
def evaluate_command(
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    model: AssumeOption = None,
    images: ImagesOption = None,
    test_size: Annotated[
        int | None,
        typer.Option(
            "--test-size",
            min=1,
            metavar="N",
            help="imagefolder: side of the centre crop, 224 or 320 in paper 1.",
        ),
    ] = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure a network's test error and loss. From 100 classes on the top-5 error too."""
    check_checkpoint(checkpoint)
    check_words(dataset, normalize, device)
    from resnet_cli.runtime.interrupt import interruptible
    from resnet_cli.studies.finite import check_outputs
    from resnet_cli.training.evaluation import TOP5_FROM, evaluate

    display = make_display(as_json, quiet, verbose)
    context = make_context(device, data_dir, download)
    stopper = make_stopper(None)
    with stopper.listening():
        subject = find_network(
            display,
            context,
            checkpoint,
            dataset,
            normalize,
            images,
            test_size,
            assume=model or (),
            should_stop=stopper,
        )
    batches = subject.batches("test")
    line = subject.other_images("test")
    if line is not None:
        display.paragraph(line)
    with stopper.listening(), display.progress(f"evaluating {subject.label}") as update:
        report = interruptible(update, stopper, "stopped; nothing was measured")
        result = evaluate(subject.loaded.network, batches, report=report)
    if not math.isfinite(result.loss):
        check_outputs(subject, "test")
        raise UserError(f"{subject.loaded.source}: its loss on these images is {result.loss}")
    chance = chance_error(subject.loaded.num_classes)
    display.line(f"test error {result.error:.2f} % on {result.images:,} images", level=-1)
    top5_error = result.top5_error if subject.loaded.num_classes >= TOP5_FROM else None
    if top5_error is not None:
        display.line(f"top-5 error {top5_error:.2f} %", level=-1)
    display.line(f"loss {result.loss:.4f}", level=-1)
    if subject.loaded.run is None and result.error > 0.8 * chance:
        display.paragraph(
            f"hint: guessing gives {chance:.0f} %; were these weights trained with another "
            "normalisation? Try --normalize imagenet or --normalize cifar",
            level=-1,
        )
        if assumed := subject.loaded.assumptions:
            listed = ", ".join(map(str, assumed))
            display.paragraph(f"or is one of these assumptions wrong: {listed}?", level=-1)
    display.summary(
        {
            "command": "eval",
            "checkpoint": subject.loaded.source,
            "dataset": subject.data.dataset,
            "images": result.images,
            "test_error": result.error,
            "top5_error": top5_error,
            "loss": result.loss,
            "assumptions": {a.key: a.value for a in subject.loaded.assumptions},
        }
    )


@dataclass(frozen=True)
class _Parameter:
    """An option of a study's command, whichever of its studies have it."""

    name: str
    """Of the field."""
    option: Option
    annotation: Any
    """Of the field, without its metadata."""
    default: Any
    minimum: int | None
    studies: tuple[type[Study], ...]

    @property
    def is_range(self) -> bool:
        return tuple[int, ...] in (self.annotation, *get_args(self.annotation))

    @property
    def key(self) -> str:
        """The name of the command's argument."""
        return self.option.flag.strip("-").replace("-", "_")

    def declared(self) -> inspect.Parameter:
        """As Typer takes it."""
        kind: Any = str | None if self.is_range else self.annotation
        default = None if self.option.selects or self.is_range else self.default
        if self.option.selects and not self.is_range:
            kind = kind | None
        help_text = self.option.help
        if self.option.shown_default:
            help_text += f"  [default: {self.option.shown_default}]"
        option = typer.Option(
            self.option.flag, help=help_text, metavar=self.option.metavar, min=self.minimum
        )
        return inspect.Parameter(
            self.key,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, option],
        )

    def value(self, given: Any) -> Any:
        """The field's value for what was given on the command line."""
        return range_of(self.option.flag, given) if self.is_range else given


def _parameters(command: str) -> list[_Parameter]:
    """The options of a command, those of its first study first."""
    found: dict[str, _Parameter] = {}
    for study in studies_of(command):
        for name, option in options_of(study).items():
            info = study.model_fields[name]
            before = found.get(option.flag)
            bounds = [m for m in info.metadata if isinstance(m, annotated_types.Gt)]
            least = [m for m in info.metadata if isinstance(m, annotated_types.Ge)]
            minimum = int(bounds[0].gt) + 1 if bounds else int(least[0].ge) if least else None  # type: ignore[call-overload]
            default = info.default if option.default is None else option.default
            found[option.flag] = _Parameter(
                name,
                before.option if before else option,
                info.annotation,
                None if info.is_required() else default,
                minimum,
                (*(before.studies if before else ()), study),
            )
    return list(found.values())


def _chosen(
    command: str, parameters: list[_Parameter], given: Mapping[str, Any]
) -> tuple[Study, dict[str, object]]:
    """The study that the options choose, and the words that name its default folder.

    Args:
        given: argument -> value, of all of the command's own options.

    Raises:
        UserError: options exclude each other, or do not fit the study.
    """
    usual = {p.key: p.declared().default for p in parameters}
    set_ = {p.option.flag: p for p in parameters if given[p.key] != usual[p.key]}
    selecting = [p for p in set_.values() if p.option.selects]
    if len(selecting) > 1:
        flags = [p.option.flag for p in parameters if p.option.selects]
        raise UserError(f"{', '.join(flags[:-1])} and {flags[-1]} exclude each other; give one")
    study = (selecting[0].studies if selecting else studies_of(command))[0]
    for flag, parameter in set_.items():
        if study not in parameter.studies:
            goes = [p.option.flag for p in parameters if p.option.selects]
            fit = [p.option.flag for p in parameters if p.option.selects and _share(p, parameter)]
            if selecting and not fit:
                raise UserError(f"{selecting[0].option.flag} and {flag} exclude each other")
            raise UserError(f"{flag} goes with {' or '.join(fit or goes)}")
    study.check_options({flag: given[p.key] for flag, p in set_.items()})
    values, words = {}, {}
    for parameter in sorted(parameters, key=lambda p: not p.option.selects):
        if study not in parameter.studies:
            continue
        flag, value = parameter.option.flag, given[parameter.key]
        if value is not None:
            value = parameter.value(value)
            values[parameter.name] = value
        if flag in set_ and parameter.option.word != "":
            words[parameter.option.word or flag.strip("-")] = (
                span(value) if isinstance(value, tuple) else value
            )
    if not selecting and (first := parameters[0]).option.selects:
        words = {first.option.flag.strip("-"): span(first.default)} | words
    try:
        return study.model_validate(values), words
    except ValueError as error:
        flag = selecting[0].option.flag if selecting else command
        of_fields = {p.name: p.option.flag for p in set_.values()}
        raise UserError(
            f"{_first_place(error, of_fields) or flag}: {first_error_message(error)}"
        ) from None


def _share(one: _Parameter, other: _Parameter) -> bool:
    return bool(set(one.studies) & set(other.studies))


def _first_place(error: ValueError, flags: Mapping[str, str]) -> str | None:
    """The option that an error is about, if it is about one."""
    errors = getattr(error, "errors", None)
    return (
        next((flags[part] for part in errors()[0]["loc"] if part in flags), None)
        if errors
        else None
    )


def _on_network(
    command: str,
    study: Study,
    words: Mapping[str, object],
    *,
    checkpoint: CheckpointsOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    model: AssumeOption = None,
    images: ImagesOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    engine: EngineOption = "fast",
    seed: StudySeedOption = 0,
    out: LocalOutOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a study of one network; its parameters are the options that the studies share.

    Args:
        words: the study's options, for the default folder.
    """
    stopper = make_stopper(budget)
    check_checkpoints(checkpoint or (), model or ())
    check_words(dataset, normalize, device)
    from resnet_cli.studies.runner import run_study, run_together
    from resnet_cli.weights.assumptions import parse_overrides

    display = make_display(as_json, quiet, verbose)
    context = make_context(device, data_dir, download, engine)
    more = {"images": images, "normalize-": normalize, "seed": unusual(seed, 0)}
    more |= {f"{key}-": value for key, value in parse_overrides(model or ()).items()}
    words = dict(words) | more | {context.engine: context.engine != "fast"}
    with stopper.listening():
        names: list[str | None] = [*checkpoint] if checkpoint else [None]
        found = [
            find_network(display, context, name, dataset, normalize, images, assume=model or ())
            for name in names
        ]
        folder = writable(out or local_folder(command, "-and-".join(s.name for s in found), words))
        shared: Any = {"seed": seed, "out": folder, "display": display, "should_stop": stopper}
        if len(found) == 1:
            written = run_study(found[0], study, **shared)
        else:
            written = run_together(found, study, **shared)
    show_files(display, written)
    sources, data = [s.loaded.source for s in found], [s.data.dataset for s in found]
    about: dict[str, Any] = {"checkpoint": sources[0], "dataset": data[0]}
    if len(found) > 1:
        about = {"checkpoints": sources, "datasets": data}
    _summarise(display, command, about, written)


def _on_experiment(
    command: str,
    study: Study,
    words: Mapping[str, object],
    *,
    experiment: str,
    profile: str | None,
    settings: list[str] | None,
    data_dir: Path | None,
    download: bool,
    device: str,
    out: Path | None,
    budget: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **of_network: Any,
) -> None:
    """Run a study of every network of an experiment, trained or not.

    Raises:
        UserError: options that are for one network were given.
    """
    from resnet_cli.config.experiments import load_experiment

    for name in ("checkpoint", "dataset", "normalize", "model", "seed"):
        if of_network[name]:
            raise UserError(f"--{name} and an EXPERIMENT exclude each other")
    if experiment in bundled_names():
        raise UserError(f"{experiment} is a network, no experiment: --checkpoint {experiment}")
    display = make_display(as_json, quiet, verbose)
    stopper = make_stopper(budget)
    loaded = load_experiment(experiment, profile, settings or ())
    from resnet_cli.run.experiment import study_experiment
    from resnet_cli.run.trainings import Session

    context = make_context(device, data_dir, download)
    words = {loaded.profile: True, "set-": loaded.hash[:8] if settings else None} | dict(words)
    loaded = loaded.model_copy(update={"study": study})
    folder = writable(out or local_folder(command, loaded.name, words))
    with stopper.listening():
        written = study_experiment(loaded, Session(context, display, stopper), folder)
    show_files(display, written)
    about = {"experiment": loaded.name, "profile": loaded.profile}
    _summarise(display, command, about, written)


def _summarise(display: Any, command: str, about: Mapping[str, Any], written: "Written") -> None:
    display.summary({"command": command, **about, "files": file_names(written)} | written.facts)


def add_command(
    application: typer.Typer, command: str, text: str, calls: tuple[str, ...]
) -> Callable[..., None]:
    """Add the command of the studies that name it: their options, then the shared ones."""
    parameters = _parameters(command)
    studies = studies_of(command)
    shared = dict(inspect.signature(_on_network, eval_str=True).parameters)
    left_out = {"command", "study", "words"}
    left_out |= {"images", "engine"} - {name for study in studies for name in study.shared_options}
    with_experiment = any(study.takes_experiment for study in studies)

    def run(**given: Any) -> None:
        study, words = _chosen(command, parameters, {p.key: given.pop(p.key) for p in parameters})
        if with_experiment and given["experiment"] is not None:
            if not study.takes_experiment:
                flag = next(option.flag for option in options_of(type(study)).values())
                raise UserError(
                    f"{flag} is measured on one network: name it by --checkpoint, or run an "
                    f"experiment with study: {{kind: {study.kind}}}"
                )
            _on_experiment(command, study, words, **given)
            return
        for name, flag in (("profile", "--profile"), ("settings", "--set")):
            if given.pop(name, None):
                raise UserError(f"{flag} goes with an EXPERIMENT: resnet-cli {command} quickstart")
        given.pop("experiment", None)
        _on_network(command, study, words, **given)

    declared = [p.declared() for p in parameters]
    if with_experiment:
        of_experiments = inspect.signature(_of_experiments, eval_str=True).parameters
        declared = [*of_experiments.values(), *declared]
    declared += [p for name, p in shared.items() if name not in left_out]
    run.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in declared}
    run.__doc__ = text
    application.command(name=command, epilog=examples(*calls))(run)
    return run


def _of_experiments(
    *,
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Measure every network of an experiment instead; nothing is trained.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    profile: ProfileOption = None,
    settings: SetOption = None,
) -> None:
    """The parameters of a command that also measures the networks of an experiment."""


add_command(
    app,
    "lesion",
    "Delete or reorder units and measure the test error.",
    (
        "lesion --blocks 1 --ranked",
        "lesion --blocks 1-20 --samples 50",
        "lesion --only 4,17 --per-class",
        "lesion --reorder 1-20",
        "lesion --greedy 20",
        "lesion --additivity 2-10",
        "lesion --blocks 1 --recalibrate 1000",
        "lesion --influence 1-3",
        "lesion --checkpoint preact110-cifar10 --data-dir DATA",
    ),
)
add_command(
    app,
    "paths",
    "Measure path lengths and the gradient by path length.",
    (
        "paths",
        "paths --k 10 --samples 1000",
        "paths --exact --stages",
        "paths --lengths",
        "paths --exact --estimator image",
        "paths --cumulative",
    ),
)
add_command(
    app,
    "signal",
    "Measure activations and gradients unit by unit. Untrained and trained; shortcuts' factors.",
    (
        "signal",
        "signal --checkpoint preact110-cifar10 --data-dir DATA",
        "signal he2016/table1 --profile mini",
        "signal --iterative 1000",
        "signal --effects 500",
    ),
)
