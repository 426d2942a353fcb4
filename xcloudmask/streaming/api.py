"""`stream` and `to_zarr`: normalise, lock, plan, run, report."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import xarray as xr

from xcloudmask.errors import CloudMaskError, OptionError, StoreError, StreamWarning, warn_user
from xcloudmask.predict.fields import spelled_out
from xcloudmask.predict.options import PredictOptions
from xcloudmask.stac.write import address_of, save, stac_of, where_and_when
from xcloudmask.store.fingerprint import describe_contract
from xcloudmask.store.ledger import DONE
from xcloudmask.store.lock import FOLDER, Lock
from xcloudmask.store.options import WriteOptions
from xcloudmask.store.overviews import PLACE, settle_overviews
from xcloudmask.store.packing import choose_compressors, choose_packing
from xcloudmask.store.retry import brief
from xcloudmask.store.sink import Output, open_sink
from xcloudmask.store.sizes import choose_sizes
from xcloudmask.store.store import Target, open_store
from xcloudmask.streaming.bind import prepare_run
from xcloudmask.streaming.progress import choose_display
from xcloudmask.streaming.report import StreamReport
from xcloudmask.streaming.source import Source, from_mask, from_reflectance

log = logging.getLogger("xcloudmask.streaming")


@spelled_out(WriteOptions)
def stream(
    source: xr.DataArray,
    store: Any,
    *,
    predict: Mapping[str, Any] = MappingProxyType({}),
    output: Literal["classes", "probabilities"] = "classes",
    **write: Any,
) -> StreamReport:
    """Predict a mask region by region, straight into a Zarr store; a stopped call resumes where it stopped.

    It is ``source.cloudmask.predict(**predict).cloudmask.to_zarr(store, **write)``, pixel for pixel. Every
    window is inferred once, and memory depends on the regions in flight and not on the source. With a Dask
    client its workers read, infer and write; without one, threads of this process do.

    Parameters
    ----------
    source : DataArray
        Reflectance, as `predict` takes it; Dask-backed or not.
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        Where to write; see `to_zarr`.
    predict : mapping
        Options of ``source.cloudmask.predict``, or of ``predict_proba``.
    output : {"classes", "probabilities"}
        What to predict.
    **write
        Options of `to_zarr`.

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
    ...     how = {"model": TOY, "working_resolution": "native"}
    ...     report = stream(da, folder, predict=how, progress=False)
    ...     xr.open_zarr(folder).cloud_mask.shape
    (90, 90)
    >>> report.regions, report.complete
    (1, True)
    """
    if not isinstance(source, xr.DataArray):
        raise CloudMaskError(
            f"stream takes a DataArray of reflectance, not a {type(source).__name__}; "
            "for STAC items use xcloudmask.load_stac first, for a Dataset ds.to_dataarray('band')"
        )
    misplaced = next((name for name in write if name in PredictOptions.names()), None)
    if misplaced is not None:
        hint = f"It is one of predict: predict={{{misplaced!r}: ...}}."
        raise OptionError("option of write", misplaced, hint=hint)
    options = WriteOptions.read(write)
    return _write(from_reflectance(source, PredictOptions.read(predict, output=output)), store, options)


@spelled_out(WriteOptions)
def to_zarr(mask: xr.DataArray, store: Any, **write: Any) -> StreamReport:
    """Write a mask to a Zarr store, region by region; a stopped call resumes where it stopped.

    A lazy mask straight from ``predict`` or ``predict_proba`` is made as by `stream`: each window once. A
    mask that was changed since (sliced, buffered, ...) is computed as its graph says, a region at a time, so
    windows at the edges of regions are inferred for each region that uses them.

    The result and the errors are those of `stream`.

    Parameters
    ----------
    mask : DataArray
        Classes or probabilities, lazy or not.
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        Where to write. To a repository one commit is made for each batch of regions, whose message names the
        scenes; a session is the caller's transaction, who commits it. Both are written by threads of this
        process, also where there is a Dask client. ``"icechunk:PATH"`` and ``"icechunk:s3://bucket/prefix"``
        are repositories, which are made where there are none.
    **write
        The options that ``mask.cloudmask.to_zarr`` lists.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xcloudmask
    >>> from xcloudmask.streaming import to_zarr
    >>> mask = xr.DataArray(np.zeros((90, 90), "u1"), dims=("y", "x"), name="cloud_mask")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_zarr(mask, folder, progress=False).written
    1
    """
    options = WriteOptions.read(write)  # first: a misspelt option is told whatever the array is
    return _write(from_mask(mask), store, options)


def _write(source: Source, store: Any, options: WriteOptions) -> StreamReport:
    """Do what `stream` and `to_zarr` promise."""
    target = Target(open_store(store, options.storage_options), options.group or "")
    output = plan_output(source, options)
    display = choose_display(options.progress, output.name)
    address = None
    if options.stac is not None:  # or refuse before anything is done
        address = address_of(store)
        where_and_when(source.template)

    lock = Lock(target)
    lock.acquire()
    try:
        sink = open_sink(target, output, resume=options.resume, overwrite=options.overwrite)
        _sweep(target, output)
        pyramid = settle_overviews(
            target, sink.array, sink.ledger, sink.storage.layout, options.overviews, lock.check
        )
        run = prepare_run(source, target, output, sink, lock, options, display, pyramid)
        run.go()
        if (sink.ledger.states == DONE).all():
            target.delete_tree(FOLDER, "strips")
        if run.batch is not None:
            run.batch.commit()
    finally:
        try:
            lock.release()
        except StoreError as error:  # the store does not answer
            log.warning("the lock could not be given back, and lapses in a while: %s", brief(error))
    report = StreamReport(
        target.label, output.name, len(run.regions), run.written, run.skipped, tuple(run.failures),
        run.pixels / 1e6, run.seconds,
    )  # fmt: skip
    log.info("%s", report)
    if not report.complete:
        warn_user(str(report), StreamWarning)
    elif address is not None and options.stac is not None:
        document = stac_of(store, options.group, storage_options=options.storage_options)
        log.info("listed in %s", save(document, os.fspath(options.stac), options.storage_options))
    return report


def plan_output(source: Source, options: WriteOptions) -> Output:
    """Settle how a source is stored."""
    template = source.template
    dims = [str(dim) for dim in template.dims]
    storage = choose_sizes(
        dims, template.shape, source.spatial, source.class_dim, options.chunks, options.shards
    )
    packing = choose_packing(template.dtype, source.class_dim is not None, options.encoding)
    lead = dims[: len(storage.layout.lead)]
    if options.append_dim not in (*lead, "time"):
        raise OptionError("append_dim", options.append_dim, allowed=dict.fromkeys([*lead, "time"]))
    grows = options.append_dim if options.append_dim in lead else None
    contract = describe_contract(template, source.spatial, grows, storage, packing, source.plan)
    return Output(template, grows, storage, packing, choose_compressors(packing, options.encoding), contract)


def _sweep(target: Target, output: Output) -> None:
    """Clear away what a kill left half written, here and in no group within."""
    names = [str(name) for name in output.template.coords]
    ours = (f"{FOLDER}/{name}" for name in ("status", "sizes", "strips", "copy"))
    target.sweep(output.name, *names, "spatial_ref", PLACE, *ours)
    replace(target, group=target.path(FOLDER)).sweep()
