"""What raster a scan has, of all that is said about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dadafs.scans.beside.fio import Recorded
from dadafs.scans.beside.overrides import Given
from dadafs.scans.beside.sidecars import Notes
from dadafs.scans.metadata.masters import TOLERANCE
from dadafs.scans.model import Axis, Raster


class Rastered(msgspec.Struct, frozen=True):
    """The raster of a scan."""

    raster: Raster | None = None
    axes: tuple[Axis, ...] = ()
    command: str = ""
    command_source: str = ""
    problems: tuple[str, ...] = ()
    withheld: str = ""
    """Why there is none although something gives one."""


def rastered(
    notes: Notes,
    frames: int,
    metadata: Mapping[str, str | int | float | None],
    grid: tuple[int, int] | None = None,
) -> Rastered:
    """The user's word, else the scan command, else the shape of the dataset, else the triggers.

    `grid` is points and lines of a dataset with an axis for each.
    """
    told = _commanded(notes.recorded, frames, ordered="order" in notes.given)
    if told.raster is None and not told.withheld and grid is not None:
        told = msgspec.structs.replace(
            told, raster=Raster(*grid, source="the shape of the dataset: lines x points")
        )
    triggered = _triggered(metadata)
    if told.raster is None and not told.withheld and triggered is not None:
        if frames <= triggered.horz * triggered.vert:
            told = msgspec.structs.replace(told, raster=triggered)
    elif triggered is not None and not notes.given.keys() & {"horz", "vert"}:
        told = _compared(told, triggered)
    return _placed(_overridden(told, notes.given, frames), notes.recorded, frames)


def _commanded(recorded: tuple[Recorded, ...], frames: int, *, ordered: bool) -> Rastered:
    """What the logs say. `ordered`: the user says in which order, whatever they say."""
    problems = [line for one in recorded for line in one.problems]
    found: list[tuple[Recorded, Raster]] = []
    for one in recorded:
        if one.command is not None:
            horz, vert = one.command.shape_for(frames)
            order = "snake" if one.snake else "raster"
            found.append((one, Raster(horz, vert, order, f"{one.source}: {one.command.text}")))  # type: ignore[arg-type]
    if not found:
        return Rastered(problems=tuple(problems))
    first, raster = found[0]
    snake = next((one for one, _ in found if one.snake), None)
    silent = next((one for one, _ in found if not one.snake), None)
    if snake is not None and silent is not None and not ordered:
        raster = msgspec.structs.replace(raster, order="snake")
        problems.append(
            f"the order is snake in {snake.source}, but not in {silent.source}: snake is used; give"
            " order=, or [raster] in geometry.toml"
        )
    withheld = ""
    for other, another in found[1:]:
        if (another.horz, another.vert) != (raster.horz, raster.vert):
            withheld = (
                f"the raster is {raster.horz} x {raster.vert} in {first.source} and {another.horz}"
                f" x {another.vert} in {other.source}: none is used; give horz= and vert=, or"
                " [raster] in geometry.toml"
            )
    if not withheld and frames > raster.horz * raster.vert:
        withheld = (
            f"{first.source} has {raster.horz} x {raster.vert} = {raster.horz * raster.vert}"
            f" points, but there are {frames} frames: its raster is not used; give horz= and"
            " vert=, or [raster] in geometry.toml"
        )
    assert first.command is not None
    if withheld:
        problems.append(withheld)
    return Rastered(
        None if withheld else raster,
        (),
        first.command.text,
        first.source,
        tuple(problems),
        withheld,
    )


def _triggered(metadata: Mapping[str, str | int | float | None]) -> Raster | None:
    """A line for each trigger, where both are more than one.

    That is how a line is recorded in flight: its motor starts, one trigger, a series of images.
    With one image a trigger, or one trigger for all, nothing tells where a line ends.
    """
    images, triggers = metadata.get("nimages"), metadata.get("ntrigger")
    if isinstance(images, int) and isinstance(triggers, int) and images > 1 and triggers > 1:
        return Raster(images, triggers, source="nimages x ntrigger: a line for each trigger")
    return None


def _compared(told: Rastered, triggered: Raster) -> Rastered:
    raster = told.raster
    if raster is None:
        return told
    same = (triggered.horz, triggered.vert) == (raster.horz, raster.vert)
    if same or triggered.horz * triggered.vert != raster.horz * raster.vert:
        return told
    line = (
        f"the raster is {raster.horz} x {raster.vert} by {raster.source}, but the detector had"
        f" {triggered.vert} triggers of {triggered.horz} images"
    )
    return msgspec.structs.replace(told, problems=(*told.problems, line))


def _overridden(told: Rastered, given: Mapping[str, Given], frames: int) -> Rastered:
    """Apply what the user says, value by value."""
    keys = [key for key in ("horz", "vert", "first", "order") if key in given]
    if not keys:
        return told
    first = _whole(given, "first") or 0
    rest = max(frames - first, 1)
    horz, vert = _whole(given, "horz"), _whole(given, "vert")
    base = told.raster
    if horz is None and vert is None:
        horz, vert = (base.horz, base.vert) if base is not None else (rest, 1)
    elif horz is None:
        horz = -(-rest // (vert or 1))
    elif vert is None:
        vert = -(-rest // horz)
    assert horz is not None
    assert vert is not None
    problems = told.problems
    if "horz" in given or "vert" in given:
        problems = tuple(line for line in problems if line != told.withheld)
        told = msgspec.structs.replace(told, withheld="")
    if frames and first >= frames:
        line = f"{given['first'].source} = {first}, but the scan has {frames} frames: not used"
        problems, first = (*problems, line), 0
    order = str(given["order"].value) if "order" in given else (base.order if base else "raster")
    source = ", ".join(given[key].source for key in keys)
    if base is not None and not ("horz" in given and "vert" in given):
        source += f"; {base.source}"
    return msgspec.structs.replace(
        told,
        raster=Raster(horz, vert, order, source, first),  # type: ignore[arg-type]
        problems=problems,
    )


def _placed(told: Rastered, recorded: tuple[Recorded, ...], frames: int) -> Rastered:
    """Add the motors, of the logs that have just this raster; none where these contradict."""
    if told.raster is None:
        return told
    shape = (told.raster.horz, told.raster.vert)
    fitting = [
        one
        for one in recorded
        if one.command is not None and one.axes and one.command.shape_for(frames) == shape
    ]
    # Where a relative scan began may be in one log only.
    fitting.sort(key=lambda one: any(axis.relative for axis in one.axes))
    for other in fitting[1:]:
        if not _same(fitting[0].axes, other.axes):
            line = (
                f"the motors are {_words(fitting[0].axes)} in {fitting[0].source} and"
                f" {_words(other.axes)} in {other.source}: lines and points are counted"
            )
            return msgspec.structs.replace(told, problems=(*told.problems, line))
    return msgspec.structs.replace(told, axes=fitting[0].axes) if fitting else told


def _same(axes: tuple[Axis, ...], others: tuple[Axis, ...]) -> bool:
    """Whether these are the same motors, and went as far."""
    if len(axes) != len(others):
        return False
    for one, other in zip(axes, others, strict=True):
        (start, end), (other_start, other_end) = _ends(one), _ends(other)
        shift = 0.0 if one.relative == other.relative else start - other_start
        off = max(abs(start - other_start - shift), abs(end - other_end - shift))
        if one.motor != other.motor or off > TOLERANCE * abs(end - start):
            return False
    return True


def _words(axes: tuple[Axis, ...]) -> str:
    return ", ".join("{} {:g} to {:g}".format(one.motor, *_ends(one)) for one in axes)


def _ends(axis: Axis) -> tuple[float, float]:
    return axis.start or 0.0, axis.end or 0.0


def _whole(given: Mapping[str, Given], key: str) -> int | None:
    value = given[key].value if key in given else None
    return int(value) if value is not None else None
