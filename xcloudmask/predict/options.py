"""The options of a prediction, as the caller gives them, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import xarray as xr

from xcloudmask.classes import CLOUDY, SHADOW
from xcloudmask.engine.predictor import TURNS
from xcloudmask.engine.tiling import MIN_PATCH, fitting_patch
from xcloudmask.errors import CloudMaskError, OptionError, Remedy, UnitWarning, Use, warn_user
from xcloudmask.models.lookup import readable
from xcloudmask.predict.choose_model import too_coarse
from xcloudmask.predict.fields import OptionSet, about, check_whole, types_of
from xcloudmask.scene.aux_inputs import AuxLike
from xcloudmask.scene.units import check_saturation
from xcloudmask.tidy.steps import HYSTERESIS, Steps, read_steps
from xcloudmask.types import MOST_PATCH, ModelLike, ModelSpec, Options, Scheme


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictOptions(OptionSet):
    """What the caller asked for; `da.cloudmask.predict` says at length what each option means.

    An option is one field, and nothing else: attributes, a store's fingerprint, the repr and the command line
    read the fields.

    Examples
    --------
    >>> PredictOptions(tta=9)
    Traceback (most recent call last):
    xcloudmask.errors.OptionError: unknown tta 9. Allowed: False, True, or a number of views from 1 to 8.
    """

    model: ModelLike = field(
        default="auto",
        metadata=about(
            "see: xcloudmask models (auto: the best that fits)", "M",
            settled={
                "model": "spec.name", "model_version": "spec.version", "model_sha256": "spec.sha256",
                "bands": "input_band_names",
            },
        ),
    )  # fmt: skip
    output: Literal["classes", "probabilities"] = field(
        default="classes", metadata=about("classes or probabilities", recorded=False)
    )
    threshold: float | None = field(
        default=None,
        metadata=about(
            "cloud where its probability reaches P", "P",
            settled={"threshold": "threshold", "shadow_threshold": "shadow_threshold"},
        ),
    )  # fmt: skip
    scheme: str = field(
        default="default",
        metadata=about(
            "default, binary, cloudsen12, senseiv2, native", "S", settled={"scheme": "scheme.name"},
            always=True,
        ),
    )  # fmt: skip
    working_resolution: str | float = field(
        default="auto",
        metadata=about("metres to infer at, or native", "R", settled={"working_factors": "factors"}),
    )
    patch_size: int | None = field(
        default=None, metadata=about("pixels a side of a window", "N", settled={"patch_size": "patch"})
    )
    overlap: int | None = field(
        default=None, metadata=about("pixels that windows share", "N", settled={"overlap": "overlap"})
    )
    tta: bool | int = field(
        default=False,
        metadata=about("average over 8 turns and mirrors; 8 times slower", settled={"tta": "tta"}),
    )
    uncertainty: bool = field(
        default=False,
        metadata=about(
            "with probabilities: add how far members or turns disagree",
            settled={"uncertainty": "uncertainty"},
        ),
    )
    aux: AuxLike | None = field(
        default=None,
        metadata=about("heights and radar, for models that take them", settled={"aux": "aux_names"}),
    )
    nodata: float | str | None = field(
        default="auto", metadata=about("the number that stands for no data", "X", recorded=False)
    )
    saturation: float | Mapping[str, float] | str | None = field(
        default="auto",
        metadata=about(
            "pixels whose visible bands all reach this reflectance are cloud", "X",
            settled={"saturation": "saturation", "saturation_alike": "saturation_alike"},
        ),
    )  # fmt: skip
    valid: xr.DataArray | None = field(
        default=None, metadata=about("true where pixels are to be used", recorded=False)
    )
    post: Steps | None = field(
        default=None,
        metadata=about(
            "steps that clean the mask: 'close=60 m; buffer(cloud)=150 m; sieve=1 ha'",
            "STEPS",
            recorded=False,
        ),
    )
    device: str = field(
        default="auto", metadata=about("cpu, gpu, cuda, cuda:0, mps, openvino", "D", recorded=False)
    )
    dtype: str = field(default="auto", metadata=about("float32, bfloat16, float16", "T"))
    batch_size: int | str = field(
        default="auto", metadata=about("windows inferred at a time", "N", recorded=False)
    )

    def __post_init__(self) -> None:
        """Refuse values that suit no array and no model."""
        super().__post_init__()
        if self.output not in ("classes", "probabilities"):
            raise OptionError("output", self.output, allowed=("classes", "probabilities"))
        for name in ("patch_size", "overlap"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), "a whole number of pixels")
        if not (isinstance(self.batch_size, str) and self.batch_size == "auto"):
            check_whole("batch_size", self.batch_size, "'auto' or a whole number above 0", 1)
        views_of(self.tta)
        check_saturation(self.saturation)
        self._check_post()
        value: Any = self.working_resolution
        named = isinstance(value, str) and value in ("auto", "native")
        if not named and not (_is_number(value) and 0 < value < math.inf):
            raise OptionError(
                "working_resolution", value, allowed=("auto", "native", "or metres, such as 30")
            )
        value = self.threshold
        if value is not None and not (_is_number(value) and 0 < value < 1):
            raise CloudMaskError(
                " must lie between 0 and 1: the probability of cloud that suffices",
                option=Use(threshold=value),
            )
        if value is not None and self.output == "probabilities":
            raise CloudMaskError(
                " turns probabilities into classes:",
                "leave it out, or predict classes",
                option=Use(threshold=value),
            )

    def _check_post(self) -> None:
        steps = () if self.post is None else read_steps(self.post)
        if steps and self.output == "probabilities":
            raise CloudMaskError(
                " cleans classes:", "leave it out, or predict classes", option=Use(post=str(self.post))
            )
        if steps and steps[0].name == HYSTERESIS and self.threshold is not None:
            raise CloudMaskError(
                " is one threshold, and post=hysteresis has two:", "leave one of them out",
                option=Use(threshold=self.threshold),
            )  # fmt: skip

    @classmethod
    def recorded(cls, *, numbers: bool = False) -> list[str]:
        """Names under which options are recorded; only those that are numbers, if asked."""
        return [
            name for option in cls.fields()
            if not numbers or {"int", "float"} & types_of(option)
            for name in _recorded(option)
        ]  # fmt: skip

    def record(self, settled: Options) -> dict[str, Any]:
        """Return what each option came to, in forms that JSON, netCDF and Zarr hold; None if to nothing."""
        out: dict[str, Any] = {}
        for option in self.fields():
            for name, path in _recorded(option).items():
                value = attrgetter(path)(settled) if path else getattr(self, name)
                value = list(value) if isinstance(value, tuple) else value
                out[name] = None if value is False else value
        return out

    def without_defaults(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record less what is as it would be anyway: the attributes of a mask stay readable."""
        usual = {option.name: option.default for option in self.fields() if not option.metadata["always"]}
        return {
            name: value for name, value in record.items()
            if value is not None and (name not in usual or value != usual[name])
        }  # fmt: skip


def _recorded(option: Field[Any]) -> Mapping[str, str]:
    """Return under which names an option is recorded, and where in `Options` each stands; "" for itself."""
    own = {option.name: ""} if option.metadata["recorded"] else {}
    return option.metadata["settled"] or own


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def window_of(asked: PredictOptions, spec: ModelSpec, cells: tuple[int, int]) -> tuple[int, int]:
    """Side of a window, and what it shares with the next, for a scene of so many working cells."""
    patch = spec.patch if asked.patch_size is None else asked.patch_size
    largest = spec.largest_patch or spec.patch
    fits = spec.patch <= patch <= largest and (patch == spec.patch or patch % MIN_PATCH == 0)
    if not fits if spec.patch_fixed else not MIN_PATCH <= patch <= MOST_PATCH:
        need = f"multiples of {MIN_PATCH} from {spec.patch} to {largest}"
        need = need if largest > spec.patch else f"exactly {spec.patch}"
        need = need if spec.patch_fixed else f"at least {MIN_PATCH} and at most {MOST_PATCH}"
        raise CloudMaskError(
            f": model {spec.name!r} takes {need}",
            "Leave it out for the default",
            option=Use(patch_size=patch),
        )
    overlap = min(spec.overlap, patch // 2) if asked.overlap is None else asked.overlap
    if not 0 <= overlap < patch:
        raise CloudMaskError(
            " must be at least 0 and less than the size of a window",
            Remedy("Leave it out, or say less than {}", Use(patch_size=patch)),
            option=Use(overlap=overlap),
        )
    if asked.patch_size is None:
        patch = fitting_patch(cells, patch, largest, overlap)
    return int(patch), int(overlap)


def threshold_of(asked: PredictOptions, spec: ModelSpec, answer: Scheme) -> float | None:
    """Return the probability of cloud that suffices; None where the likeliest class decides."""
    value = asked.threshold
    decides = any(answer.cloudy) and not all(answer.cloudy)
    if value is None and asked.output == "classes" and decides:
        value = spec.threshold  # what the model's author says suffices
    if value is None:
        return None
    if not decides:
        raise CloudMaskError(
            f" decides between cloud and the rest, and the scheme {answer.name!r} of model {spec.name!r} has "
            f"only {', '.join(answer.names)};",
            "leave threshold out",
            option=Use(threshold=value),
        )
    return float(value)


def shadow_threshold_of(asked: PredictOptions, spec: ModelSpec, answer: Scheme) -> float | None:
    """Return the model's, if shadow is a class of the answer and there is another that is no cloud."""
    rest = [name for name, cloudy in zip(answer.names, answer.cloudy, strict=True) if not cloudy]
    if asked.output != "classes" or SHADOW not in rest or len(rest) < 2:
        return None
    return spec.shadow_threshold


def views_of(tta: bool | int) -> int:
    """How many turns and mirrors of a window to average; 0 for the window alone."""
    if isinstance(tta, (bool, np.bool_)):
        return len(TURNS) if tta else 0
    if not isinstance(tta, (int, np.integer)) or not 1 <= tta <= len(TURNS):
        raise OptionError(
            "tta", tta, allowed=("False", "True", f"or a number of views from 1 to {len(TURNS)}")
        )
    return 0 if tta == 1 else int(tta)


def uncertainty_of(asked: PredictOptions, spec: ModelSpec) -> bool:
    """Whether the spread is asked for; an error where there is nothing to tell it from."""
    if not asked.uncertainty:
        return False
    if asked.output != "probabilities":
        raise CloudMaskError(
            " comes with probabilities",
            Remedy("Use predict_proba, or say {}", Use(output="probabilities")),
            option=Use(uncertainty=True),
        )
    if spec.uncertainty or (views_of(asked.tta) and CLOUDY & set(spec.classes)):
        return True
    having = [known.name for known in readable() if known.uncertainty]
    raise CloudMaskError(
        f": model {spec.name!r} has one member, which cannot disagree with itself",
        Remedy(
            "{} tells the spread between turns and mirrors of each window"
            + (f"; models with several members: {', '.join(having)}" if having else ""),
            Use(tta=True),
        ),
        option=Use(uncertainty=True),
    )


def working_factors(
    size: tuple[float, float] | None, spec: ModelSpec, resolution: str | float
) -> tuple[int, int]:
    """How many pixels a working cell has along rows and columns."""
    if resolution == "native" or (resolution == "auto" and spec.gsd is None):
        return 1, 1
    as_they_are = Use(working_resolution="native")
    if size is None:
        warn_user(
            f"the pixel size is not known (no coordinates in metres or degrees): model {spec.name!r} runs on "
            "the pixels as they are",
            UnitWarning,
            Remedy("Give the array y and x coordinates, or say {}", as_they_are),
        )
        return 1, 1
    if resolution != "auto":
        wanted = float(resolution)
        if wanted < 0.75 * min(size):
            warn_user(
                f" m is finer than the pixels ({min(size):.3g} m): model {spec.name!r} runs on the pixels as "
                "they are",
                UnitWarning,
                option=Use(working_resolution=resolution),
            )
        return max(1, round(wanted / size[0])), max(1, round(wanted / size[1]))
    low, high = spec.gsd or size
    if too_coarse(max(size), spec):
        warn_user(
            f"the pixels are {max(size):.4g} m and model {spec.name!r} was trained on {low:g} to {high:g} m: "
            "what it says of them was never tested",
            UnitWarning,
            Remedy("xcloudmask.models.names() names others; {} runs it without this warning", as_they_are),
        )
    best = math.sqrt(low * high)

    def factor(pixel: float) -> int:
        if pixel >= low:
            return 1
        guess = math.floor(best / pixel)
        return min((max(guess, 1), guess + 1), key=lambda k: abs(math.log(k * pixel / best)))

    return factor(size[0]), factor(size[1])
