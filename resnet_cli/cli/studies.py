"""The commands of the studies: lesion, paths, signal."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import annotated_types
import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from resnet_cli.cli.app import add_command, option_parameters, take
from resnet_cli.cli.files import file_names, show_files, writable
from resnet_cli.cli.network import NetworkOptions, find_network
from resnet_cli.cli.options import (
    BudgetOption,
    EngineOption,
    ProfileOption,
    SetOption,
    StudySeedOption,
    complete_checkpoint,
    complete_experiment,
    make_stopper,
)
from resnet_cli.config.fields import first_error_message, parse_range, range_text
from resnet_cli.results.layout import local_folder
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Option, Study, options_of, studies_of
from resnet_cli.weights.cards import bundled_names

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.studies.runner import Written
    from resnet_cli.training.context import Context


# --- the options of the studies ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _StudyOption:
    """An option that studies of one command declare in their fields."""

    option: Option
    name: str
    """The field of the study."""
    field: FieldInfo
    studies: list[type[Study]]
    """The studies that have it."""

    @property
    def flag(self) -> str:
        return self.option.flag

    @property
    def key(self) -> str:
        """The name of the command's parameter."""
        return self.flag.strip("-").replace("-", "_")

    @property
    def is_range(self) -> bool:
        kind = self.field.annotation
        return tuple[int, ...] in (kind, *get_args(kind))

    @property
    def default(self) -> Any:
        """The default of the command's parameter; with None, the study's field keeps its own."""
        if self.option.selects or self.is_range:
            return None
        return self.field.default if self.option.default is None else self.option.default

    @property
    def minimum(self) -> int | None:
        """The least valid value, if there is one."""
        for bound in self.field.metadata:
            if isinstance(bound, annotated_types.Gt):
                return int(bound.gt) + 1  # type: ignore[call-overload,no-any-return]
            if isinstance(bound, annotated_types.Ge):
                return int(bound.ge)  # type: ignore[call-overload,no-any-return]
        return None

    def parameter(self) -> inspect.Parameter:
        """The command's parameter."""
        kind: Any = str if self.is_range else self.field.annotation
        if self.default is None:
            kind = kind | None
        help_text = self.option.help
        if self.option.shown_default:
            help_text += f"  [default: {self.option.shown_default}]"
        option = typer.Option(
            self.flag, help=help_text, metavar=self.option.metavar, min=self.minimum
        )
        return inspect.Parameter(
            self.key,
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[kind, option],
        )

    def parsed(self, given: Any) -> Any:
        """The field's value for the value given on the command line.

        Raises:
            UserError: it is not a valid range.
        """
        if not self.is_range:
            return given
        try:
            return parse_range(given)
        except ValueError as error:
            raise UserError(f"{self.flag}: {error}") from None


def _study_options(command: str) -> list[_StudyOption]:
    """The options of a command, those of its first study first."""
    found: dict[str, _StudyOption] = {}
    for study in studies_of(command):
        for name, option in options_of(study).items():
            field = study.model_fields[name]
            entry = found.setdefault(option.flag, _StudyOption(option, name, field, []))
            entry.studies.append(study)
    return list(found.values())


def _configured(
    command: str, options: list[_StudyOption], given: Mapping[str, Any]
) -> tuple[Study, dict[str, object]]:
    """The study that the options select, and its options that are not at their default.

    Args:
        given: parameter -> value, for all of `options`.

    Returns:
        The study; and word -> value, for the name of the default folder.

    Raises:
        UserError: options exclude each other, do not belong to the study, or are not valid.
    """
    changed = [o for o in options if given[o.key] != o.default]
    selecting = [o for o in changed if o.option.selects]
    if len(selecting) > 1:
        flags = [o.flag for o in options if o.option.selects]
        raise UserError(f"{', '.join(flags[:-1])} and {flags[-1]} exclude each other; give one")
    study = (selecting[0].studies if selecting else studies_of(command))[0]
    for option in changed:
        if study not in option.studies:
            raise _misplaced(option, options, selecting)
    study.check_options({o.flag: given[o.key] for o in changed})
    values, words = {}, {}
    for option in sorted(options, key=lambda o: not o.option.selects):
        value = given[option.key]
        if study not in option.studies or value is None:
            continue
        values[option.name] = value = option.parsed(value)
        if option in changed and option.option.word != "":
            word = option.option.word or option.flag.strip("-")
            words[word] = range_text(value) if isinstance(value, tuple) else value
    try:
        return study.model_validate(values), words
    except ValidationError as error:
        flags_of = {o.name: o.flag for o in changed}
        places = [flags_of[part] for part in error.errors()[0]["loc"] if part in flags_of]
        where = (*places, *(o.flag for o in selecting), command)[0]
        raise UserError(f"{where}: {first_error_message(error)}") from None


def _misplaced(
    option: _StudyOption, options: list[_StudyOption], selecting: list[_StudyOption]
) -> UserError:
    """The error for an option that the selected study does not have."""
    selectors = [o for o in options if o.option.selects]
    fitting = [o.flag for o in selectors if set(o.studies) & set(option.studies)]
    if selecting and not fitting:
        return UserError(f"{selecting[0].flag} and {option.flag} exclude each other")
    return UserError(
        f"{option.flag} goes with {' or '.join(fitting or [o.flag for o in selectors])}"
    )


# --- the commands --------------------------------------------------------------------------------


@dataclass
class StudyOptions(NetworkOptions):
    """The options that all studies share."""

    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="PATH|NAME",
            help="Weights: the folder of a run, a checkpoint file, or a bundled name; repeat it "
            "to compare networks.  [default: the newest finished run, or else bundled weights]",
            autocompletion=complete_checkpoint,
        ),
    ] = None
    engine: EngineOption = "fast"
    seed: StudySeedOption = 0
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for CSVs and plots.  [default: a folder in results/local/, named after "
            "the weights and the options]",
        ),
    ] = None
    budget: BudgetOption = None

    def context(self) -> "Context":
        return replace(super().context(), engine=self.engine)


@dataclass
class ExperimentOptions:
    """The experiment that a command measures, if it is not given a network."""

    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Measure every network of an experiment instead; nothing is trained.",
            autocompletion=complete_experiment,
        ),
    ] = None
    profile: ProfileOption = None
    settings: SetOption = None


def _study_networks(
    command: str, study: Study, words: Mapping[str, object], options: StudyOptions
) -> None:
    """Run a study of one network, or of several side by side."""
    stopper = make_stopper(options.budget)
    options.check_checkpoints(options.checkpoint or ())
    from resnet_cli.studies.runner import run_study, run_together
    from resnet_cli.studies.subject import results_folder

    display, context = options.display(), options.context()
    words = {
        **words,
        "images": options.images,
        "normalize-": options.normalize,
        "seed": options.seed or None,
        **{f"{key}-": value for key, value in options.overrides.items()},
        options.engine: options.engine != "fast",
    }
    references: list[str | None] = [*options.checkpoint] if options.checkpoint else [None]
    with stopper.listening():
        found = [find_network(one, options, context, display) for one in references]
        folder = writable(options.out or results_folder(command, found, words))
        shared: Any = {
            "seed": options.seed,
            "out": folder,
            "display": display,
            "should_stop": stopper,
        }
        written = (
            run_study(found[0], study, **shared)
            if len(found) == 1
            else run_together(found, study, **shared)
        )
    sources, data = [s.loaded.source for s in found], [s.data.dataset for s in found]
    about: dict[str, Any] = {"checkpoint": sources[0], "dataset": data[0]}
    if len(found) > 1:
        about = {"checkpoints": sources, "datasets": data}
    _show(display, command, about, written)


def _study_experiment(
    command: str,
    study: Study,
    words: Mapping[str, object],
    measured: ExperimentOptions,
    options: StudyOptions,
) -> None:
    """Run a study of every network of an experiment, trained or not.

    Raises:
        UserError: options that are for one network were given.
    """
    from resnet_cli.config.experiments import load_experiment

    assert measured.experiment is not None
    if not study.takes_experiment:
        flag = next(option.flag for option in options_of(type(study)).values())
        raise UserError(
            f"{flag} measures one network: give it by --checkpoint, or run an experiment with "
            f"study: {{kind: {study.kind}}}"
        )
    for name in ("checkpoint", "dataset", "normalize", "model", "seed"):
        if getattr(options, name):
            raise UserError(f"--{name} and an EXPERIMENT exclude each other")
    if measured.experiment in bundled_names():
        raise UserError(
            f"{measured.experiment} is a network, not an experiment: --checkpoint "
            f"{measured.experiment}"
        )
    stopper = make_stopper(options.budget)
    loaded = load_experiment(measured.experiment, measured.profile, measured.settings or ())
    from resnet_cli.run.experiment import study_experiment
    from resnet_cli.run.trainings import Session

    display = options.display()
    words = {loaded.profile: True, "set-": loaded.hash[:8] if measured.settings else None, **words}
    loaded = loaded.model_copy(update={"study": study})
    folder = writable(options.out or local_folder(command, loaded.name, words))
    with stopper.listening():
        session = Session(options.context(), display, stopper)
        written = study_experiment(loaded, session, folder)
    _show(display, command, {"experiment": loaded.name, "profile": loaded.profile}, written)


def _show(display: "Display", command: str, about: Mapping[str, Any], written: "Written") -> None:
    show_files(display, written)
    display.summary({"command": command, **about, "files": file_names(written)} | written.facts)


def add_study_command(command: str, text: str, *examples: str) -> None:
    """Add the command of the studies that name it."""
    studies = studies_of(command)
    options = _study_options(command)
    left_out = {"images", "engine"} - {name for study in studies for name in study.shared_options}
    takes_experiment = any(study.takes_experiment for study in studies)

    def run(**given: Any) -> None:
        study, words = _configured(command, options, {o.key: given.pop(o.key) for o in options})
        measured = take(ExperimentOptions, given)
        shared = take(StudyOptions, given)
        if measured.experiment is not None:
            _study_experiment(command, study, words, measured, shared)
            return
        for flag, value in (("--profile", measured.profile), ("--set", measured.settings)):
            if value:
                raise UserError(f"{flag} goes with an EXPERIMENT: resnet-cli {command} quickstart")
        _study_networks(command, study, words, shared)

    run.__doc__ = text
    parameters = option_parameters(ExperimentOptions) if takes_experiment else []
    parameters += [option.parameter() for option in options]
    parameters += [p for p in option_parameters(StudyOptions) if p.name not in left_out]
    add_command(command, run, parameters, examples)


add_study_command(
    "lesion",
    "Delete or reorder units and measure the test error.",
    "lesion --blocks 1 --ranked",
    "lesion --blocks 1-20 --samples 50",
    "lesion --only 4,17 --per-class",
    "lesion --reorder 1-20",
    "lesion --greedy 20",
    "lesion --additivity 2-10",
    "lesion --blocks 1 --recalibrate 1000",
    "lesion --influence 1-3",
    "lesion --checkpoint preact110-cifar10 --data-dir DATA",
)
add_study_command(
    "paths",
    "Measure path lengths and the gradient by path length.",
    "paths",
    "paths --k 10 --samples 1000",
    "paths --exact --stages",
    "paths --lengths",
    "paths --exact --estimator image",
    "paths --cumulative",
)
add_study_command(
    "signal",
    "Measure activations and gradients by unit. Also the factors of shortcuts.",
    "signal",
    "signal --checkpoint preact110-cifar10 --data-dir DATA",
    "signal he2016/table1 --profile mini",
    "signal --iterative 1000",
    "signal --effects 500",
)
