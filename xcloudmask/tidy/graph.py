"""Graphs of masks, written task by task: Dask's insides are known here and in `engine/run_dask` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from dask._task_spec import Alias, DataNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

__all__ = ["Alias", "DataNode", "Task", "TaskRef", "array_of"]


def array_of(name: str, graph: Mapping[Any, Any], source: Any, dtype: Any, *others: Any) -> Any:
    """Return the Dask array of the tasks called `name`, in the chunks of the first array it is made from."""
    import dask.array as da

    layers = HighLevelGraph.from_collections(name, graph, dependencies=[source, *others])
    meta = np.empty((0,) * source.ndim, dtype)
    return da.Array(layers, name, chunks=source.chunks, meta=meta)  # type: ignore[no-untyped-call]
