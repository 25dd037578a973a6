"""Addresses: what stands before `://` or `:/`, and which of them raysd can open."""

import atexit
import re
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from raysd.errors import UserError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
AZURE = ("abfs", "abfss")
OTHER_AZURE = ("az", "adl", "wasb", "wasbs")
GOOGLE = ("gs", "gcs")
STORES = ("s3", *GOOGLE, *AZURE)
HADOOP = ("hdfs", "viewfs")
KNOWN = ("file", *STORES, *HADOOP)
CONNECT_SECONDS = 10.0
USE = "use a path, s3://, gs://, abfss:// or hdfs://"
AZURE_FORM = "abfss://container@account.dfs.core.windows.net/folder"
AZURE_HOST = re.compile(r"[a-z0-9$][a-z0-9-]*@[a-z0-9]+\.dfs\.[a-z0-9.-]+")
AZURE_OPTIONS, AZURE_DOMAIN = {"endpoint_override", "scheme"}, ".core.windows.net"
INSTEAD = {
    "s3a": "is written s3:// here",
    "s3n": "is written s3:// here",
    "dbfs": "is written /dbfs/... here, where Databricks mounts it",
    **dict.fromkeys(OTHER_AZURE, f"is a store of Azure, which is written {AZURE_FORM} here"),
}
NEEDS_HADOOP = (
    "needs Hadoop's libhdfs and Java here and on all nodes: set JAVA_HOME, HADOOP_HOME, and CLASSPATH to what "
    "`hadoop classpath --glob` prints"
)
CREDENTIALS = "leave the credentials out of the URI; set "
KEYS = {
    **dict.fromkeys(GOOGLE, "GOOGLE_APPLICATION_CREDENTIALS"),
    **dict.fromkeys((*AZURE, *OTHER_AZURE), "AZURE_STORAGE_ACCOUNT_KEY, or log in with az login"),
}
AWS_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def scheme_of(name: str) -> str | None:
    """Return the scheme of an address in small letters; None for a path on this machine."""
    found = SCHEME.match(name)
    return found[1].lower() if found and not Path(found[1] + ":").is_dir() else None


def check_address(field: str, name: str, use: str = USE) -> None:
    """Check an address of a folder or file; a path passes.

    Args:
        field: the setting that names it.
        name: the path or address.
        use: what the user can give instead.

    Raises:
        UserError: it is of an unknown kind, or holds credentials.
    """
    scheme = scheme_of(name)
    if scheme is None:
        return
    host, query = urlsplit(name).netloc, urlsplit(name).query
    before = host.rpartition("@")[0]
    names_container = scheme in (*AZURE, *OTHER_AZURE, *HADOOP)  # or a user, before the @
    options = parse_qs(query).keys()
    has_secret = "sig" in options or (scheme in (*AZURE, *OTHER_AZURE) and not options <= AZURE_OPTIONS)
    secret = query if has_secret else before if ":" in before or not names_container else ""
    if secret:
        keys = KEYS["abfss"] if host.endswith(AZURE_DOMAIN) else KEYS.get(scheme, AWS_KEYS)
        raise UserError(field, name.replace(secret, "***"), CREDENTIALS + keys)
    if scheme not in KNOWN:
        why = INSTEAD.get(scheme, f"begins with {scheme}:, which raysd does not open")
        raise UserError(field, name, f"{why}; {use}")
    if not name[len(scheme) :].startswith("://"):
        raise UserError(field, name, f"is no address; write it as {scheme}://...")
    if scheme in AZURE and not AZURE_HOST.fullmatch(host):
        raise UserError(field, name, f"names no container and account of Azure; write it as {AZURE_FORM}")
    if scheme == "file" and host not in ("", "localhost"):
        raise UserError(field, name, f"names the machine {host!r}; write a path on this one as file:///{host}/...")


class AzurePlace(NamedTuple):
    """A container of an Azure storage account, and the server that holds its blobs."""

    container: str
    account: str
    scheme: str
    host: str
    """Of a server for tests, or what follows the account's name, with a dot before it."""


def azure_place(parts: SplitResult) -> AzurePlace:
    """Return what an address of Azure names. Its query may name a server for tests: `endpoint_override`, `scheme`."""
    container, _, host = parts.netloc.partition("@")
    account, _, domain = host.partition(".")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    server = options.get("endpoint_override") or "." + re.sub(r"^dfs\.", "blob.", domain)
    return AzurePlace(container, account, options.get("scheme", "https"), server)


def check_reachable(uri: str, parts: SplitResult) -> None:
    """Check that a name node answers; Hadoop itself would try for minutes.

    Raises:
        UserError: nothing listens at its host and port.
    """
    if parts.scheme not in HADOOP or parts.hostname is None or parts.port is None:
        return
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError("storage", uri, f"no name node answers there ({error.strerror or error}); correct it") from None


def local_path(field: str, name: str, what: str = "it", instead: str = "") -> Path:
    """Return a path with `~` filled in, which may or may not be there.

    Args:
        field: the setting that names it.
        name: a path, or an address with `file://`.
        what: is read from there.
        instead: what may stand there as well, for the error.

    Raises:
        UserError: the user of `~` does not exist, no file can have this name, or it is an address of a store.
    """
    scheme = scheme_of(name)
    if scheme is not None:
        check_address(field, name, f"give a path{instead}, since {what} is read from a disk")
        if scheme != "file":
            remedy = f"{what} is read from a disk; copy it to one that all nodes see, and give its path"
            raise UserError(field, name, remedy)
        name = unquote(urlsplit(name).path)
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
        raise UserError(field, name, f"is no path that can be read ({reason}); check it") from None
    return path


def temporary_folder() -> Path:
    """Return a folder that is there as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="raysd-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
