"""Array types: numpy arrays as the sampler's files name them in their signatures."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[Any]  # indices of values: whole numbers, or floats where positions are among them
Bools: TypeAlias = NDArray[np.bool_]
