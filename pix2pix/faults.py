"""What may go wrong with storage: which errors pass, how often we try again, what class a row gets.

Stores raise errors of many libraries; whoever calls `retried` sees built-in OSErrors only.
"""

import errno
import functools
import random
import time
from collections.abc import Callable
from typing import Literal, NoReturn, TypeVar

# Ours are the only retries: botocore's own (5 attempts) and s3fs's two nested loops (5 x 5) are
# switched off, or one read could cost 5 * 5 * 5 * 5 = 625 requests.
ATTEMPTS = 8  # about half a minute together, if all fail at once
BACKOFF_SECONDS = 0.5  # the longest wait after the first failure; doubles with every further one
BACKOFF_LIMIT_SECONDS = 20.0
CHANCE = random.SystemRandom()  # Keras draws the weights' seeds from the common one meanwhile

_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529}
_TRANSIENT_CODES = {  # those that may come with another status, mostly 400
    *("SlowDown", "RequestTimeout", "InternalError", "OperationAborted", "IncompleteBody"),
    *("BadDigest", "XAmzContentSHA256Mismatch", "Throttling", "ThrottlingException"),
    "ConditionalRequestConflict",
}
_TRANSIENT_ERRNOS = {
    *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.EREMOTEIO),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
_ERRNOS: dict[type, int] = {  # s3fs raises these without a number
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
}

T = TypeVar("T")


def failure_class(error: BaseException) -> Literal["transient_io", "not_found", "forbidden"] | None:
    """The class of an error that storage raised, as the status table names it, if it has one.

    What was tried `ATTEMPTS` times in vain is a TimeoutError or a ConnectionError. What is not
    tried again is a FileNotFoundError, a PermissionError or another OSError (no space, name too
    long, a folder in the way). `__cause__` is the original.
    """
    if isinstance(error, TimeoutError | ConnectionError):
        return "transient_io"
    if isinstance(error, FileNotFoundError):
        return "not_found"
    return "forbidden" if isinstance(error, PermissionError) else None


def retried(verb: str, place: str, call: Callable[[], T]) -> T:
    """What `call()` returns; tried again with exponential backoff, full jitter.

    Args:
        verb: what it does, for the error's words.
        place: the canonical URL at which it does it.
        call: asks the store once.

    Raises:
        OSError: see `failure_class`; a transient one only after `ATTEMPTS` attempts.
    """
    attempt = 1
    while True:
        try:
            return call()
        except _errors(place) as error:
            if attempt == ATTEMPTS or not _is_transient(error):
                raise_plain(verb, place, error, attempt)
        longest_seconds = min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2 ** (attempt - 1))
        time.sleep(CHANCE.uniform(0, longest_seconds))
        attempt += 1


def raise_plain(verb: str, place: str, error: Exception, attempts: int) -> NoReturn:
    """Raises `error` as one of the built-in OSErrors that `failure_class` knows."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = f"cannot {verb} {place}: {reason}"
    if _is_transient(error):
        timeout = isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
        kind = TimeoutError if timeout else ConnectionError
        raise kind(f"{text} (tried {attempts} times)") from error
    number = getattr(error, "errno", None) or _ERRNOS.get(type(error), errno.EIO)
    if "Credentials" in type(error).__name__:
        number = errno.EACCES
    raise OSError(number, text) from error


def _errors(place: str) -> tuple[type[Exception], ...]:
    """What a call can raise on behalf of the store."""
    if not place.startswith("s3:"):
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError, *_broken_transfers())


@functools.cache
def _broken_transfers() -> tuple[type[Exception], ...]:
    """What s3fs lets through, as it is, when a transfer breaks on the way."""
    import aiohttp
    from botocore import exceptions, parsers

    return (
        *(exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError),
        *(exceptions.ChecksumError, exceptions.FlexibleChecksumError),
        *(parsers.ResponseParserError, aiohttp.ClientError),
    )


def _is_transient(error: Exception) -> bool:
    """Whether trying again may help; an HTTP answer decides, before s3fs's translation of it."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = response.get("Error", {}).get("Code")
        return status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    foreign = type(error).__module__ != "builtins"  # spares local files the imports
    return foreign and isinstance(error, _broken_transfers())
