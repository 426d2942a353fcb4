# %% [markdown]
# # Cleaning a mask, step by step
#
# Take out specks, close gaps, fill holes, keep a margin: what each step of `clean` does to one mask. Steps
# are done in the order in which they are written; the same for any chunks.

# %%
import warnings

import matplotlib.pyplot as plt

from xcloudmask.cli import demo
from xcloudmask.errors import ModelWarning

scene = demo.scene("landsat-8").isel(time=0, y=slice(100, 356), x=slice(240, 624)).compute()
with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", ModelWarning
    )  # it has no view of a pixel's neighbours, and so leaves specks
    mask = scene.cloudmask.predict("spectral", scheme="binary")

# %%
steps = {"sieve": "1 ha", "close": "45 m", "fill": "2 ha", "buffer": "60 m"}
stages = {"as predicted": mask}
for at in range(1, len(steps) + 1):
    some = dict(list(steps.items())[:at])
    name = " ".join(list(some.items())[-1])
    stages[name] = mask.cloudmask.clean(**some)
for name, stage in stages.items():
    print(f"{name:<14} clear {float(stage.cloudmask.clear_fraction()):.1%}")

# %% [markdown]
# The last picture is the scene as it is left for use: `apply` sets cloud and shadow to NaN.

# %%
figure, axes = plt.subplots(2, 3, figsize=(11, 5.4), layout="constrained")
for ax, (name, stage) in zip(axes.flat, stages.items(), strict=False):
    scene.cloudmask.plot(stage, ax=ax, alpha=1, legend=ax is axes[0, 0])
    ax.set_title(name, loc="left")
clear = scene.cloudmask.apply(stages["buffer 60 m"])
clear.cloudmask.plot(ax=axes[1, 2])
axes[1, 2].set_title("what is left", loc="left")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
plt.show()
