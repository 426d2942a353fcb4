"""Whether a record of cloud has a step where its sensor changes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.errors import CloudMaskError, OptionError, names_checked

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Continuity:
    """What `continuity` tells.

    Parameters
    ----------
    tests : Dataset
        By ``break``, region and ``month``, 0 for the whole year: ``p``; ``q``, that of Benjamini and Hochberg
        over all tests of months, and over those of years; ``step``, whether it is one; ``shift``, by how much
        cloud changed (Hodges-Lehmann); ``effect``, from -1, all years before had more cloud, to 1
        (rank-biserial); how many years there are, ``before`` and ``after``; and ``least_p``, the least p that
        so many can give.
    monthly : DataArray
        Mean cloud fraction by region, ``month`` and ``year``, by ``part``: before the first break, and so on.
    alpha : float
        Share of false ones among the steps that is accepted.
    """

    tests: xr.Dataset
    monthly: xr.DataArray
    alpha: float

    def table(self) -> pd.DataFrame:
        """Return one line a test, the most certain steps first."""
        return self.tests.to_dataframe().dropna(subset="p").sort_values(["q", "p"])

    def __repr__(self) -> str:
        tested, steps = int(self.tests.p.notnull().sum()), int(self.tests.step.sum())
        few = tested - int((self.tests.least_p < self.alpha).sum())
        lines = [f"{steps} steps in {tested} tests (Benjamini-Hochberg, {self.alpha:g})"]
        if few:
            lines.append(f"{few} of them: too few years to tell anything at {self.alpha:g}")
        shown = self.table()[["shift", "effect", "p", "q", "before", "after"]].head(12)
        shown = shown.rename(index={0: "year"}, level="month")
        return "\n".join([*lines, shown.round(3).to_string()])

    def plot(self) -> Any:
        """Draw how cloud differs from its usual month, and the effect of each break; return the figure."""
        import matplotlib.pyplot as plt

        names = [str(name) for name in self.tests["break"].values]
        figure = plt.figure(layout="constrained", figsize=(3.5 * len(names) + 2, 6))
        grid = figure.add_gridspec(2, len(names))
        top = figure.add_subplot(grid[0, :])
        apart = (self.monthly - self.monthly.mean(["part", "year"])).stack(when=("year", "month"))
        when = (apart.year + (apart.month - 0.5) / 12).values
        regions = [dim for dim in self.tests.p.dims if dim not in ("break", "month")]
        for number, mean in enumerate(apart.mean(regions).transpose("part", "when").values):
            there = np.isfinite(mean)
            top.plot(when[there], mean[there], ".", markersize=4, color=f"C{number}")
            if there.any():
                ends, height = when[there][[0, -1]], mean[there].mean()
                top.plot(ends, [height, height], color=f"C{number}", linewidth=2.5)
        top.set_title("Cloud fraction minus the monthly mean, mean of regions", loc="left", fontsize=10)
        for place, name in enumerate(names):
            axis = figure.add_subplot(grid[1, place])
            one = self.tests[["effect", "step"]].sel({"break": name}).transpose(*regions, "month")
            effect, step = (one[key].values.reshape(-1, one.sizes["month"]) for key in ("effect", "step"))
            image = axis.imshow(effect, vmin=-1, vmax=1, cmap="PuOr_r", aspect="auto")
            axis.plot(*np.nonzero(step)[::-1], "k.", markersize=9)
            axis.set_title(f"Effect: {name}", loc="left", fontsize=10)
            axis.set_xticks(range(0, 13, 2), ["year", *map(str, range(2, 13, 2))])
            axis.set_xlabel("month; dots mark significant steps")
            labels = one[regions[0]].values if len(regions) == 1 else range(len(effect))
            axis.set_yticks(range(len(effect)), map(str, labels) if place == 0 else [""] * len(effect))
        figure.colorbar(image, ax=axis, label="less cloud   more cloud")
        return figure


@names_checked
def continuity(
    series: xr.DataArray | xr.Dataset,
    breaks: Sequence[Any] | Mapping[str, Any],
    *,
    alpha: float = 0.05,
    dim: Hashable = "time",
) -> Continuity:
    """Test whether cloud fraction changes where a sensor does, by region and month of the year.

    The fractions of each month are averaged, the Januaries between the break before and this one are compared
    with those from this one to the next, and so on (Mann-Whitney U, two-sided); and so are the years with
    six months or more, by the mean of how these differ from the usual. Years count as independent, days and
    months of one do not. A trend over years looks like a step: compare with a record that has no break there.

    Parameters
    ----------
    series : DataArray or Dataset
        Cloud fraction by time and region, any dimensions; or what `xcloudmask.timeseries` returns: one less
        its ``clear_fraction``. Computed here.
    breaks : sequence of dates, or mapping of str to date
        First dates of the parts after the first: ``["2003-02-01", "2014-06-01"]``, or by name.
    alpha : float
        Share of false ones among the steps that is accepted.
    dim : str
        The dimension with dates.

    Returns
    -------
    Continuity
        Prints as a summary; ``table()``, ``plot()``, ``tests``.

    Examples
    --------
    >>> from xcloudmask.archive.continuity import continuity
    >>> time = np.arange("1998-04", "2014-04", dtype="M8[M]").astype("M8[ns]")
    >>> weather = 0.1 * np.random.default_rng(0).random(len(time))
    >>> cloud = 0.5 + weather + 0.2 * (time >= np.datetime64("2003-02"))
    >>> series = xr.DataArray(cloud, dims="time", coords={"time": time})
    >>> found = continuity(series, {"VGT1 to VGT2": "2003-02-01"})
    >>> int(found.tests.step.sum()), float(found.tests.effect.min())
    (13, 1.0)
    """
    from scipy.special import comb
    from scipy.stats import false_discovery_control, mannwhitneyu

    whole = isinstance(series, xr.Dataset)
    if isinstance(series, xr.Dataset):
        if "clear_fraction" not in series:
            raise OptionError("variable of the series", "clear_fraction", allowed=map(str, series.data_vars))
        series = series["clear_fraction"]
    series = series.compute()
    if (most := float(series.max())) > 1 + 1e-6:
        raise CloudMaskError(
            f"the series holds fractions up to {most:.4g}, and they are 0 to 1:", "divide percent by 100"
        )
    series = 1 - series if whole else series
    if not 0 < alpha < 1:
        raise CloudMaskError(f"alpha={alpha} must lie between 0 and 1")
    if dim not in series.dims or series[dim].dtype.kind != "M":
        raise CloudMaskError(f"the series lies over {series.dims}: it needs dates along dim={dim!r}")
    named = breaks if isinstance(breaks, Mapping) else {str(at): at for at in breaks}
    try:
        starts = np.array([np.datetime64(at, "ns") for at in named.values()])
    except ValueError:
        starts = np.array([], "M8[ns]")
    if not len(starts) or not (np.diff(starts) > np.timedelta64(0)).all():
        raise CloudMaskError(f"breaks={list(named.values())} must be dates, one or more, in their order")
    first, last = series[dim].values.min(), series[dim].values.max()
    if not (first < starts[0] and starts[-1] <= last):
        raise CloudMaskError(
            f"breaks={list(named.values())} must lie within the series, {first:.10} to {last:.10}"
        )
    monthly = _monthly(series, starts, dim)
    apart = monthly - monthly.mean(["part", "year"])
    yearly = apart.mean("month").where(apart.count("month") >= 6).expand_dims(month=[0])
    both = xr.concat([yearly, monthly], "month").transpose("part", ..., "month", "year")
    parts = both.values
    shape, by_break = parts.shape[1:-1], []
    for before, after in pairwise(parts):
        rows = np.full((7, int(np.prod(shape))), np.nan)
        for row, (old, new) in enumerate(
            zip(*(p.reshape(-1, parts.shape[-1]) for p in (before, after)), strict=True)
        ):
            old, new = old[np.isfinite(old)], new[np.isfinite(new)]
            rows[4:6, row] = len(old), len(new)
            if len(old) and len(new):
                u, p = mannwhitneyu(new, old)
                least = 2 / comb(len(old) + len(new), len(old))
                shift = np.median(new[:, None] - old)
                rows[[0, 2, 3, 6], row] = p, shift, 2 * u / (len(old) * len(new)) - 1, min(1.0, least)
        by_break.append(rows)
    values = np.stack(by_break, axis=1)
    kinds = np.broadcast_to(both.month.values == 0, (len(named), *shape)).reshape(len(named), -1)
    for kind in (kinds, ~kinds):
        known = np.isfinite(values[0]) & kind
        values[1][known] = false_discovery_control(values[0][known]) if known.any() else np.nan
    dims = ("break", *both.dims[1:-1])
    coords = {"break": list(named), **{d: both[d] for d in dims[1:] if d in both.coords}}
    cubes = values.reshape(7, len(named), *shape)
    names = ("p", "q", "shift", "effect", "before", "after", "least_p")
    tests = xr.Dataset({name: (dims, cube) for name, cube in zip(names, cubes, strict=True)}, coords)
    tests["step"] = tests.q <= alpha
    return Continuity(tests, monthly, alpha)


def _monthly(series: xr.DataArray, starts: Any, dim: Hashable) -> xr.DataArray:
    """Return means by part, month of the year and year, (part, ..., month, year), NaN where there is none."""
    values = series.transpose(..., dim)
    times = values[dim].values
    part = np.searchsorted(starts, times, side="right")
    year = times.astype("M8[Y]").astype(int) + 1970
    month = times.astype("M8[M]").astype(int) % 12
    years = np.arange(year.min(), year.max() + 1)
    cell = (part * 12 + month) * len(years) + year - years[0]
    size = (len(starts) + 1) * 12 * len(years)
    data = np.asarray(values.values, np.float64)
    flat = data.reshape(-1, len(times))
    sums = np.stack([np.bincount(cell, np.nan_to_num(row), size) for row in flat])
    counts = np.stack([np.bincount(cell, np.isfinite(row), size) for row in flat])
    with np.errstate(invalid="ignore"):
        means = (sums / counts).reshape(*data.shape[:-1], len(starts) + 1, 12, len(years))
    coords = {name: c for name, c in values.coords.items() if dim not in c.dims}
    out = xr.DataArray(
        means, dims=(*values.dims[:-1], "part", "month", "year"),
        coords={**coords, "month": np.arange(1, 13), "year": years}, name="cloud_fraction",
    )  # fmt: skip
    return out.transpose("part", ...)
