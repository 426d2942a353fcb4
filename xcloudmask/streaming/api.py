"""`stream` and `to_zarr`: normalise, lock, plan, run, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from xcloudmask.errors import CloudMaskError, StoreError, StreamWarning, warn_user
from xcloudmask.scene.aux_inputs import AuxLike
from xcloudmask.store.fingerprint import describe_contract
from xcloudmask.store.ledger import DONE
from xcloudmask.store.lock import FOLDER, Lock
from xcloudmask.store.packing import choose_compressors, choose_packing
from xcloudmask.store.retry import brief
from xcloudmask.store.sink import Output, open_sink
from xcloudmask.store.sizes import Sizes, choose_sizes
from xcloudmask.store.store import Target, open_store
from xcloudmask.streaming.bind import prepare_run
from xcloudmask.streaming.progress import ProgressEvent, choose_display
from xcloudmask.streaming.report import StreamReport
from xcloudmask.streaming.source import Source, from_mask, from_reflectance
from xcloudmask.types import ModelSpec

log = logging.getLogger("xcloudmask.streaming")

Progress = bool | Callable[[ProgressEvent], None]


def stream(
    source: xr.DataArray,
    store: Any,
    model: str | ModelSpec = "auto",
    *,
    group: str | None = None,
    append_dim: str = "time",
    output: Literal["classes", "probabilities"] = "classes",
    threshold: float | None = None,
    scheme: str = "default",
    patch_size: int | None = None,
    overlap: int | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    resolution: str | float = "auto",
    nodata: float | None = None,
    valid: xr.DataArray | None = None,
    aux: AuxLike | None = None,
    tta: bool | int = False,
    uncertainty: bool = False,
    resume: bool = True,
    overwrite: bool = False,
    chunks: Sizes | None = None,
    shards: Sizes | Literal[False] | None = None,
    encoding: Mapping[str, Any] | None = None,
    progress: Progress = True,
    regions_in_flight: int | None = None,
    retries: int = 2,
    storage_options: dict[str, Any] | None = None,
) -> StreamReport:
    """Predict a mask region by region, straight into a Zarr store; a stopped call resumes.

    Every window is inferred once, memory depends on the regions in flight and not on the source, and the
    result is that of ``source.cloudmask.predict(...)``, pixel for pixel. With a Dask client its workers read,
    infer and write; without one, threads of this process do.

    Parameters
    ----------
    source : DataArray
        Reflectance, as `predict` takes it; Dask-backed or not.
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        Where to write. To a repository one commit is made for each batch of regions, whose message names the
        scenes; a session is the caller's transaction, who commits it. Both are written by threads of this
        process, also where there is a Dask client. ``"icechunk:PATH"`` and ``"icechunk:s3://bucket/prefix"``
        are repositories, which are made where there are none.
    model, threshold, scheme, patch_size, overlap, batch_size, device, dtype, resolution, nodata, valid
        As of `predict`.
    aux, tta
        As of `predict`.
    uncertainty : bool
        As of `predict_proba`; with ``output="probabilities"``.
    group : str, optional
        Group within the store; one mask lives in one group.
    append_dim : str
        Dimension along which later calls may add steps. Without that dimension nothing can be appended.
    output : {"classes", "probabilities"}
        What to predict.
    resume : bool
        Go on with a store that exists. Only what is not recorded as done is made. False: refuse such a store.
    overwrite : bool
        Replace a mask that was made otherwise.
    chunks, shards : mapping or sequence of int, optional
        Zarr chunk and shard sizes; by default 512 and 2048 pixels of one step. ``shards=False``: no shards.
    encoding : mapping, optional
        ``dtype``: for probabilities ``"uint8"`` (scaled, the default), ``"float16"`` or ``"float32"``;
        ``compressors``: Zarr codecs.
    progress : bool or callable
        A bar; or a function that is called with each `ProgressEvent`.
    regions_in_flight : int, optional
        How many regions are held at once; memory is in proportion. In threads one is read at a time,
        whatever their number. By default 2, or two for each thread of a cluster, as it grows and shrinks.
    retries : int
        How often a region that fails (its source, or too many workers died of it) is tried again before it is
        recorded as failed.
    storage_options : dict, optional
        For fsspec URLs; for an Icechunk repository ``{"branch": ...}``, by default ``"main"``, and for one
        on an object store what `icechunk.s3_storage` takes.

    Returns
    -------
    StreamReport
        What was written, skipped and failed.

    Raises
    ------
    ContractError
        The store holds something else; both values are shown.
    StoreError
        The store refuses (read-only, full, no permission), or does not answer for some minutes.
    StoreLockedError
        Another process is writing there.
    ClusterError
        The Dask cluster is gone, or all of its workers have been for an hour.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xcloudmask
    >>> from xcloudmask.streaming import stream
    >>> from xcloudmask.testing import TOY
    >>> da = xr.DataArray(np.full((2, 90, 90), 0.2, "f4"), dims=("band", "y", "x"))
    >>> da = da.cloudmask.describe(bands=["red", "nir"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = stream(da, folder, TOY, resolution="native", progress=False)
    ...     xr.open_zarr(folder).cloud_mask.shape
    (90, 90)
    >>> report.regions, report.complete
    (1, True)
    """
    from xcloudmask.predict.options import Request

    if not isinstance(source, xr.DataArray):
        raise CloudMaskError(
            f"stream takes a DataArray of reflectance, not a {type(source).__name__}; "
            "for STAC items use xcloudmask.load_stac first, for a Dataset ds.to_dataarray('band')"
        )
    request = Request(
        output=output, model=model, threshold=threshold, scheme=scheme, patch_size=patch_size,
        overlap=overlap,
        batch_size=batch_size, device=device, dtype=dtype, resolution=resolution, nodata=nodata, valid=valid,
        aux=aux, tta=tta, uncertainty=uncertainty,
    )  # fmt: skip
    return _write(
        from_reflectance(source, request), Target(open_store(store, storage_options), group or ""),
        append_dim=append_dim, resume=resume, overwrite=overwrite, chunks=chunks, shards=shards,
        encoding=encoding, progress=progress, in_flight=regions_in_flight, retries=retries,
    )  # fmt: skip


def to_zarr(
    mask: xr.DataArray,
    store: Any,
    *,
    group: str | None = None,
    append_dim: str = "time",
    resume: bool = True,
    overwrite: bool = False,
    chunks: Sizes | None = None,
    shards: Sizes | Literal[False] | None = None,
    encoding: Mapping[str, Any] | None = None,
    progress: Progress = True,
    regions_in_flight: int | None = None,
    retries: int = 2,
    storage_options: dict[str, Any] | None = None,
) -> StreamReport:
    """Write a mask to a Zarr store, region by region; a stopped call resumes.

    A lazy mask straight from ``predict`` or ``predict_proba`` is made as by `stream`: each window once. A
    mask that was changed since (sliced, buffered, ...) is computed as its graph says, a region at a time, so
    windows at the edges of regions are inferred for each region that uses them.

    The parameters, the result and the errors are those of `stream`.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xcloudmask
    >>> from xcloudmask.streaming import to_zarr
    >>> mask = xr.DataArray(np.zeros((90, 90), "u1"), dims=("y", "x"), name="cloud_mask")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_zarr(mask, folder, progress=False).written
    1
    """
    return _write(
        from_mask(mask), Target(open_store(store, storage_options), group or ""),
        append_dim=append_dim, resume=resume, overwrite=overwrite, chunks=chunks, shards=shards,
        encoding=encoding, progress=progress, in_flight=regions_in_flight, retries=retries,
    )  # fmt: skip


def _write(
    source: Source,
    target: Target,
    *,
    append_dim: str,
    resume: bool,
    overwrite: bool,
    chunks: Sizes | None,
    shards: Sizes | Literal[False] | None,
    encoding: Mapping[str, Any] | None,
    progress: Progress,
    in_flight: int | None,
    retries: int,
) -> StreamReport:
    """Do what `stream` and `to_zarr` promise."""
    template = source.template
    if in_flight is not None and (isinstance(in_flight, bool) or in_flight < 1):
        raise CloudMaskError(f"regions_in_flight={in_flight!r} must be a whole number above 0")
    display = choose_display(progress, str(template.name))
    dims = [str(dim) for dim in template.dims]
    storage = choose_sizes(dims, template.shape, source.spatial, source.class_dim, chunks, shards)
    packing = choose_packing(template.dtype, source.class_dim is not None, encoding)
    grows = append_dim if append_dim in dims[: len(storage.layout.lead)] else None
    contract = describe_contract(template, source.spatial, grows, storage, packing, source.plan)
    compressors = choose_compressors(packing, encoding)
    output = Output(template, grows, storage, packing, compressors, contract)

    lock = Lock(target)
    lock.acquire()
    try:
        sink = open_sink(target, output, resume=resume, overwrite=overwrite)
        _sweep(target, output)
        run = prepare_run(source, target, output, sink, lock, in_flight)
        run.display, run.retries = display, retries
        run.go()
        if (sink.ledger.states == DONE).all():
            target.delete_tree(FOLDER, "strips")
        if run.batch is not None:
            run.batch.commit()
    finally:
        _release(lock)
    report = StreamReport(
        target.label, output.name, len(run.regions), run.written, run.skipped, tuple(run.failures),
        run.pixels / 1e6, run.seconds,
    )  # fmt: skip
    log.info("%s", report)
    if not report.complete:
        warn_user(str(report), StreamWarning)
    return report


def _release(lock: Lock) -> None:
    """Give the lock back; where the store does not answer, it lapses by itself."""
    try:
        lock.release()
    except StoreError as error:
        log.warning("the lock could not be given back, and lapses in a while: %s", brief(error))


def _sweep(target: Target, output: Output) -> None:
    """Clear away what a kill left half written, here and in no group within."""
    names = [str(name) for name in output.template.coords]
    target.sweep(output.name, *names, "spatial_ref", f"{FOLDER}/status", f"{FOLDER}/strips")
    replace(target, group=target.path(FOLDER)).sweep()
