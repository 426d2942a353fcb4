# %% [markdown]
# # Stop a stream, and resume it
#
# A mask is written region by region; a run that is stopped, by Ctrl-C or a power cut, is resumed by the same
# call. What is not done reads as no data, never as clear.

# %%
import matplotlib.pyplot as plt
import numpy as np

import xcloudmask
from xcloudmask.cli import demo

scene = demo.scene("landsat-8").compute()
how = {
    "predict": {"model": "ukis-4band-l1c"},
    "regions_in_flight": 1,
    "chunks": {"y": 128, "x": 128},
    "shards": {"y": 128, "x": 128},
}

# %% [markdown]
# Here the run is stopped on purpose: the function that is told of each event acts as if somebody pressed
# Ctrl-C.


# %%
def ctrl_c(event):
    if event.done >= 11:
        raise KeyboardInterrupt


try:
    xcloudmask.stream(scene, "masks.zarr", progress=ctrl_c, **how)
except KeyboardInterrupt:
    print("stopped")
stopped = xcloudmask.open_masks("masks.zarr").compute()
print(f"no data so far: {float((stopped == 255).mean()):.0%}")

# %% [markdown]
# The same call again, without the interruption.

# %%
report = xcloudmask.stream(scene, "masks.zarr", progress=False, **how)
print(f"{report.written} regions now, {report.skipped} before, {len(report.failed)} failed")
whole = xcloudmask.open_masks("masks.zarr").compute()
once = scene.cloudmask.predict("ukis-4band-l1c")
print("equal to predict:", bool((whole.values == once.values).all()))

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
stopped.cloudmask.plot(ax=axes[0])
whole.cloudmask.plot(ax=axes[1], legend=False)
scene.cloudmask.plot(whole, ax=axes[2], legend=False)
for ax, title in zip(axes, ("when stopped", "resumed", "over the scene"), strict=True):
    ax.set_title(title, loc="left")
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    if ax is not axes[2]:
        for edge in 128 * np.arange(1, 5):
            for line in (ax.axhline, ax.axvline):
                line((scene.y if line == ax.axhline else scene.x).values[edge] / 1000, color="0.5", lw=0.4)
plt.show()
