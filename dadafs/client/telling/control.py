"""The service behind the commands: it answers on a Unix socket, past the mount."""

from __future__ import annotations

import os
from typing import Any

from dadafs.client.telling.auditing import Auditor
from dadafs.client.telling.explaining import explain_or_refuse
from dadafs.client.telling.status import Status
from dadafs.client.tree.accounts import Accounts
from dadafs.client.tree.items import Item
from dadafs.client.tree.namespace import Namespace
from dadafs.errors import NoSuchPath, UsageError
from dadafs.rpc.calls import Request
from dadafs.rpc.messages import (
    AskErrors,
    AskFile,
    AskJobs,
    AskPart,
    AskPeers,
    AskReport,
    AskStatus,
    Explain,
    FileFacts,
    ReadPart,
    ReadRaw,
    Report,
)
from dadafs.rpc.service import Answer, Handler, Service

PART_BYTES = 8 << 20  # of a file at a time: what a caller may have us hold


def control_service(
    namespace: Namespace, accounts: Accounts, auditor: Auditor, status: Status
) -> Service:
    """Questions about a mount, and its files for programs that do not go through the kernel."""

    async def explain(request: Explain) -> Answer:
        return await explain_or_refuse(namespace, accounts, request.path), b""

    async def tell(request: AskStatus) -> Answer:
        return await status.stats(), b""

    async def peers(request: AskPeers) -> Answer:
        return await status.peers(), b""

    async def jobs(request: AskJobs) -> Answer:
        return await status.jobs(), b""

    async def errors(request: AskErrors) -> Answer:
        return await status.errors(), b""

    async def report(request: AskReport) -> Answer:
        return Report(os.getpid(), 0, {}), b""

    async def about(request: AskFile) -> Answer:
        item = await _file(namespace, request.path)
        version = f"{item.identity.hex()} {item.version}"
        attributes = item.attributes
        return FileFacts(attributes.size, attributes.mtime_ns, version, item.live), b""

    async def read(request: ReadPart) -> Answer:
        if request.offset < 0 or not 0 < request.size <= PART_BYTES:
            raise UsageError(f"at most {PART_BYTES} bytes can be read at a time")
        await _file(namespace, request.path)
        file, _ = await namespace.open(request.path)
        try:
            return None, await file.read(request.offset, request.size)
        finally:
            file.close()

    async def part(request: AskPart) -> Answer:
        return await auditor.part(request.path, request.number)

    async def raw(request: ReadRaw) -> Answer:
        return None, await auditor.raw(request)

    handlers: dict[type[Request[Any]], Handler] = {
        Explain: explain,
        AskStatus: tell,
        AskPeers: peers,
        AskJobs: jobs,
        AskErrors: errors,
        AskReport: report,
        AskFile: about,
        ReadPart: read,
        AskPart: part,
        ReadRaw: raw,
    }
    return Service("control", handlers)


async def _file(namespace: Namespace, path: bytes) -> Item:
    """The file at `path`. NoSuchPath where there is none."""
    try:
        item = await namespace.item(path)
    except NoSuchPath as exc:
        raise NoSuchPath(f"/{os.fsdecode(path)}: {exc}") from exc
    if item.attributes.kind != "file":
        kind = item.attributes.kind
        raise NoSuchPath(f"/{os.fsdecode(path)} is a {kind}; name a file in it, such as full.npy")
    return item
