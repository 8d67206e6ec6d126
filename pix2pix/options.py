"""What the commands take: the arguments and options of `cli.py`, each with its rule and help."""

from typing import Annotated

import typer

Pairs = Annotated[
    str, typer.Argument(help="Pairs: SIDD's layout, or two folders noisy/ and clean/. Any URL.")
]
Run = Annotated[str, typer.Argument(help="Folder of the run: checkpoints, history, curves.")]
Archive = Annotated[
    str,
    typer.Argument(help="Folder of images, .parquet or .csv list, or one image; never written to."),
]
Output = Annotated[
    str, typer.Argument(help="Folder to fill: images/, status/, ...; of one image, a new file.")
]
Checkpoint = Annotated[
    str,
    typer.Option(
        help="best: what ships. Or a run (its best checkpoint is taken), or one checkpoint. "
        "Any URL; a folder of yours called best is ./best."
    ),
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: what's fast here.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="Give every worker a GPU.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show what Ray, TensorFlow and the workers say, too.")
]
Strength = Annotated[float, typer.Option(min=0, max=1, help="Share of the noise to take.")]
Quality = Annotated[
    int | None, typer.Option(min=1, max=100, help="Of lossy formats (default: as the source).")
]
CleanSigma = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Noise level up to which an image is left alone; 0 also denoises one of which "
        "less than a level would be taken.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what there is to do; write nothing.")]
Reference = Annotated[
    str | None, typer.Option(help="Folder of clean images under the same names, for PSNR.")
]
Embed = Annotated[
    bool,
    typer.Option(
        "--embed",
        help="Put each file into its row of the status table too (column denoised). What is "
        "done already stays as it is.",
    ),
]
RetryFailed = Annotated[
    str | None,
    typer.Option(
        is_flag=False, flag_value="all", metavar="[=CLASS,...]",
        help="Try once more what failed before, all of it or some classes.",
    ),
]  # fmt: skip
RedoOlderModels = Annotated[
    bool, typer.Option("--redo-older-models", help="Also do what other weights have done.")
]
MaxFailed = Annotated[
    str, typer.Option(help="Acceptable failures, 12 or 1%; beyond them the exit code is 4.")
]
MaxActors = Annotated[
    int | None, typer.Option(
        min=1, help="Up to so many as an autoscaling cluster grows (default: as at the start)."
    )
]  # fmt: skip
Actors = Annotated[
    int | None, typer.Option(min=1, help="Processes that denoise (default: what fits).")
]
