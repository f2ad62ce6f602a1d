"""Analyses that users write: one function of a decoded frame, declared by a decorator.

    from analysis.plugins import frame_analysis, number

    @frame_analysis(
        title="hot pixels",
        channels={"pixels": "px"},
        parameters={"threshold": number(10, minimum=0, unit="counts")},
    )
    def hot(frame, geometry, params):
        return (frame > params.threshold).sum()

Each frame is reduced by itself, so a result is a map, or a stack of profiles where a `length` is
declared. `docs/plugins.md` has the whole story.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.definition import Additive, Analysis, Channel, Role, Settings
from analysis.healing import Healing
from analysis.kernels.codecs import Blocks, bytes_of, form_of, pack_selection, pixels_of
from analysis.parameters import CORRECTED, PARAMETERS, Parameter
from analysis.plan import Geometry, Plan
from analysis.selection import radius, scattering_vector
from analysis.version import code_version

PREFIX = "plugin:"
"""Of the names of passes that plug-ins bring."""
MAX_LENGTH = 1 << 16
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")
_RESERVED = {
    *PARAMETERS,
    *("horz", "vert", "first", "order", "region", "channel", "frames", "raw"),
    *("mask", "norm", "background", "cmap", "scale", "vmin", "vmax"),
}
_NOT_LINEAR = (
    "it is not declared linear=True: what an analysis makes of scaled counts, or of a difference,"
    " follows from its numbers only where these are sums of the counts with fixed weights"
)


class PluginFailed(Exception):
    """A plug-in raised, or returned something else than it declared. One line, for its author."""


@dataclass(frozen=True, slots=True)
class Number:
    """A parameter of a plug-in and its default."""

    default: float
    minimum: float | None
    maximum: float | None
    unit: str
    meaning: str

    def named(self, name: str) -> Parameter:
        """The parameter as the grammar of paths knows it."""
        kind = "int" if isinstance(self.default, int) else "float"
        return Parameter(name, kind, self.minimum, self.maximum, self.unit, self.meaning)  # type: ignore[arg-type]


def number(
    default: float,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    meaning: str = "",
) -> Number:
    """Declare a parameter: a whole number where `default` is one, else any number.

    Paths with values out of range do not exist. ValueError where the default itself is.
    """
    if (minimum is not None and default < minimum) or (maximum is not None and default > maximum):
        raise ValueError(f"the default {default} is not within {minimum} to {maximum}")
    return Number(default, minimum, maximum, unit, meaning)


class FrameGeometry:
    """What a plug-in may ask of the detector. Arrays are made when first asked for, then kept."""

    def __init__(self, plan: Plan, chosen: NDArray[np.bool_]) -> None:
        self.shape = plan.shape
        """Rows and columns."""
        self.cx = plan.cx
        """Beam centre, column, pixels; None unless the analysis `needs_centre`."""
        self.cy = plan.cy
        self.detector: Geometry | None = plan.geometry
        """Distance, wavelength, pixel size; None where unknown."""
        self.selected = chosen
        """S with what is healed of it, and without what has no flat field, bool (rows, columns).
        Sentinels are each frame's own."""
        self.selected.flags.writeable = False

    @cached_property
    def dx(self) -> NDArray[np.float64]:
        """Columns minus beam centre (columns,), pixels."""
        return np.arange(self.shape[1], dtype=np.float64) - self._centre()[0]

    @cached_property
    def dy(self) -> NDArray[np.float64]:
        """Rows minus beam centre (rows, 1), pixels, down."""
        return (np.arange(self.shape[0], dtype=np.float64) - self._centre()[1])[:, None]

    @cached_property
    def r(self) -> NDArray[np.float64]:
        """Distance of each pixel from the beam (rows, columns), pixels."""
        return radius(self.shape, *self._centre())

    @cached_property
    def q(self) -> NDArray[np.float64]:
        """Scattering vector of each pixel (rows, columns), 1/nm."""
        if self.detector is None:
            raise PluginFailed("distance, wavelength or pixel size of this scan is unknown")
        return scattering_vector(self.r, self.detector)

    def _centre(self) -> tuple[float, float]:
        if self.cx is None or self.cy is None:
            raise PluginFailed("declare needs_centre=True to use the beam centre")
        return self.cx, self.cy


Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Fused:
    """A visitor of pixels that numba compiles into the block reader."""

    visit: Function
    totals: int
    finish: Function | None


class Plugin:
    """An analysis of a user's: what the decorator makes of a function."""

    def __init__(
        self,
        function: Function,
        name: str,
        title: str,
        definition: str,
        channels: Mapping[str, str],
        parameters: Mapping[str, Number],
        length: int,
        needs_centre: bool,
        linear: bool,
    ) -> None:
        self.function = function
        self.name = name
        self.parameters = dict(parameters)
        self.length = length
        self.needs_centre = needs_centre
        self.visitor: Fused | None = None
        self.source = b""
        """Of the file it stands in: part of the key of its results."""
        self.analysis = Analysis(
            name=name,
            result="stack" if length > 1 else "map",
            title=title,
            definition=definition,
            channels=tuple(Channel(one, unit, "") for one, unit in channels.items()),
            parameters=(*CORRECTED, *parameters),
            reduction=PREFIX + name,
            finish=_finish_stack if length > 1 else _finish_map,
            additive=_linear(len(channels), length) if linear else None,
            uncorrected="" if linear else _NOT_LINEAR,
            needs_centre=needs_centre,
            own=tuple(one.named(key) for key, one in parameters.items()),
            defaults=tuple((key, one.default) for key, one in parameters.items()),
        )

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def fused(self, *, totals: int = 1, finish: Function | None = None) -> Callable[..., Function]:
        """Declare a faster way to the same result, used for raw counts of bitshuffled frames.

        The function decorated, `visit(totals, counts, dx, dy, params)`, is compiled by numba and
        called for each selected pixel with counts: `totals` is float64 (totals,), zero at first,
        `dx` and `dy` are the pixel's offsets from the beam (from pixel (0, 0) without
        `needs_centre`), `params` the parameters as float64, in the order of their declaration.
        `finish(totals, geometry, params)` makes the result of the frame; without it, the totals
        are the result.
        """

        def declare(visit: Function) -> Function:
            self.visitor = Fused(visit, totals, finish)
            return visit

        return declare

    @property
    def version(self) -> str:
        """Digest of its source and of the code that calls it."""
        return blake2b(self.source + _OWN_VERSION.encode(), digest_size=6).hexdigest()

    def value_shape(self) -> tuple[int, ...]:
        """Channels, and numbers of a profile."""
        return len(self.analysis.channels), self.length


_OWN_VERSION = code_version(
    "analysis.plugins",
    "analysis.selection",
    "analysis.healing",
    "analysis.reductions.flattened",
    "analysis.kernels.visiting",
)


def frame_analysis(
    *,
    title: str,
    channels: Mapping[str, str],
    parameters: Mapping[str, Number] | None = None,
    definition: str = "",
    name: str = "",
    length: int = 1,
    needs_centre: bool = False,
    linear: bool = False,
) -> Callable[[Function], Plugin]:
    """Make an analysis of a function `(frame, geometry, params) -> number or array`.

    Parameters
    ----------
    title : a few words for a listing.
    channels : unit by name, of each quantity that is returned, in order.
    parameters : declared by `number(default, ...)`; lower-case names.
    definition : the formula; the first paragraph of the docstring where there is none here.
    name : of the directory in the mount; the function's name where there is none here.
    length : numbers in each channel: more than one makes a stack of profiles.
    needs_centre : refuse scans whose beam centre is unknown; else `cx`, `cy` are None.
    linear : every number is a sum of the counts with fixed weights: f(a I + b J) = a f(I) + b f(J).
        Then `norm` and `background` have a meaning.

    `frame` is (rows, columns) in the detector's dtype, float64 after a flat field, 0 where a pixel
    is not selected or not valid; `params` has the parameters as attributes. What is returned has
    one number for each channel, or (channels, length). ValueError for a declaration that cannot be.
    """

    def declare(function: Function) -> Plugin:
        chosen = name or function.__name__
        given = dict(parameters or {})
        for one in (chosen, *given, *channels):
            if not _NAME.match(one):
                raise ValueError(f"{one!r} is no name: lower-case letters, digits, _")
        if clash := _RESERVED & {chosen, *given}:
            raise ValueError(f"the name {clash.pop()!r} is taken")
        if not channels or not 1 <= length <= MAX_LENGTH:
            raise ValueError(f"channels: at least one; length: 1 to {MAX_LENGTH}")
        about = definition or (function.__doc__ or title).strip().partition("\n\n")[0]
        return Plugin(
            function,
            chosen,
            title,
            " ".join(about.split()),
            channels,
            given,
            length,
            needs_centre,
            linear,
        )

    return declare


class PluginReduction:
    """The pass of a plug-in."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.name = plugin.analysis.reduction
        self.version = plugin.version
        centre = {"cx", "cy"} if plugin.needs_centre else set()
        self.uses = frozenset({"geometry", "extra", *centre})

    def prepare(self, plan: Plan) -> PreparedPlugin:
        """Build the selection; compile the visitor where there is one."""
        return PreparedPlugin(self.plugin, plan)


class PreparedPlugin:
    """A plug-in and the parameters of one plan."""

    value_dtype = np.dtype(np.float64)

    def __init__(self, plugin: Plugin, plan: Plan, usable: NDArray[np.bool_] | None = None) -> None:
        """With a flat field, `usable` are the pixels that it can be applied to."""
        self._plugin = plugin
        self._plan = plan
        self._healing = Healing(plan)
        covered = self._healing.covered
        # Limits and healing need the beam centre: a function that does not is not told of it.
        told = plan if plugin.needs_centre else replace(plan, cx=None, cy=None)
        self._geometry = FrameGeometry(told, covered if usable is None else covered & usable)
        values = dict(plan.extra)
        numbers = [values.get(key, one.default) for key, one in plugin.parameters.items()]
        self._numbers = np.array(numbers, np.float64)
        self._params = SimpleNamespace(
            **{
                key: int(value) if isinstance(one.default, int) else float(value)
                for (key, one), value in zip(plugin.parameters.items(), numbers, strict=True)
            }
        )
        self._visiting: Any = None
        if plugin.visitor is not None and not plan.heal and not plan.flat:
            from analysis.kernels.visiting import Visiting  # loads numba

            self._packed = pack_selection(self._geometry.selected)
            self._visiting = Visiting(plugin.visitor.visit, told, self._numbers)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Channels, numbers of a profile."""
        return self._plugin.value_shape()

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Have the function reduce a decoded frame. PluginFailed where it cannot."""
        pixels = pixels_of(frame, self._plan).reshape(self._plan.shape)
        if self._visiting is not None:
            totals = self._totals()
            self._guarded(self._visiting.pixels, pixels.reshape(-1), self._packed, totals)
            self._finish(totals, out)
            return
        counts, valid = self._healing.frame(pixels)
        self.take(np.where(valid, counts, counts.dtype.type(0)), out)

    def take(self, counts: NDArray[Any], out: NDArray[Any]) -> None:
        """Have the function reduce counts (height, width) that are 0 where they do not count."""
        counts.flags.writeable = False
        self._store(self._guarded(self._plugin.function, counts, self._geometry, self._params), out)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle, where there is a visitor."""
        return self._visiting is not None and isinstance(form_of(codec, self._plan), Blocks)

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Visit the pixels of a chunk; False when it is corrupt."""
        form = form_of(codec, self._plan)
        assert isinstance(form, Blocks)
        totals = self._totals()
        good = self._guarded(
            self._visiting.blocks, bytes_of(chunk), form.layout, form.block, self._packed, totals
        )
        if good:
            self._finish(totals, out)
        return bool(good)

    def _totals(self) -> NDArray[np.float64]:
        assert self._plugin.visitor is not None
        return np.zeros(self._plugin.visitor.totals, np.float64)

    def _finish(self, totals: NDArray[np.float64], out: NDArray[Any]) -> None:
        visitor = self._plugin.visitor
        assert visitor is not None
        result: Any = totals
        if visitor.finish is not None:
            result = self._guarded(visitor.finish, totals, self._geometry, self._params)
        self._store(result, out)

    def _guarded(self, function: Function, *args: Any) -> Any:
        try:
            return function(*args)
        except PluginFailed:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            line = " ".join(str(exc).split())[:300]
            raise PluginFailed(f"{self._plugin.name}: {type(exc).__name__}: {line}") from exc

    def _store(self, result: Any, out: NDArray[Any]) -> None:
        try:
            array = np.asarray(result, np.float64)
        except (TypeError, ValueError) as exc:
            raise PluginFailed(f"{self._plugin.name} returned {type(result).__name__}") from exc
        allowed = {self.value_shape}
        if self.value_shape[1] == 1:
            allowed.add(self.value_shape[:1])
        if self.value_shape[0] == 1:
            allowed.add(self.value_shape[1:])
        if self.value_shape == (1, 1):
            allowed.add(())
        if array.shape not in allowed:
            raise PluginFailed(
                f"{self._plugin.name} returned an array of shape {array.shape},"
                f" declared is {self.value_shape}"
            )
        out[...] = array.reshape(self.value_shape)


def _linear(channels: int, length: int) -> Additive:
    """What a linear plug-in returns: numbers that can be scaled, and subtracted from each other."""

    def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
        """(n, channels, length), a copy; without the last axis for a map."""
        del settings
        return np.array(values if length > 1 else values[:, :, 0], np.float64)

    def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
        """The same, channels first."""
        del settings
        return parts.swapaxes(0, 1)

    role: Role = "counts"
    return Additive((role,) * channels, parts, of_parts)


def _finish_map(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """(n, channels, 1) to (channels, n)."""
    del settings
    return np.array(values[:, :, 0].T, np.float64)


def _finish_stack(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """(n, channels, length) to (channels, n, length)."""
    del settings
    return np.array(values.transpose(1, 0, 2), np.float64)
