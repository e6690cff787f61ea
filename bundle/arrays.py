"""Arrays of a bundle: memory-mapped and read-only, so that several processes share one copy."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.errors import ContractError

Shape = tuple[int, ...]


def load_array(path: Path, dtype: str | None = None, shape: Shape | None = None) -> npt.NDArray[Any]:
    """Map a `.npy` file. ContractError when it is none, or not of `dtype` and `shape` where they are given."""
    try:
        mapped: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable array: {error}") from error
    array = mapped.view(np.ndarray)  # a memmap costs 15 us an access more: 0.5 ms a request
    if (dtype is not None and array.dtype != dtype) or (shape is not None and array.shape != shape):
        needed = f"{dtype or array.dtype}{list(array.shape if shape is None else shape)}"
        raise ContractError(f"{path}: {array.dtype}{list(array.shape)}, the manifest needs {needed}")
    return array
