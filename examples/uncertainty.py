# %% [markdown]
# # How sure is a mask?
#
# The probability of cloud, and its spread between turned and mirrored copies of each window. A network that
# knows should not care which way is up.

# %%
import matplotlib.pyplot as plt
import numpy as np

from xcloudmask.cli import demo

scene = demo.scene("landsat-8").isel(time=0, y=slice(300, 556), x=slice(60, 444)).compute()
odds = scene.cloudmask.predict_proba("ukis-4band-l1c", tta=True, uncertainty=True)
cloud, spread = odds.sel({"class": "cloud"}), odds.sel({"class": "uncertainty"})

# %% [markdown]
# `uncertainty` is a label beside the classes and not one of them: drop it before argmax or sum.

# %%
sure = (spread < 0.02) & ((cloud < 0.1) | (cloud > 0.9))
print(
    f"median spread {float(spread.median()):.4f}, at the 95th percentile {float(spread.quantile(0.95)):.3f}"
)
print(f"pixels that are sure: {float(sure.mean()):.0%}")

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
scene.cloudmask.plot(ax=axes[0, 0])
axes[0, 0].set_title("scene", loc="left")
for ax, values, title, top in (
    (axes[0, 1], cloud, "probability of cloud", 1),
    (axes[1, 0], spread, "spread", 0.2),
):
    shown = ax.imshow(values, cmap="cividis", vmin=0, vmax=top)
    ax.set_title(title, loc="left")
    figure.colorbar(shown, ax=ax, shrink=0.8)
axes[1, 1].hexbin(cloud.values.ravel(), spread.values.ravel(), gridsize=40, bins="log", cmap="cividis")
axes[1, 1].set(xlabel="probability of cloud", ylabel="spread")
axes[1, 1].set_title("least sure between", loc="left")
for ax in axes.flat[:3]:
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
assert np.isfinite(spread).all()
plt.show()
