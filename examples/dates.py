# ruff: noqa: B018  (a cell's last expression is what it shows)
# %% [markdown]
# # Masks over many dates
#
# Composites, the clearest dates, bright ground that is always called cloud, which of two masks is better, and
# whether a record has a step. The site is simulated, so that the truth is known and nothing is downloaded;
# yours comes from `xcloudmask.load_stac`, its masks from `scene.cloudmask.predict()`.
#
# This notebook is made from `dates.py` by `python examples/build.py`, and the test suite runs it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import xcloudmask

# %% [markdown]
# ## 1. Sixteen dates of fields, with a beach, under moving clouds

# %%
rng = np.random.default_rng(0)
side, dates = 120, 16
flags = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
where = {
    "time": np.datetime64("2026-04-01", "ns") + 6 * np.arange(dates) * np.timedelta64(1, "D"),
    "y": -10.0 * np.arange(side),
    "x": 10.0 * np.arange(side),
}


def field(scale):
    made = gaussian_filter(rng.standard_normal((side, side)), scale, mode="wrap")
    return (made - made.mean()) / made.std()


fields = np.array([0.05, 0.07, 0.06, 0.30])[:, None, None] * (1 + 0.15 * field(6))
beach = np.abs(field(12)) < 0.1
ground = np.where(beach, np.array([0.28, 0.32, 0.36, 0.42])[:, None, None], fields)
thick = np.stack([np.clip(field(9) - rng.uniform(0, 1.5), 0, 1) for _ in range(dates)])[:, None]
pixels = ground * (1 - thick) + 0.7 * thick + 0.004 * rng.standard_normal((dates, 4, side, side))
scene = xr.DataArray(pixels.astype("f4"), dims=("time", "band", "y", "x"), coords=where)
scene = scene.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L2A").chunk(time=1, y=60)

# %% [markdown]
# A mask that a threshold makes: it takes the beach for cloud on every date, and misses thin cloud.

# %%
blue = scene.sel(band="blue", drop=True)
mask = (blue > 0.18).astype("u1").assign_attrs(flags)
mask.cloudmask.clear_fraction().to_series().round(2).head(3)

# %% [markdown]
# ## 2. What the other dates say of it
#
# Nothing is corrected unless you ask for it. What was changed is counted, rule by rule.

# %%
revised = scene.cloudmask.time_rules(mask).compute()
better = revised.cloud_mask
print("pixels changed:", revised.changed.sum("time").to_series().to_dict())
found = revised.persistent_bright.values
print(f"bright ground: {found[beach].mean():.0%} of the beach, {found[~beach].sum()} pixels beside it")

# %% [markdown]
# ## 3. Clearest dates, and one picture of all

# %%
ranked = better.cloudmask.rank()
ranked.clear_fraction.to_series().round(2).head(3)

# %%
medoid = scene.cloudmask.composite(better, "medoid", sources=True)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
scene.isel(time=8).cloudmask.plot(ax=axes[0])
scene.isel(time=8).cloudmask.plot(better.isel(time=8), ax=axes[1], legend=False)
ax = medoid.composite.isel(time=0).cloudmask.plot(ax=axes[2])
# %% [markdown]
# By month, and nothing read of dates of which less than a third is clear:

# %%
monthly = scene.cloudmask.composite(better, by="month", min_clear=0.33, sources=True)
monthly.views.mean(("y", "x")).to_series().round(1)

# %% [markdown]
# ## 4. Which mask is better?
#
# `error` is estimated without labels. Here the truth is known: it is the last column.

# %%
masks = {
    "threshold": mask,
    "revised": better,
    "higher threshold": (blue > 0.35).astype("u1").assign_attrs(flags),
}
table = xcloudmask.metrics.smoothness(scene, masks)[["noise", "error"]].to_pandas()
cloud = thick[:, 0] > 0.1
table["true error"] = [float(((m.values == 1) != cloud).mean()) for m in masks.values()]
table.round(3)

# %% [markdown]
# ## 5. Is a record continuous?
#
# Twenty-two years of monthly cloud in two regions. The second is 0.1 cloudier from a change of the sensor on.
# Of the steps that are said to be there, one in twenty may be false: here it is one of a single month in the
# north. `record.plot()` draws the record and the effects.

# %%
time = np.arange("1998-04", "2020-07", dtype="M8[M]").astype("M8[ns]")
season = 0.5 + 0.15 * np.sin(2 * np.pi * np.arange(len(time)) / 12)
cloudiness = season + 0.06 * rng.standard_normal((2, len(time)))
cloudiness[1] += 0.1 * (time >= np.datetime64("2003-02-01"))
series = xr.DataArray(cloudiness, dims=("area", "time"), coords={"time": time, "area": ["north", "south"]})
record = xcloudmask.continuity(series, {"VGT1 to VGT2": "2003-02-01", "VGT2 to Proba-V": "2014-01-01"})
record
