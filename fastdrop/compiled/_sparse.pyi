from numpy.typing import ArrayLike, DTypeLike

class SparseRows:
    samples: int
    features: int
    type: int
    def __init__(
        self,
        indptr: ArrayLike,
        indices: ArrayLike,
        data: ArrayLike,
        rows: ArrayLike,
        features: int,
        dtype: DTypeLike,
    ) -> None: ...
