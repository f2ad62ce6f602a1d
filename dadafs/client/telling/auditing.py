"""The values of a result as readers get them, and its raw data, for who computes them again."""

from __future__ import annotations

import os

import trio

from dadafs.cache.store import Store
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job
from dadafs.client.tree.inventory import Inventories, Need, parts_of
from dadafs.client.tree.namespace import Namespace
from dadafs.client.tree.resultfile import want
from dadafs.client.upstream.files import RawFiles
from dadafs.errors import BadData, NoSuchPath, UsageError
from dadafs.requests import Result
from dadafs.rpc.messages import PartFacts, ReadRaw
from dadafs.scans.model import Attributes

MAX_RAW_BYTES = 1 << 28  # a chunk: 30 times an uncompressed frame of 4M pixels


class Auditor:
    """Hands out parts of results. What is not there is computed, as for a reader."""

    def __init__(
        self,
        namespace: Namespace,
        inventories: Inventories,
        farm: Farm,
        results: Store,
        raw_files: RawFiles,
    ) -> None:
        self._namespace = namespace
        self._inventories = inventories
        self._farm = farm
        self._results = results
        self._raw_files = raw_files

    async def part(self, path: bytes, number: int) -> tuple[PartFacts, bytes]:
        """A part of the result at `path`, and its values: a patch, or a whole pattern.

        NoSuchPath where the path is of no result, UsageError where it has no such part.
        """
        result = await self._result(path)
        needs = await self._inventories.of(result)
        if needs[0].whole is not None:
            return await self._pattern(path, result, needs, number)
        parts = parts_of(needs)
        _check(number, len(parts))
        part = parts[number]
        need = next(need for need in needs if part in need.parts)
        frames = await self._inventories.patch(need, part)
        wanted = want(result, result.plan.digest(), frames, per_frame=True)
        (values,) = await self._farm.values(Job(os.fsdecode(path)), [wanted])
        slices, count = (wanted.frames,), frames.count
        facts = PartFacts(len(parts), wanted.key, result.plan, slices, count, whole=False)
        return facts, values.encode(wanted.key)

    async def _pattern(
        self, path: bytes, result: Result, needs: tuple[Need, ...], number: int
    ) -> tuple[PartFacts, bytes]:
        _check(number, len(needs))
        key, count = needs[number].whole, len(needs[number].used)
        assert key is not None
        encoded = await trio.to_thread.run_sync(self._results.get, key)
        if encoded is None:  # read all of it: the layers are kept
            file, item = await self._namespace.open(path)
            try:
                await file.read(0, item.attributes.size)
            finally:
                file.close()
            encoded = await trio.to_thread.run_sync(self._results.get, key)
        if encoded is None:
            raise BadData("the store keeps nothing of it: is its disk full?")
        frames = await self._inventories.slices(result.chosen[number])
        return PartFacts(len(needs), key, result.plan, frames, count, whole=True), encoded

    async def raw(self, request: ReadRaw) -> bytes | memoryview:
        """Bytes of a raw file."""
        if request.offset < 0 or not 0 < request.size <= MAX_RAW_BYTES:
            raise UsageError(f"at most {MAX_RAW_BYTES} bytes can be read at a time")
        of = request.identity
        attributes = Attributes("file", of.size, of.mtime_ns, 0o444, 0, 0, of.inode)
        file = self._raw_files.open(request.path, attributes)
        try:
            return await file.read(request.offset, request.size)
        finally:
            file.close()

    async def _result(self, path: bytes) -> Result:
        result = await self._namespace.result(path)
        if result is None:
            raise NoSuchPath("it is no result; name a file such as darkfield/full.npy")
        return result


def _check(number: int, parts: int) -> None:
    if not 0 <= number < parts:
        raise UsageError(f"the result has no part {number}, it has {parts}")
