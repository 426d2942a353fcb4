"""Short names for the types of NumPy arrays: `Float`, `Bool` and their kin, for signatures."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
