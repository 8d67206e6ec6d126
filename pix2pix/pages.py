"""`pix2pix report`: one page that says how a bulk job or a training went, with pictures."""

from pix2pix import checkpoints, manifest, output_page, run_page, stages, storage, table

FILE = "report.html"


def written(source_url: str, folder_url: str) -> str:
    """The URL of the page, which is in the folder now.

    Args:
        source_url: An output or a run, whichever it is.
        folder_url: Where the page goes, under the name `FILE`; an earlier one is replaced.

    Raises:
        FileNotFoundError: the source is neither, or a run without a finished epoch.
        ValueError: the folder is a place for other things.
        OSError: the source could not be read, or the page not be written.
    """
    source_url, folder_url = storage.absolute(source_url), storage.absolute(folder_url)
    if manifest.archive(source_url) or table.parts(source_url):
        _refuse(source_url, folder_url)
        page = output_page.page(source_url)
    elif storage.exists(storage.join(source_url, checkpoints.HISTORY)):
        page = run_page.page(source_url)
    elif storage.exists(storage.join(source_url, checkpoints.SETTINGS)):
        raise FileNotFoundError(
            f"{source_url} has no {checkpoints.HISTORY} yet: if it is a RUN, wait for the end of "
            "its first epoch"
        )
    else:
        raise FileNotFoundError(
            f"{source_url} must be the OUTPUT of `pix2pix denoise` (with {manifest.FOLDER}/ and "
            f"{table.FOLDER}/) or the RUN of `pix2pix train` (with {checkpoints.HISTORY}); it has "
            "neither: give the folder that one of these commands was given"
        )
    url = storage.join(folder_url, FILE)
    storage.write(url, page)
    return url


def _refuse(output_url: str, folder_url: str) -> None:
    """Returns only if a file in the folder is in nobody's way."""
    own = [
        storage.join(output_url, name) for name in (stages.IMAGES, table.FOLDER, manifest.FOLDER)
    ]
    for place in filter(None, (manifest.archive(output_url), *own)):
        if storage.inside(folder_url, place):
            rule = f"must not lie in {place}, which holds other things; choose another folder"
            raise ValueError(f"folder={folder_url} {rule}")
