"""How bytes are fetched: retries, URL patches, what GDAL is told, and what an error says.

Authentication stays the user's: a function that patches URLs, GDAL's own settings, or a file system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from xcloudmask.errors import AssetError, CloudMaskError, NoDataWarning, OptionError, warn_user
from xcloudmask.stac.assumptions import name_items
from xcloudmask.stac.opening import check_host, gdal_path, is_local, open_raster, read_bounded
from xcloudmask.store import retry

OnError = Literal["raise", "skip"]
T = TypeVar("T")
R = TypeVar("R")

_SKIP = "on_error='skip' makes it no data."
_REMOTE = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/:/vsiadls/"

#: What helps, by the name of the fault.
_REMEDIES: dict[str, str] = {
    "refused": "The server refuses the credentials: pass patch_url=, or gdal_env= (AWS_ACCESS_KEY_ID, ...).",
    "absent": "The file is not there: leave the item out, or correct its address with patch_url=.",
    "busy": "Given up after {retries} retries: raise retries=, or try later.",
    "broken": "Given up after {retries} retries: raise retries= or timeout=, or try later.",
    "short": "The file is truncated or damaged: leave the item out.",
    "unclear": "The file is not there, or no image that is opened: a login page, or anything but GeoTIFF and"
    " JPEG 2000. Leave it out, or pass patch_url=.",
    "other": "The file may be damaged or of another kind than the catalogue says: leave the item out.",
}


@dataclass(frozen=True, slots=True)
class Transport:
    """How assets are fetched; goes into the task graph, so it holds no open connection."""

    retries: int = 4  # after the first attempt, for faults that may pass (429, 5xx, broken connections)
    timeout: float = 60.0  # seconds that one request may take
    on_error: OnError = "raise"  # what happens when an asset cannot be read at last
    patch_url: Callable[[str], str] | None = None  # of each URL just before it is opened: signatures expire
    gdal_env: tuple[tuple[str, str], ...] = ()
    filesystem: Any = None  # of fsspec; opens the assets in GDAL's place
    allow_private_hosts: bool = True  # may be read, if the environment does not forbid them
    own_vrt: bool = False  # an address may be the text of a VRT, as `xcloudmask.local` writes it

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise OptionError("on_error", self.on_error, allowed=("raise", "skip"))
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise OptionError("retries", self.retries, hint="Give a whole number, 0 or more.")
        seconds: object = self.timeout
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            raise OptionError("timeout", self.timeout, hint="Give seconds, above 0.")
        if self.patch_url is not None and not callable(self.patch_url):
            raise OptionError("patch_url", self.patch_url, hint="Give a function from URL to URL.")
        if self.filesystem is not None and not hasattr(self.filesystem, "open"):
            hint = "Give an fsspec file system: fsspec.filesystem('s3'), for instance."
            raise OptionError("filesystem", self.filesystem, hint=hint)

    def settings(self) -> dict[str, str]:
        """Return what GDAL is told; what the user set in the environment or `gdal_env` wins."""
        defaults = {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no hunt for side-car files
            "GDAL_HTTP_MAX_RETRY": str(self.retries),
            "GDAL_HTTP_RETRY_DELAY": str(retry.FIRST_DELAY),
            "GDAL_HTTP_TIMEOUT": str(self.timeout),
            "GDAL_HTTP_CONNECTTIMEOUT": str(min(self.timeout, 15.0)),
            "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
            "GDAL_HTTP_MULTIRANGE": "YES",
        }
        ours = {name: value for name, value in defaults.items() if name not in os.environ}
        return {**ours, **dict(self.gdal_env)}

    def environment(self, more: Mapping[str, str] | None = None) -> Any:
        """Return the context in which GDAL reads; `more` settings win over all others."""
        from rasterio import Env
        from rasterio.session import Session

        settings = {**self.settings(), **(more or {})}
        keys = {name: settings.pop(name) for name in list(settings) if name.startswith("AWS_")}
        if not keys:
            return Env(**settings)

        class Given(Session):  # type: ignore[misc]
            """Rasterio takes keys from a session only; those of its own making need boto3."""

            def get_credential_options(self) -> dict[str, str]:
                return keys

        return Env(session=Given(), **settings)

    def url(self, href: str, *, remote: bool = False) -> str:
        """Return the address that is opened for `href`, of an item that may have come from elsewhere."""
        url = self.patch_url(href) if self.patch_url is not None else href
        if not isinstance(url, str):
            raise AssetError(f"patch_url= gave {url!r} for {href.split('?', 1)[0]}: it must return a URL.")
        if remote and url == href and is_local(url):
            raise AssetError(
                f"{url[:200]!r} is a path of this machine, and the item is from a catalogue elsewhere, whose"
                " items may name no such paths. If it was you who put it there, remove the item's links:"
                " modifier=lambda item: item.update(links=[])."
            )
        return url

    def path(self, url: str) -> str:
        """Return what is handed to `open_raster` for an address."""
        if self.filesystem is not None or (self.own_vrt and url.startswith("<VRTDataset")):
            return url
        return gdal_path(url, private=self.allow_private_hosts)


def forget_failures(path: str, transport: Transport) -> None:
    """Make GDAL ask again.

    It remembers for the life of the process that a file "does not exist", or half a block, also where the
    server only hung up. Closing a file that was opened as one that is not to be cached clears that.
    """
    once = {"CPL_VSIL_CURL_NON_CACHED": _REMOTE, "GDAL_HTTP_MAX_RETRY": "0"}
    with transport.environment(once), suppress(Exception):
        open_raster(path).close()


def explain(
    item_id: str, key: str, url: str, error: BaseException, transport: Transport, access: str = ""
) -> AssetError:
    """Return the error that names item, asset, cause and remedy. Query strings (signatures) are left out."""
    shown = " ".join(url.split("?", 1)[0].split())[:300]
    text = " ".join(retry.messages(error).replace(url, shown).split()).rstrip(".")
    parts = [f"item {item_id!r}, asset {key!r} ({shown}) cannot be read: {text}."]
    if access:
        parts.append(f"The item says of it: {access}.")
    if not isinstance(error, AssetError):
        remedy = _REMEDIES.get(retry.classify(error).name, _REMEDIES["other"])
        parts.append(remedy.format(retries=transport.retries))
    return AssetError(" ".join([*parts, _SKIP]))


def as_warning(error: AssetError) -> str:
    """Return what is said where `explain`'s error is not raised."""
    return str(error).replace(_SKIP, "Taken as no data.")


def warn_anywhere(message: str) -> None:
    """Warn, also when this runs on a worker of a cluster: there the client gets to see it."""
    import sys

    if "distributed" in sys.modules:
        from distributed import get_worker
        from distributed.worker import warn as warn_client

        try:
            get_worker()
        except ValueError:
            pass
        else:
            warn_client(message, NoDataWarning)
            return
    warn_user(message, NoDataWarning)


def for_each(
    call: Callable[[T], R], items: Sequence[T], name_of: Callable[[T], str], on_error: OnError
) -> list[R]:
    """Return what `call` makes of each item, several at a time, as many cost a request each.

    With ``on_error="skip"`` an item for which it raises an `AssetError` is left out, with one warning for
    all; it is an error if none is left.
    """
    lost: dict[str, AssetError] = {}

    def attempt(item: T) -> R | None:
        try:
            return call(item)
        except AssetError as error:
            if on_error == "raise":
                raise
            lost[name_of(item)] = error
            return None

    with ThreadPoolExecutor(max_workers=8) as pool:
        made = [result for result in pool.map(attempt, items) if result is not None]
    if lost:
        warn_anywhere(f"{name_items(sorted(lost))}: left out. {lost[min(lost)]}")
    if not made:
        raise CloudMaskError("no item is left: every one was left out, for the reasons in the warning")
    return made


def make_read_text(transport: Transport) -> Callable[..., str]:
    """Return the function that fetches a small text (a Landsat MTL) for the planner."""

    def read_text(href: str, *, remote: bool = False) -> str:
        import fsspec

        url = transport.url(href, remote=remote)
        shown = url.split("?", 1)[0]

        def fetch() -> bytes:
            if transport.filesystem is not None:
                with transport.filesystem.open(url, "rb") as file:
                    return read_bounded(file, shown)
            path = transport.path(url)  # refuses what is no plain address: fsspec knows chains of its own
            if url.startswith(("http://", "https://")):
                return _read_http(url, transport.timeout, transport.allow_private_hosts)
            options = s3_options(dict(transport.gdal_env)) if url.startswith("s3://") else {}
            with fsspec.open(path if is_local(url) else url, "rb", **options) as file:
                return read_bounded(file, shown)

        try:
            return retry.repeat(fetch, transport.retries, shown).decode("utf-8")
        except ImportError as error:
            raise AssetError(f"{url} needs s3fs: pip install s3fs ({error}).") from error
        except (OSError, ValueError) as error:
            raise AssetError(f"{shown} cannot be read: {retry.messages(error)}.") from error

    return read_text


def s3_options(gdal_env: Mapping[str, str]) -> dict[str, Any]:
    """Return for s3fs what GDAL has for S3, from `gdal_env` and the environment: one account for both.

    Examples
    --------
    >>> s3_options({"AWS_S3_ENDPOINT": "127.0.0.1:9000", "AWS_HTTPS": "NO", "AWS_REQUEST_PAYER": "requester"})
    {'requester_pays': True, 'endpoint_url': 'http://127.0.0.1:9000'}
    """
    settings = {**os.environ, **gdal_env}
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    options: dict[str, Any] = {ours: settings[name] for name, ours in names.items() if name in settings}
    if settings.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1", "ON"):
        options = {"anon": True}
    if settings.get("AWS_REQUEST_PAYER") == "requester":
        options["requester_pays"] = True
    endpoint = settings.get("AWS_S3_ENDPOINT")
    if endpoint:
        plain = settings.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "0", "OFF")
        options["endpoint_url"] = (
            endpoint if "://" in endpoint else f"http{'' if plain else 's'}://{endpoint}"
        )
    return options


def _read_http(url: str, timeout: float, private: bool) -> bytes:
    from http.client import HTTPMessage
    from typing import IO
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Checked(HTTPRedirectHandler):
        """Follows no redirection to a host that is not to be reached."""

        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
        ) -> Request | None:
            check_host(newurl, private)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    try:
        with build_opener(Checked).open(url, timeout=timeout) as answer:
            return read_bounded(answer, url.split("?", 1)[0], timeout)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise


def freeze_env(gdal_env: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Return GDAL settings as a sorted, hashable tuple of texts.

    Examples
    --------
    >>> freeze_env({"AWS_HTTPS": False})
    (('AWS_HTTPS', 'NO'),)
    """
    if gdal_env is not None and not isinstance(gdal_env, Mapping):
        raise OptionError("gdal_env", gdal_env, hint="Give a mapping of GDAL's names to values.")
    words = {True: "YES", False: "NO"}
    pairs = {
        str(name): words[value] if isinstance(value, bool) else str(value)
        for name, value in (gdal_env or {}).items()
    }
    return tuple(sorted(pairs.items()))
