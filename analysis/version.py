"""Digests of code: results computed by other code are other results."""

from __future__ import annotations

from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path


def code_version(*modules: str) -> str:
    """12 hex digits that name the source of `modules` (dotted names; packages: their `__init__`).

    Reads the source files without importing them. FileNotFoundError for a module without source.
    """
    digest = blake2b(digest_size=6)
    for module in modules:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"no source for {module}")
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()
