"""Errors of storages, as one sentence: those of one file, and those that concern all files of the storage."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdir.errors import InputError, UnreachableError
from ssdir.formatting import first_line
from ssdir.outputs import why_not_written

WEB, S3 = frozenset(["http", "https"]), frozenset(["s3", "s3a"])
"""The kinds of URI of web servers, each of which is a storage of its own, and of S3."""

# Errors of packages that may not be installed, by the names of their classes.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_NO_CREDENTIALS |= {"TokenRetrievalError", "SSOTokenLoadError"}  # S3
_NO_CREDENTIALS |= {"DefaultCredentialsError", "RefreshError", "ClientAuthenticationError"}  # Google, Azure
_NOT_REACHED = {"ConnectionError", "ClientConnectionError", "HTTPClientError", "TimeoutError", "gaierror"}
_NOT_REACHED |= {"ServiceRequestError", "ServiceResponseError"}  # Azure
# Codes in the answers of S3, Google and web servers.
_OVERLOADED = {"SlowDown", "ServiceUnavailable", "InternalError", "429", "500", "502", "503", "504"}
_BAD_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401"}
# Errors of this machine, or of a network's file system: another file would have them too.
_OF_ALL_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
_OF_ALL_FILES |= {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}


def protocol_of(location: Path | str) -> str:
    """Returns the kind of a URI, such as `s3`; empty for a local path."""
    return location.partition("://")[0].lower() if isinstance(location, str) else ""


@contextmanager
def explaining(location: Path | str, action: str = "read") -> Iterator[None]:
    """Raises what a file system raises as one sentence about the location."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        problem, is_unreachable = _problem(location, error, action)
        raise (UnreachableError if is_unreachable else InputError)(f"'{location}' {problem}") from None


def _problem(location: Path | str, error: Exception, action: str) -> tuple[str, bool]:
    """Returns the end of a sentence, and whether the error concerns all files of the storage."""
    if isinstance(error, FileNotFoundError):
        return f"does not exist{' (no such bucket)' if 'specified bucket' in str(error) else ''}", False
    if isinstance(error, IsADirectoryError):
        return "is a folder, a file is expected", False
    if isinstance(location, str):
        return _problem_elsewhere(location, error, action)
    if isinstance(error, PermissionError):
        return f"may not be {action} (permission denied)", False
    return f"can't be {action} ({why_not_written(error) or first_line(error)})", is_of_all_files(error)


def is_of_all_files(error: Exception) -> bool:
    """Returns whether an error of a local file says nothing about the file, such as too many open ones."""
    return isinstance(error, OSError) and error.errno in _OF_ALL_FILES


def _problem_elsewhere(uri: str, error: Exception, action: str) -> tuple[str, bool]:
    """Returns what `_problem` does, for a storage elsewhere."""
    names, code, protocol = _class_names(error), _code(error), protocol_of(uri)
    is_web, detail = protocol in WEB, first_line(error)
    if names & _NO_CREDENTIALS:
        advice = "set AWS_PROFILE, or FSSPEC_S3_ANON=true if it is public" if protocol in S3 else "log in first"
        return f"can't be {action}: no credentials were found ({advice})", True
    if code in _BAD_CREDENTIALS and not is_web:
        return f"can't be {action}: the credentials are not valid ({detail})", True
    if isinstance(error, PermissionError) or code in ("401", "403"):
        return f"may not be {action} (access denied: check the credentials)", False
    if names & _NOT_REACHED:
        where = "the address" if is_web else "the endpoint or the network"
        return f"can't be reached: check {where} ({detail})", not is_web
    if code in _OVERLOADED:
        return f"can't be {action}: the server fails or is overloaded ({detail})", not is_web
    return f"can't be {action} ({detail})", False


def may_pass(error: Exception) -> bool:
    """Returns whether a request to a web server may succeed later."""
    return _code(error) in _OVERLOADED or bool(_class_names(error) & (_NOT_REACHED | {"ClientPayloadError"}))


def _class_names(error: Exception) -> set[str]:
    """Returns the names of an error's class and of those above it."""
    return {kind.__name__ for kind in type(error).__mro__}


def _code(error: BaseException) -> str:
    """Returns the code of a server's answer, in S3's words or HTTP's numbers; empty if there was none."""
    if status := getattr(error, "status", None) or getattr(error, "code", None):
        return str(status)
    response = getattr(error.__cause__ or error, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) and "Error" in response else ""
