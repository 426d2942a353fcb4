# %% [markdown]
# # What missing bands cost
#
# The same scene with six bands, and with what SPOT-5, Proba-V and a camera of four bands would have of it. A
# network that wants six bands gets the missing ones estimated from the others (`ukis-any`).
#
# These are Landsat's bands, so this shows what leaving bands out does, and not how good masks of SPOT or
# Proba-V are.

# %%
import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

from xcloudmask.cli import demo

scene = demo.scene("landsat-8").isel(time=0, y=slice(300, 556), x=slice(60, 444)).compute()
choices = {
    "all six": list(scene.band.values),
    "four (RGB, NIR)": ["blue", "green", "red", "nir08"],
    "Proba-V (no green)": ["blue", "red", "nir08", "swir16"],
    "SPOT-5 (no blue)": ["green", "red", "nir08", "swir16"],
    "colour only": ["blue", "green", "red"],
}

# %% [markdown]
# The attribute `bands_estimated` of a mask names the bands that were estimated for it.

# %%
masks = {}
for name, bands in choices.items():
    mask = masks[name] = scene.sel(band=bands).cloudmask.predict("ukis-any-l1c", scheme="binary")
    estimated = mask.attrs.get("bands_estimated", "none")
    print(f"{name:<19} cloud {float((mask == 1).mean()):5.1%}   estimated: {estimated}")

# %% [markdown]
# Maps of the difference: red where the mask with fewer bands has more cloud than that with all, blue where it
# has less, grey where they agree.

# %%
full = masks["all six"]
figure, axes = plt.subplots(2, 3, figsize=(11, 5.4), layout="constrained")
scene.cloudmask.plot(full, ax=axes[0, 0])
axes[0, 0].set_title("all six", loc="left")
colours = ListedColormap(["0.93", "#d55e00", "#0072b2"])
for ax, (name, mask) in zip(axes.flat[2:], list(masks.items())[1:], strict=True):
    more, less = (mask == 1) & (full == 0), (mask == 0) & (full == 1)
    ax.imshow(more + 2 * less, cmap=colours, vmin=0, vmax=2)
    ax.set_title(f"{name}: {float((mask == full).mean()):.1%} agree", loc="left")
scene.cloudmask.plot(ax=axes[0, 1], rgb=["swir16", "nir08", "red"])
axes[0, 1].set_title("SWIR, NIR, red", loc="left")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
plt.show()
