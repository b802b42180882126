from typing import Final, NoReturn, Self

from typing_extensions import disjoint_base

C_API_VERSION: Final[int]

@disjoint_base
class Handle:
    def __new__(cls, database: object) -> Self: ...
    def __reduce__(self) -> NoReturn: ...

@disjoint_base
class Batch:
    def __new__(cls, handle: Handle) -> Self: ...
    def __reduce__(self) -> NoReturn: ...
