"""The commands: defined here once, for the program `pix2pix` and for the jobs of a cluster."""

import dataclasses
import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pix2pix.options import (
    Actors,
    Archive,
    Checkpoint,
    CleanSigma,
    DryRun,
    Embed,
    Gpu,
    MaxActors,
    MaxFailed,
    Output,
    Pairs,
    Precision,
    Quality,
    RedoOlderModels,
    Reference,
    RetryFailed,
    Run,
    Strength,
    Verbose,
)
from pix2pix.settings import Settings

if TYPE_CHECKING:
    from pix2pix.stages import Way

PARTIAL, OVER_BUDGET, GAPS = 3, 4, 5  # exit codes; 0 all well, 1 crash or refused, 2 wrong usage

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut long names of options off at 80 columns
    help="Trains a photo denoiser on pairs and maps it over archives of photographs.",
)  # fmt: skip


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `Settings` in place of `**settings`."""
    own = inspect.signature(command)
    options = [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=list(item.default) if isinstance(item.default, tuple) else item.default,
            annotation=Annotated[
                list[str] if isinstance(item.default, tuple) else item.type,
                typer.Option(help=item.metadata["help"]),
            ],
        )
        for item in dataclasses.fields(Settings)
    ]
    kept = [item for item in own.parameters.values() if item.kind is not item.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
    return command


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """The command with what it may raise told in a sentence, and exit code 1."""

    @functools.wraps(command)
    def reported(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the command's own
        try:
            command(*arguments, **options)
        except (typer.Exit, typer.BadParameter):  # RuntimeError, to Python
            raise
        except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
            if options.get("verbose"):
                traceback.print_exc()
            sys.stdout.flush()
            typer.echo(f"pix2pix: {error}", err=True)
            raise typer.Exit(1) from error

    return reported


@app.command()
@_reported
@_with_settings
def train(
    pairs: Pairs,
    run: Run,
    *,
    clean: Annotated[
        list[str], typer.Option(help="Also train on these clean photographs, with added noise.")
    ] = [],  # noqa: B006 - read only; Typer wants a list
    start: Annotated[
        str | None,
        typer.Option(help="Begin with the weights of this checkpoint (best: what ships)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share each batch.")] = 1,
    gpu: Gpu = False,
    max_failures: Annotated[
        int, typer.Option(min=0, help="Deaths of workers that are answered by a new start.")
    ] = 3,
    verbose: Verbose = False,
    **values: Any,  # noqa: ANN401 - one per field of Settings
) -> None:
    """Trains on pairs; the same command again goes on where it stopped."""
    try:
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        wanted = Settings(**values)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    from pix2pix import cluster, training

    with cluster.joined(verbose):
        done = training.trained(
            pairs, run, wanted, workers, gpu, max_failures, cluster.printed, tuple(clean), start
        )
    best = done.best
    cluster.printed(
        f"best checkpoint: epoch {best['epoch']}, PSNR {best['psnr_db']:.2f} dB on scenes it never "
        f"trained on, {best['psnr_db'] - best['noisy_psnr_db']:+.2f} dB over the noisy input\n"
        f"{best['url']}"
    )


@app.command()
@_reported
def denoise(
    archive: Archive,
    output: Output,
    checkpoint: Checkpoint = "best",
    *,
    strength: Strength = 1,
    quality: Quality = None,
    clean_sigma: CleanSigma = None,
    dry_run: DryRun = False,
    reference: Reference = None,
    embed: Embed = False,
    retry_failed: RetryFailed = None,
    redo_older_models: RedoOlderModels = False,
    max_failed: MaxFailed = "1%",
    actors: Actors = None,
    max_actors: MaxActors = None,
    gpu: Gpu = False,
    precision: Precision = "auto",
    verbose: Verbose = False,
) -> None:
    """Denoises one image, or what is new in an archive; the same again does what is missing."""
    from pix2pix import checkpoints, cluster, harm, single, summary
    from pix2pix.stages import Way

    one = single.is_one(archive, output)
    if one and embed:
        raise typer.BadParameter("--embed needs folders: one image alone has no status table")
    try:
        acceptable = summary.budget(max_failed)
        if not one:
            from pix2pix import denoising  # which loads Ray

            retry = denoising.failure_classes(retry_failed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    url, sha256 = checkpoints.identified(checkpoint)
    clean = harm.CLEAN_SIGMA if clean_sigma is None else clean_sigma
    way = Way(url, sha256, strength, quality, clean, precision, reference, embed)
    if one:
        with cluster.quiet(verbose):
            row = single.denoised(archive, output, way, gpu=gpu, write=not dry_run)
        cluster.printed(single.line(row))
        if row["status"] == "failed":
            raise typer.Exit(OVER_BUDGET if acceptable(1) < 1 else PARTIAL)
        return
    work: dict[str, Any] = {
        "retry": retry, "redo_older_models": redo_older_models, "actors": actors,
        "max_actors": max_actors, "gpu": gpu,
    }  # fmt: skip
    _denoise_archive(archive, output, way, work, None if dry_run else max_failed, verbose)


def _denoise_archive(
    archive: str, output: str, way: "Way", work: dict[str, Any], max_failed: str | None,
    verbose: bool,
) -> None:  # fmt: skip
    """Denoises what is new in an archive; only says what there is to do if `max_failed` is None."""
    from pix2pix import cluster, denoising, estimate, summary

    with cluster.joined(verbose):
        work = {**work, "show": cluster.printed}
        if max_failed is None:
            for text in estimate.lines(estimate.estimated(archive, output, way, **work)):
                cluster.printed(text)
            return
        done = denoising.denoised(archive, output, way, max_failed=max_failed, **work)
    for text in summary.lines(done):
        cluster.printed(text)
    if done.over_budget:
        raise typer.Exit(OVER_BUDGET)
    if done.failed:
        raise typer.Exit(PARTIAL)


@app.command()
@_reported
def verify(
    archive: Archive,
    output: Output,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look whether objects are there; don't read them.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Checks that every image has exactly one row of its present state, and its object is whole."""
    from pix2pix import cluster, verification

    with cluster.joined(verbose):
        result = verification.verified(archive, output, quick=quick, show=cluster.printed)
    for text in verification.lines(result):
        cluster.printed(text)
    if result.gaps:
        raise typer.Exit(GAPS)


@app.command()
@_reported
def evaluate(
    pairs: Pairs,
    checkpoint: Checkpoint = "best",
    *,
    report: Annotated[
        str | None, typer.Option(help="Folder for scores.parquet and a sheet of pictures.")
    ] = None,
    gpu: Gpu = False,
    scenes: Annotated[list[str], typer.Option(help="Only pairs of these scenes.")] = [],  # noqa: B006 - read only; Typer wants a list
    precision: Precision = "auto",
    verbose: Verbose = False,
) -> None:
    """Scores a checkpoint on pairs: PSNR and SSIM before and after, for every image."""
    from pix2pix import cluster, evaluation

    with cluster.joined(verbose):
        result = evaluation.scores(
            pairs, checkpoint, report_url=report, scenes=tuple(scenes), precision=precision,
            gpu=gpu, show=cluster.printed,
        )  # fmt: skip
    for text in evaluation.table(result):
        cluster.printed(text)


@app.command()
@_reported
def export(
    checkpoint: Annotated[str, typer.Argument(help="A run (its best), or one checkpoint.")],
    folder: Annotated[
        str, typer.Argument(help="Folder to make, as pix2pix/weights/best. Any URL.")
    ],
    *,
    pairs: Annotated[
        str | None,
        typer.Option(help="The pairs it was trained from: its card then has the scores of these."),
    ] = None,
    average: Annotated[
        list[str] | None,
        typer.Option(help="Another checkpoint, say of a run begun with this one: their mean."),
    ] = None,
) -> None:
    """Writes a checkpoint as it can be shipped: in half precision, without state."""
    from pix2pix import checkpoints, cluster, evaluation

    scored = functools.partial(evaluation.validated, pairs) if pairs else None
    with cluster.quiet():
        card = checkpoints.exported(checkpoint, folder, scored, average or ())
    cluster.printed(f"{folder}: SHA-256 {card['weights_sha256']}; PSNR {card['psnr_db']:.2f} dB")


@app.command()
@_reported
def report(
    source: Annotated[
        str, typer.Argument(metavar="OUTPUT|RUN", help="What `denoise` or `train` has filled.")
    ],
    folder: Annotated[str, typer.Argument(help="Folder for report.html, a page with pictures.")],
) -> None:
    """Writes a page that shows how a bulk job or a training went; it may still run."""
    from pix2pix import pages

    typer.echo(pages.written(source, folder))


def alone(command: Callable[..., None]) -> None:
    """Runs one command as a program of its own, with the arguments of this process."""
    program = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    program.command()(command)
    program()


def main() -> None:
    """The program `pix2pix`."""
    app()
