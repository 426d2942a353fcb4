# %% [markdown]
# # From 30 m to 300 m
#
# How much of a field of small clouds is left when pixels grow to the size of Proba-V's. The networks of ukis
# were trained near 30 m and rely on shapes; over 60 m `model="auto"` takes others, with a warning that gives
# their score.

# %%
import warnings

import matplotlib.pyplot as plt

from xcloudmask.cli import demo
from xcloudmask.errors import ModelWarning

fine = demo.scene("landsat-8").isel(time=0, y=slice(100, 400), x=slice(300, 600)).compute()
scenes = {30: fine} | {
    30 * n: fine.coarsen(y=n, x=n).mean(keep_attrs=True).rio.write_crs(fine.rio.crs) for n in (2, 4, 10)
}

# %%
masks = {}
for size, scene in scenes.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        masks[size] = scene.cloudmask.predict(scheme="binary")
    if size == 30:
        truth = (masks[30] == 1).astype(float)  # no truth, but the finest that there is
    share = truth.coarsen(y=size // 30, x=size // 30).mean()
    right = ((masks[size] == 1) == (share.values >= 0.5)).mean()
    model = masks[size].attrs["model"]
    cloud = float((masks[size] == 1).mean())
    print(f"{size:4d} m  {model:<14} cloud {cloud:5.1%}  as the majority at 30 m: {float(right):5.1%}")

# %% [markdown]
# Nobody labelled this scene. Part of the difference is that the networks of ukis fill the gaps between small
# clouds, and `sensei`, which learnt what share of a pixel of 100 m to 1 km is cloud, does not.
#
# What to take home: where you can, mask at the finest pixels you have, and coarsen the mask, not the scene.
# The share of cloud in a coarse pixel (below, last) then tells partly cloudy from clear.

# %%
figure, axes = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
for column, size in enumerate((30, 120, 300)):
    scenes[size].cloudmask.plot(ax=axes[0, column])
    masks[size].cloudmask.plot(ax=axes[1, column], legend=False)
    axes[0, column].set_title(f"{size} m", loc="left")
    axes[1, column].set_title(masks[size].attrs["model"], loc="left")
for ax, size in zip(axes[:, 3], (120, 300), strict=True):
    share = truth.coarsen(y=size // 30, x=size // 30).mean()
    ax.imshow(share, cmap="cividis", vmin=0, vmax=1)
    ax.set_title(f"share of cloud, {size} m", loc="left")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
plt.show()
