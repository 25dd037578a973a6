"""Object stores that write an object only if it has not changed since it was read.

S3 and Azure take `If-None-Match: *` and `If-Match: <ETag>` with a PUT, Google Cloud Storage `ifGenerationMatch`.
pyarrow's file systems send neither, so these requests go through the providers' own clients: `boto3`,
`google-cloud-storage` and `azure-storage-blob`. A process has one client per server.
"""

import os
from collections.abc import Callable, Collection
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, urlsplit

from raysd.errors import UserError
from raysd.storage.address import AZURE, GOOGLE, azure_place
from raysd.storage.once import once_per_process

ATTEMPTS = 6
TIMEOUT_SECONDS = 60.0
PACKAGES = {
    "s3": ("boto3", "s3"),
    **dict.fromkeys(GOOGLE, ("google-cloud-storage", "gcs")),
    **dict.fromkeys(AZURE, ("azure-storage-blob", "azure")),
}
AZURE_KEY = "AZURE_STORAGE_ACCOUNT_KEY"
CHANGED_IN_AZURE = ("BlobAlreadyExists", "BlobNotFound", "ConditionNotMet")


class ConditionalStore(Protocol):
    """The objects of one server."""

    def read(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and the tag of this version; None when the object is missing."""

    def write(self, bucket: str, key: str, data: bytes, tag: str | None) -> bool:
        """Write an object that still has this tag, or is missing if the tag is None; return False if it changed."""


class S3Store:
    """Objects of S3, or of a compatible server.

    Args:
        options: the values of a URI's query: `endpoint_override`, `scheme`, `region`.
    """

    def __init__(self, options: dict[str, str]) -> None:
        import boto3
        from botocore.config import Config

        host = options.get("endpoint_override")
        config = Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            s3={"addressing_style": "path"} if host else {},
            request_checksum_calculation="when_required",  # not all servers know the newer checksums
            response_checksum_validation="when_required",
        )
        endpoint = f"{options.get('scheme', 'https')}://{host}" if host else None
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name=options.get("region"), config=config)

    def read(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and its ETag; None when the object is missing."""
        answer = self._ask(lambda: self.client.get_object(Bucket=bucket, Key=key), {"NoSuchKey", "404"})
        return None if answer is None else (answer["Body"].read(), answer["ETag"])

    def write(self, bucket: str, key: str, data: bytes, tag: str | None) -> bool:
        """Write an object that still has this tag; without conditions on a server that refuses them."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        changed = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey", "404"}
        try:
            return (
                self._ask(lambda: self.client.put_object(Bucket=bucket, Key=key, Body=data, **condition), changed)
                is not None
            )
        except NotImplementedError:
            self._ask(lambda: self.client.put_object(Bucket=bucket, Key=key, Body=data), set())
            return True

    def _ask(self, request: Callable[[], Any], expected: set[str]) -> Any:
        """Return the answer, or None for an expected error."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in expected:
                return None
            if code in ("NotImplemented", "501"):
                raise NotImplementedError from None
            raise OSError(f"{code}: {error}") from None
        except BotoCoreError as error:
            raise OSError(str(error)) from None


class GcsStore:
    """Objects of Google Cloud Storage.

    Args:
        options: the values of a URI's query: `endpoint_override`, `scheme`; they name a server for tests, which needs
            no login.
    """

    def __init__(self, options: dict[str, str]) -> None:
        from google.cloud import storage

        host = options.get("endpoint_override")
        if host:
            self.client = storage.Client.create_anonymous_client()
            self.client._connection.API_BASE_URL = f"{options.get('scheme', 'https')}://{host}"
        else:
            self.client = storage.Client()

    def read(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and its generation; None when the object is missing."""
        blob = self.client.bucket(bucket).blob(key)
        found = self._ask(lambda: (blob.download_as_bytes(timeout=TIMEOUT_SECONDS), str(blob.generation)), {404})
        return None if found is None else (found[0], found[1])

    def write(self, bucket: str, key: str, data: bytes, tag: str | None) -> bool:
        """Write an object that still has this generation."""
        blob = self.client.bucket(bucket).blob(key)
        generation = 0 if tag is None else int(tag)

        def upload() -> bool:
            blob.upload_from_string(data, if_generation_match=generation, timeout=TIMEOUT_SECONDS)
            return True

        return self._ask(upload, {412, 404}) is not None

    def list_folders(self, bucket: str, key: str) -> list[str]:
        """Return the sorted names of the folders directly in one; pyarrow finds only those that are objects."""
        prefix = f"{key}/" if key else ""

        def ask() -> list[str]:
            found = self.client.list_blobs(bucket, prefix=prefix, delimiter="/", timeout=TIMEOUT_SECONDS)
            for _ in found.pages:
                pass
            return sorted(name.removeprefix(prefix).rstrip("/") for name in found.prefixes)

        return self._ask(ask, {404}) or []

    def _ask(self, request: Callable[[], Any], expected: set[int]) -> Any:
        """Return the answer, or None for an expected error."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            return request()
        except GoogleAPIError as error:
            if getattr(error, "code", None) in expected:
                return None
            raise OSError(str(error)) from None
        except GoogleAuthError as error:
            raise OSError(str(error)) from None


class AzureStore:
    """Blobs of an Azure storage account.

    Args:
        uri: an address in the account.
    """

    def __init__(self, uri: str) -> None:
        from azure.storage.blob import BlobServiceClient

        place, credential = azure_place(urlsplit(uri)), os.environ.get(AZURE_KEY)
        if not credential:
            from azure.identity import DefaultAzureCredential

            credential = DefaultAzureCredential()
        is_domain = place.host.startswith(".")
        url = f"{place.account}{place.host}" if is_domain else f"{place.host}/{place.account}"
        options = {"connection_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS, "retry_total": ATTEMPTS}
        self.client = BlobServiceClient(f"{place.scheme}://{url}", credential=credential, **options)

    def read(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """Return a blob's bytes and its ETag; None when the blob is missing."""

        def download() -> tuple[bytes, str]:
            found = self.client.get_blob_client(bucket, key).download_blob()
            return found.readall(), found.properties.etag

        return self._ask(download, CHANGED_IN_AZURE)

    def write(self, bucket: str, key: str, data: bytes, tag: str | None) -> bool:
        """Write a blob that still has this ETag."""
        from azure.core import MatchConditions

        condition = {} if tag is None else {"etag": tag, "match_condition": MatchConditions.IfNotModified}
        blob = self.client.get_blob_client(bucket, key)
        return (
            self._ask(lambda: blob.upload_blob(data, overwrite=tag is not None, **condition), CHANGED_IN_AZURE)
            is not None
        )

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write a blob, over an older one if there is one; it is there as a whole, or not at all."""
        self._ask(lambda: self.client.get_blob_client(bucket, key).upload_blob(data, overwrite=True), ())

    def _ask(self, request: Callable[[], Any], expected: Collection[str]) -> Any:
        """Return the answer, or None for an expected error."""
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            return request()
        except HttpResponseError as error:
            code = str(getattr(error.error_code, "value", error.error_code)) if hasattr(error, "error_code") else ""
            if code in expected:
                return None
            raise OSError(f"HTTP status {error.status_code} {code}: {error.reason or error}") from None
        except AzureError as error:
            raise OSError(str(error).splitlines()[0]) from None


def conditional_store(uri: str) -> ConditionalStore:
    """Return the store that holds the folder of a URI.

    Raises:
        UserError: the package of that store is not installed, or the store is of an unknown kind.
    """
    parts = urlsplit(uri)
    if parts.scheme not in PACKAGES:
        raise UserError("storage", uri, "use a local path, s3://, gs:// or abfss://")
    package, extra = PACKAGES[parts.scheme]
    try:
        return _open_store(parts.scheme, parts.netloc if parts.scheme in AZURE else "", parts.query)
    except ImportError:
        raise UserError(
            "storage", uri, f"needs the package {package} on all nodes; pip install 'raysd[{extra}]'"
        ) from None


def azure_store(uri: str) -> AzureStore:
    """Return the client of the account that an address of Azure names; errors are those of `conditional_store`."""
    return cast(AzureStore, conditional_store(uri))


def google_store(uri: str) -> GcsStore:
    """Return the client of Google Cloud Storage; errors are those of `conditional_store`."""
    return cast(GcsStore, conditional_store(uri))


@once_per_process
def _open_store(scheme: str, netloc: str, query: str) -> ConditionalStore:
    if scheme in AZURE:
        return AzureStore(f"{scheme}://{netloc}?{query}")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    return S3Store(options) if scheme == "s3" else GcsStore(options)
