"""Made-up clouds at known heights, and where the sun puts their shadows; for benchmarks/shadow.py, too."""

import math

import numpy as np


def simulated(seed, pixel=30.0, elevation=35.0, azimuth=150.0, size=400):
    """Clouds at known heights over ground of known light; shadows where the sun puts them."""
    from scipy.ndimage import gaussian_filter, label

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((size, size)), 12)
    cloud = field > np.quantile(field, 0.88)
    light = 0.3 + 0.15 * gaussian_filter(rng.standard_normal((size, size)), 3) * 5
    light += 0.01 * rng.standard_normal((size, size))
    lakes = gaussian_filter(rng.standard_normal((size, size)), 6)
    light[lakes > np.quantile(lakes, 0.98)] = 0.03
    labels, count = label(cloud, np.ones((3, 3)))
    heights = rng.uniform(600, 4000, count + 1)
    shadow = np.zeros_like(cloud)
    away = 1 / math.tan(math.radians(elevation)) / pixel
    rows, columns = np.nonzero(cloud)
    h = heights[labels[rows, columns]]
    y = np.rint(rows + h * away * math.cos(math.radians(azimuth))).astype(int)
    x = np.rint(columns - h * away * math.sin(math.radians(azimuth))).astype(int)
    there = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    shadow[y[there], x[there]] = True
    shadow &= ~cloud
    light = np.where(shadow, light * 0.5, light)
    return np.where(cloud, 1, 0), np.where(cloud, 0.7, light).clip(0), shadow


def rates(found, true):
    both = (found & true).sum()
    return both / max(found.sum(), 1), both / true.sum()
