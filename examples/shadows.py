# %% [markdown]
# # Shadows by geometry, and the mask that came with the product
#
# Give shadows to a mask without them, hold it against the product's own, and read only what is clear. The
# scene is made up, so that the truth is known and nothing is downloaded.
#
# This notebook is made from `shadows.py` by `python examples/build.py`, and the test suite runs it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter, label

import xcloudmask

# %% [markdown]
# ## 1. Clouds at heights that nobody knows
#
# Each cloud hangs between 600 and 3000 m; the sun is 40 degrees high in the south-east, and pixels are 20 m.

# %%
rng = np.random.default_rng(7)
side, pixel, sun = 360, 20.0, (40.0, 140.0)


def blobs(scale, share):
    made = gaussian_filter(rng.standard_normal((side, side)), scale)
    return made > np.quantile(made, 1 - share)


cloud, lake = blobs(11, 0.13), blobs(7, 0.02)
ground = 0.28 + 0.6 * gaussian_filter(rng.standard_normal((side, side)), 3)
labels, count = label(cloud)
heights = rng.uniform(600, 3000, count + 1)[labels]
away = heights / np.tan(np.radians(sun[0])) / pixel
row, column = np.nonzero(cloud)
down = np.rint(row + away[cloud] * np.cos(np.radians(sun[1]))).astype(int)
left = np.rint(column - away[cloud] * np.sin(np.radians(sun[1]))).astype(int)
inside = (down >= 0) & (down < side) & (left >= 0) & (left < side)
shadow = np.zeros_like(cloud)
shadow[down[inside], left[inside]] = True
shadow &= ~cloud

shades = np.array([0.35, 0.45, 0.45, 1.0])[:, None, None]
pixels = np.where(cloud, 0.65, np.where(lake, 0.04, ground * shades) * np.where(shadow, 0.5, 1.0))
where = {"y": -pixel * np.arange(side), "x": pixel * np.arange(side)}
scene = xr.DataArray(pixels.clip(0).astype("f4"), dims=("band", "y", "x"), coords=where)
scene = scene.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L2A").chunk(y=120, x=120)

# %% [markdown]
# The mask knows cloud, and water; no shadow. `cast_shadow` tries each cloud at many heights. The sun's angles
# come from the scene (`open` and `load_stac` bring them), else from its date and place, else from you.

# %%
codes = np.select([cloud, lake], [1, 2], 0).astype("u1")
mask = xr.DataArray(codes, dims=("y", "x"), coords=where).chunk(y=120, x=120)
mask = mask.assign_attrs(flag_values=[0, 1, 2, 255], flag_meanings="clear cloud water no_data")
scene = scene.assign_coords(sun_elevation=sun[0], sun_azimuth=sun[1])
shadowed = mask.cloudmask.cast_shadow(scene).compute()
found = (shadowed == 3).values
print(f"of the shadow, {found[shadow].mean():.0%} is found")
print(f"of what is found, {shadow[found].mean():.0%} is shadow")

# %% [markdown]
# ## 2. The product's own mask
#
# Layers of classes or bits are read by the product's name, or by what the item or the array says of them.
# Here a scene classification (SCL) that knows no shadow, sees no small clouds and widens the others.

# %%
wide = gaussian_filter(cloud.astype(float), 4) > 0.35
layer = xr.DataArray(np.select([wide, lake], [9, 6], 4).astype("u1"), dims=("y", "x"), coords=where)
theirs = xcloudmask.masks.decode(layer, "scl")
both = shadowed.cloudmask.compare(theirs)
print(f"kappa {float(both.kappa):.2f}")
both.table.to_pandas()

# %%
figure, axes = plt.subplots(2, 2, figsize=(7.6, 7.8), layout="constrained")
scene.cloudmask.plot(ax=axes[0, 0])
scene.cloudmask.plot(shadowed, ax=axes[0, 1], legend=False)
axes[1, 0].imshow(np.select([shadow & found, shadow, found], [1, 2, 3], 0), cmap="Set2", vmin=0, vmax=7)
both.difference.cloudmask.plot(ax=axes[1, 1])
titles = (
    "scene",
    "cloud, water and shadow",
    "shadow: found, missed (blue), false (pink)",
    "against the product's",
)
for ax, title in zip(axes.flat, titles, strict=True):
    ax.set_title("", loc="left")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %% [markdown]
# ## 3. Read the rest where it is clear
#
# Masks first: then no chunk is read of a date, or of a part of it, that is not clear enough.

# %%
reads = []


def noted(block, block_info=None):
    reads.append(block_info[0]["chunk-location"])
    return block


dates = xr.concat([scene.drop_vars(["sun_elevation", "sun_azimuth"])] * 2, dim="time")
source = dates.copy(data=dates.data.map_blocks(noted, dtype="f4", meta=np.empty((0, 0, 0, 0), "f4")))
masks = xr.concat([shadowed, xr.ones_like(shadowed)], dim="time", combine_attrs="override").chunk(
    time=1, y=120, x=120
)
clear = source.cloudmask.select_clear(masks, min_clear=0.6).compute(scheduler="synchronous")
print(f"{clear.sizes['time']} of 2 dates, {len(reads)} of {source.data.npartitions} chunks read")
