"""Clouds and shadows of known thickness, laid over clear ground.

The spectrum is that of a plane layer in the two-stream approximation: bright and white where droplets do
not absorb, darker in the short-wave infrared, where water and ice do. The ground shines through a thin
cloud, multiplied by the transmittance both ways and by what bounces between cloud and ground. A shadow
loses the direct beam and keeps the sky's light, which is bluer.

References
----------
C. F. Bohren, "Multiple scattering of light and some of its observable consequences", American Journal of
Physics 55, 1987 (two-stream layer with absorption)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xcloudmask.metrics.labels import BITS, GROUND, certain
from xcloudmask.train.samples import Sample

Floats = NDArray[np.float64]

#: Wavelength (nm), and the share of light lost at one scattering, for droplets (about 10 µm) and ice (30 µm).
ABSORPTION = np.array(
    [
        (400, 1e-6, 1e-6), (700, 1e-6, 1e-6), (865, 4e-5, 6e-5), (940, 1e-4, 1e-4), (1240, 1.2e-3, 4e-3),
        (1375, 3e-3, 2e-2), (1600, 5e-3, 4e-2), (2200, 2.2e-2, 6e-2), (2500, 6e-2, 1e-1),
    ]
)  # fmt: skip
ASYMMETRY = 0.85
#: Optical thickness from which a cloud is called thin, and thick; between a tenth and thin it is open.
HAZE, THIN, THICK = 0.1, 0.4, 3.6
#: Optical thickness (to the sun) from which its shadow is called one; half of it, open.
SHADE = 1.5


@dataclass(frozen=True, slots=True)
class Sky:
    """A simulated cloud field: how much, how thick, of what, how high, and where its shadow falls.

    `ice` is the share of ice, `cover` the share of the image under cloud, `thickest` the optical thickness
    reached, `roughness` the exponent of the field's spectrum (larger is smoother), `shift` the shadow's
    displacement in pixels, and `top` the cloud top's temperature in kelvin.
    """

    cover: float
    thickest: float
    ice: float
    roughness: float
    shift: tuple[int, int]
    top: float

    @classmethod
    def draw(cls, rng: np.random.Generator, gsd: float) -> Sky:
        """Draw one; heights of 0.5 to 10 km and suns 20 to 70 degrees from the zenith cast the shadows."""
        high = rng.random() < 0.3
        height = rng.uniform(5e3, 1e4) if high else rng.uniform(5e2, 4e3)
        reach = min(height * np.tan(np.radians(rng.uniform(20, 70))), 12e3) / gsd
        angle = rng.uniform(0, 2 * np.pi)
        return cls(
            cover=rng.uniform(0.1, 0.7),
            thickest=float(np.exp(rng.uniform(np.log(0.5), np.log(4.0 if high else 60.0)))),
            ice=rng.uniform(0.7, 1.0) if high else rng.uniform(0.0, 0.3),
            roughness=rng.uniform(2.2, 3.6),
            shift=(round(reach * np.cos(angle)), round(reach * np.sin(angle))),
            top=rng.uniform(220, 250) if high else rng.uniform(255, 285),
        )


def layer(thickness: Floats, lost: float) -> tuple[Floats, Floats]:
    """Return reflectance and transmittance of a layer of this optical thickness.

    `lost` is the share of light absorbed at one scattering (one minus the single-scattering albedo).

    Examples
    --------
    >>> r, t = layer(np.array([0.0, 10.0]), 1e-6)
    >>> r.round(2).tolist(), (r + t).round(2).tolist()
    ([0.0, 0.43], [1.0, 1.0])
    """
    albedo = 1 - max(lost, 1e-9)
    diffuse = np.sqrt(1 - albedo * ASYMMETRY)
    deep = (diffuse - np.sqrt(1 - albedo)) / (diffuse + np.sqrt(1 - albedo))
    rate = np.sqrt((1 - albedo) * (1 - albedo * ASYMMETRY))
    fading = np.exp(-rate * thickness)
    whole = 1 - (deep * fading) ** 2
    return deep * (1 - fading**2) / whole, (1 - deep**2) * fading / whole


def lost_at(nm: float, ice: float) -> float:
    """Return the share of light lost at one scattering in a cloud with this share of ice.

    Examples
    --------
    >>> lost_at(1600, 1.0) > lost_at(1600, 0.0) > lost_at(665, 0.5)
    True
    """
    water, frozen = (np.interp(nm, ABSORPTION[:, 0], np.log(ABSORPTION[:, i])) for i in (1, 2))
    return float((1 - ice) * np.exp(water) + ice * np.exp(frozen))


def field(rng: np.random.Generator, shape: tuple[int, int], roughness: float) -> Floats:
    """Return a random field with a power-law spectrum, uniform in 0 to 1 by rank.

    Examples
    --------
    >>> field(np.random.default_rng(0), (8, 8), 3.0).shape
    (8, 8)
    """
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    scale = np.hypot(y, x)
    scale[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=shape)) * scale ** (-roughness / 2)
    smooth = np.fft.irfft2(noise, s=shape).ravel()
    rank = np.empty(smooth.size)
    rank[np.argsort(smooth, kind="stable")] = np.linspace(0, 1, smooth.size)
    return rank.reshape(shape)


def simulate(sample: Sample, rng: np.random.Generator, sky: Sky | None = None) -> Sample:
    """Lay a simulated cloud field and its shadow over the sample; the sky is drawn if not given.

    Only what the label says is clear (or clear or shadow) takes the new label; over a cloud, a cloud stays
    one. Ground without labels gets cloud and no claim elsewhere.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> red = Band("red", "red", 640, 660, 680)
    >>> ground = Sample(np.full((1, 32, 32), 0.1, "f4"), (red,), np.ones((32, 32), "u1"), 30.0)
    >>> cloudy = simulate(ground, np.random.default_rng(0))
    >>> {2, 4, 8} <= set(np.unique(cloudy.possible).tolist())
    True
    """
    sky = Sky.draw(rng, sample.gsd) if sky is None else sky
    rank = field(rng, sample.possible.shape, sky.roughness)
    above = np.clip((rank - (1 - sky.cover)) / max(sky.cover, 1e-6), 0, 1)
    thickness = sky.thickest * above**2
    shade = ndimage.shift(thickness, sky.shift, order=0)  # nothing is known beyond the edge: no shade
    image = np.empty_like(sample.image)
    for i, band in enumerate(sample.bands):
        ground = sample.image[i].astype(np.float64)
        if band.kind == "brightness_temperature":
            seen = np.exp(-thickness)
            image[i] = np.minimum(ground, ground * seen + sky.top * (1 - seen))
        elif band.kind == "reflectance" and band.center_nm is not None:
            image[i] = _seen(ground, band.center_nm, thickness, shade, sky)
        else:
            image[i] = ground
    return replace(sample, image=image, possible=_labels(sample.possible, thickness, shade))


def _seen(ground: Floats, nm: float, thickness: Floats, shade: Floats, sky: Sky) -> Floats:
    """Return the reflectance of ground under shade, then cloud."""
    lost = lost_at(nm, sky.ice)
    sky_light = float(np.interp(nm, [400, 500, 700, 900, 1600, 2300], [0.45, 0.3, 0.15, 0.1, 0.04, 0.03]))
    through = layer(shade, lost)[1]
    lit = ground * (sky_light + (1 - sky_light) * through)
    up, down = layer(thickness, lost)
    if 1340 < nm < 1420:  # water vapour hides the ground and low clouds
        return lit + up * sky.ice
    return up + down**2 * lit / np.maximum(1 - up * np.clip(lit, 0, 0.95), 0.05)


def _labels(before: NDArray[np.uint8], thickness: Floats, shade: Floats) -> NDArray[np.uint8]:
    clear = certain(before, BITS["clear"] | GROUND | BITS["cloud_shadow"])
    out = before.copy()
    out[clear & (shade > SHADE / 2)] |= BITS["cloud_shadow"]
    out[clear & (shade > SHADE)] = BITS["cloud_shadow"]
    out[clear & (thickness > HAZE)] |= BITS["thin_cloud"]
    thin, thick = thickness > THIN, thickness > THICK
    out[thin & (clear | (before == 0))] = BITS["thin_cloud"]
    out[thick] = BITS["thick_cloud"]
    return out
