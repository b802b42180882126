"""Text to vectors: what `AgentMemory` asks of an embedder, and the one that comes with it.

An embedder is any object with a `name`, a `dim` and a call from a list of texts to a float32 array.

1. What an embedder returns is checked before it is stored: one row a text, `dim` columns, float32,
   finite. Anything else is `VectorError`, and nothing is written.
2. `WordLlama` needs no network: its weights come inside the wheel of `wordllama`, and downloads are
   switched off.
3. Making an embedder is cheap; the model is loaded by the first call, once, by one thread.

It does not cache vectors, and it does not normalise them: the cosine metric needs no unit length.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import VectorError

__all__ = ["Embedder", "WordLlama", "as_vector", "embed", "identity"]

Vectors32 = NDArray[np.float32]

# Token rows gathered at once: bounds the memory of one long text to a few MiB.
_TOKENS_AT_ONCE = 4096


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns texts into vectors of one length.

    `name` and `dim` are its identity: a database stores both and refuses an embedder with others,
    for vectors of two models cannot be compared.
    """

    @property
    def name(self) -> str:
        """What tells this model, in this version, from any other."""
        ...

    @property
    def dim(self) -> int:
        """Components of each vector."""
        ...

    def __call__(self, texts: list[str], /) -> Vectors32:
        """The vectors of `texts`, float32 of shape `(len(texts), dim)`."""
        ...


class WordLlama:
    """Static token embeddings of WordLlama (`l2_supercat`), 256 components, offline, on the CPU.

    A text's vector is the mean of its tokens' vectors. Safe to call from any number of threads.

    Raises `ImportError` at the first call if the package `wordllama` is missing
    (`pip install 'waferdb[embed]'`).

    >>> WordLlama().dim
    256
    """

    name = "wordllama/l2_supercat/256"
    dim = 256

    def __init__(self) -> None:
        self._model: _Model | None = None
        self._loading = threading.Lock()

    def __call__(self, texts: list[str], /) -> Vectors32:
        """The vectors of `texts`, float32 of shape `(len(texts), 256)`."""
        return self._loaded().embed(texts)

    def __repr__(self) -> str:
        return f"WordLlama(name={self.name!r}, dim={self.dim})"

    def _loaded(self) -> _Model:
        if self._model is None:
            with self._loading:
                if self._model is None:
                    self._model = _Model(*_load_wordllama())
        return self._model


class _Model:
    """The token table and its tokenizer.

    WordLlama's own `embed` pads every text of a batch to the longest, which costs memory by the
    square and most of the time; the mean over each text's own tokens is the same number.
    """

    def __init__(self, table: Vectors32, tokenizer: Any) -> None:
        self._table = table
        self._tokenizer = tokenizer

    def embed(self, texts: list[str]) -> Vectors32:
        out = np.zeros((len(texts), self._table.shape[1]), dtype=np.float32)
        for row, encoding in enumerate(
            self._tokenizer.encode_batch(texts, add_special_tokens=False)
        ):
            ids = np.asarray(encoding.ids, dtype=np.int64)
            if not len(ids):
                continue
            np.clip(ids, 0, len(self._table) - 1, out=ids)
            for first in range(0, len(ids), _TOKENS_AT_ONCE):
                out[row] += self._table[ids[first : first + _TOKENS_AT_ONCE]].sum(axis=0)
            out[row] /= len(ids)
        return out


def _load_wordllama() -> tuple[Vectors32, Any]:
    # Importing wordllama configures the root logger; a library must leave that to the program.
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import wordllama
    except ImportError as error:
        raise ImportError(
            "the embedder WordLlama needs the package 'wordllama', which is not installed "
            f"({error}): run  pip install 'waferdb[embed]'  or bring an embedder or vectors of "
            "your own"
        ) from error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    # The wheel keeps its tokenizer beside its weights, where only a cache directory is looked for.
    model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, dim=WordLlama.dim, disable_download=True
    )
    model.tokenizer.no_padding()
    return model.embedding, model.tokenizer


def identity(embedder: Embedder) -> str:
    """The embedder's identity as a database stores it: JSON of its name and dim.

    Raises `TypeError` if `embedder` is none, `ValueError` if its name or dim is unusable.
    """
    if not isinstance(embedder, Embedder):
        raise TypeError(
            f"an embedder has a name, a dim and a call, {type(embedder).__name__} has not: "
            "see waferdb.embedders.Embedder"
        )
    # Checked at run time too: most callers do not run a type checker.
    name: object = embedder.name
    dim: object = embedder.dim
    if not isinstance(name, str) or not name:
        raise ValueError(f"an embedder's name is a text that is not empty, not {name!r}")
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ValueError(f"an embedder's dim is a whole number of at least 1, not {dim!r}")
    return json.dumps({"name": name, "dim": dim}, sort_keys=True, separators=(",", ":"))


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors32:
    """Calls the embedder and checks what it returns: float32 of shape `(len(texts), dim)`, finite.

    Raises `VectorError` saying what is wrong with the array; errors of the embedder pass through.
    """
    if not texts:
        return np.empty((0, embedder.dim), dtype=np.float32)
    out: Any = embedder(list(texts))
    called = f"embedder {embedder.name!r}"
    if not isinstance(out, np.ndarray):
        raise VectorError(f"{called} returned {type(out).__name__}, not a numpy array")
    if out.dtype != np.float32:
        raise VectorError(f"{called} returned {out.dtype}, not float32: add .astype('float32')")
    if out.shape != (len(texts), embedder.dim):
        raise VectorError(
            f"{called} returned shape {out.shape} for {len(texts)} texts, "
            f"not {(len(texts), embedder.dim)}"
        )
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        text = texts[int(bad[0])]
        raise VectorError(f"{called} returned NaN or infinity for {text[:60]!r}")
    return np.ascontiguousarray(out)


def as_vector(vector: ArrayLike, dim: int) -> Vectors32:
    """One vector given by the caller as float32 of shape `(dim,)`, else `VectorError`."""
    try:
        out = np.ascontiguousarray(vector, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"a vector is {dim} numbers: {error}") from error
    if out.shape != (dim,):
        raise VectorError(f"a vector of this memory has shape ({dim},), not {out.shape}")
    if not np.isfinite(out).all():
        raise VectorError("a vector holds finite numbers; this one has NaN or infinity")
    return out
