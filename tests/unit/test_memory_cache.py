"""The memory cache against a list in order of use."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.cache.memory import MemoryCache

KEYS = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 12)),
    st.tuples(st.just("get"), KEYS, st.just(0)),
    st.tuples(st.just("discard"), KEYS, st.just(0)),
)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 20), st.lists(STEPS, max_size=40))
def test_cache_against_a_model(max_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    cache: MemoryCache[int, str] = MemoryCache(max_bytes)
    model: list[tuple[int, str, int]] = []  # least recently used first
    for number, (what, key, size) in enumerate(steps):
        held = next((entry for entry in model if entry[0] == key), None)
        if what == "get":
            assert cache.get(key) == (held[1] if held else None)
            if held:
                model.remove(held)
                model.append(held)
        elif held:
            model.remove(held)
        if what == "discard":
            cache.discard(key)
        if what == "put":
            cache.put(key, f"value {number}", size)
            if size <= max_bytes:
                model.append((key, f"value {number}", size))
            while sum(entry[2] for entry in model) > max_bytes:
                del model[0]
        assert len(cache) == len(model)
        assert cache.used_bytes == sum(entry[2] for entry in model) <= max_bytes
        assert list(cache._held) == [entry[0] for entry in model]


def test_value_that_is_too_large_replaces_the_old_one_by_nothing() -> None:
    cache: MemoryCache[str, str] = MemoryCache(10)
    cache.put("a", "old", 3)
    cache.put("b", "kept", 3)
    cache.put("a", "new", 11)
    assert (cache.get("a"), cache.get("b")) == (None, "kept")
