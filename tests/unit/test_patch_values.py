"""Values of a patch come back as they were, or not at all."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dadafs.cache.values import SUM_BYTES, PatchValues, PatternValues
from dadafs.errors import BadData

DTYPES = st.sampled_from(["<u8", "<u4", "<u2", "<u1", "<f8"]).map(np.dtype)
FRAMES = st.integers(1, 9)
SHAPES = st.lists(st.integers(1, 4), max_size=2).map(tuple)
KEY = b"k" * 32
KINDS = st.sampled_from([bytes, bytearray, memoryview])


def random(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(size), dtype).reshape(shape)


def patch(frames: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> PatchValues:
    return PatchValues(
        random((frames,), np.dtype(np.uint8), seed=1), random((frames, *shape), dtype)
    )


def resummed(body: bytes) -> bytes:
    return blake2b(body, digest_size=SUM_BYTES, key=KEY).digest() + body


@settings(deadline=None, derandomize=True)
@given(FRAMES, SHAPES, DTYPES, KINDS)
def test_values_come_back(
    frames: int, shape: tuple[int, ...], dtype: np.dtype[Any], kind: type[Any]
) -> None:
    made = patch(frames, shape, dtype)
    back = PatchValues.decode(KEY, kind(made.encode(KEY)), frames, (frames, *shape), dtype)
    assert back.status.tobytes() == made.status.tobytes()
    assert back.values.tobytes() == made.values.tobytes()
    assert (back.values.shape, back.values.dtype) == ((frames, *shape), dtype)
    assert back.nbytes == made.nbytes == len(made.encode(KEY)) - SUM_BYTES


@settings(deadline=None, derandomize=True)
@given(FRAMES, SHAPES, DTYPES, st.data())
def test_any_flipped_bit_is_noticed(
    frames: int, shape: tuple[int, ...], dtype: np.dtype[Any], data: st.DataObject
) -> None:
    encoded = bytearray(patch(frames, shape, dtype).encode(KEY))
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadData, match="damaged"):
        PatchValues.decode(KEY, encoded, frames, (frames, *shape), dtype)


def test_values_of_another_patch_are_damaged() -> None:
    made = patch(4, (3,), np.dtype("<u2")).encode(KEY)
    with pytest.raises(BadData, match="damaged"):
        PatchValues.decode(b"another", made, 4, (4, 3), np.dtype("<u2"))
    layers, shape = pattern(4, (2, 2), [np.dtype("<u2")])
    with pytest.raises(BadData, match="damaged"):
        PatternValues.decode(b"another", layers.encode(KEY), 4, shape)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=40))
def test_random_bytes_are_damaged(encoded: bytes) -> None:
    with pytest.raises(BadData, match="damaged"):
        PatchValues.decode(KEY, encoded, 2, (2, 3), np.dtype("<u8"))
    with pytest.raises(BadData, match="damaged"):
        PatternValues.decode(KEY, encoded, 2, (3, 2, 2))


@pytest.mark.parametrize("change", [-3, -1, 1, 8])
def test_values_of_another_shape(change: int) -> None:
    body = patch(4, (3,), np.dtype("<u2")).encode(KEY)[SUM_BYTES:]
    other = body[:change] if change < 0 else body + bytes(change)
    with pytest.raises(BadData, match="another shape"):
        PatchValues.decode(KEY, resummed(other), 4, (4, 3), np.dtype("<u2"))


@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * 4])
def test_too_short_for_its_statuses(body: bytes) -> None:
    with pytest.raises(BadData, match="another shape"):
        PatchValues.decode(KEY, resummed(body), 5, (5, 1), np.dtype("<u1"))
    with pytest.raises(BadData, match="another shape"):
        PatternValues.decode(KEY, resummed(body), 5, (3, 1, 1))


def test_values_of_a_whole_patch_need_not_be_per_frame() -> None:
    made = PatchValues(np.zeros(3, np.uint8), np.arange(12, dtype=np.uint64).reshape(3, 2, 2))
    back = PatchValues.decode(KEY, made.encode(KEY), 3, (3, 2, 2), np.dtype(np.uint64))
    np.testing.assert_array_equal(back.values, made.values)


LAYERS = st.lists(
    st.sampled_from(["<u1", "<u2", "<u4", "<u8"]).map(np.dtype), min_size=1, max_size=4
)
PLANES = st.tuples(st.integers(1, 5), st.integers(1, 5))


def pattern(
    frames: int, plane: tuple[int, int], dtypes: list[np.dtype[Any]]
) -> tuple[PatternValues, tuple[int, ...]]:
    status = random((frames,), np.dtype(np.uint8))
    layers = tuple(random(plane, dtype, seed) for seed, dtype in enumerate(dtypes))
    return PatternValues(status, layers), (len(dtypes), *plane)


@settings(deadline=None, derandomize=True)
@given(FRAMES, PLANES, LAYERS, KINDS)
def test_patterns_come_back(
    frames: int, plane: tuple[int, int], dtypes: list[np.dtype[Any]], kind: type[Any]
) -> None:
    made, shape = pattern(frames, plane, dtypes)
    back = PatternValues.decode(KEY, kind(made.encode(KEY)), frames, shape)
    np.testing.assert_array_equal(back.status, made.status)
    assert [layer.dtype for layer in back.layers] == dtypes
    for layer, other in zip(back.layers, made.layers, strict=True):
        np.testing.assert_array_equal(layer, other)
    assert back.nbytes == made.nbytes


@settings(deadline=None, derandomize=True)
@given(FRAMES, PLANES, LAYERS, st.data())
def test_pattern_of_another_shape(
    frames: int, plane: tuple[int, int], dtypes: list[np.dtype[Any]], data: st.DataObject
) -> None:
    made, shape = pattern(frames, plane, dtypes)
    body = made.encode(KEY)[SUM_BYTES:]
    cut = data.draw(st.integers(0, len(body) - 1))
    for other in (body[:cut], body + b"\0", b"\3" + body[1:], b"\0" + body[1:]):
        with pytest.raises(BadData, match="another shape"):
            PatternValues.decode(KEY, resummed(other), frames, shape)


def test_layers_that_are_views_are_encoded_as_they_look() -> None:
    whole = np.arange(24, dtype=np.uint16).reshape(4, 6)
    made = PatternValues(np.zeros(2, np.uint8), (whole[:, ::2], whole.T[:3].T))
    back = PatternValues.decode(KEY, made.encode(KEY), 2, (2, 4, 3))
    np.testing.assert_array_equal(back.layers[0], whole[:, ::2])
    np.testing.assert_array_equal(back.layers[1], whole[:, :3])
