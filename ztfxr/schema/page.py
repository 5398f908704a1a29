"""The page of all variables, bit planes and attributes, made from the registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ztfxr.schema.attributes import ATTRS
from ztfxr.schema.planes import FLAG_PLANES, Plane
from ztfxr.schema.specs import Spec
from ztfxr.schema.variables import SECTIONS

__all__ = ["schema_page"]

_HEAD = """# Variables, flags and attributes

Made by `python -m ztfxr.schema` from the registry that annotates every result; do not edit it.

A question mark stands behind a dimension that may be missing: `time?` is there for a stack of epochs. `...` stands for
the dimensions of what a variable was computed from. Further dimensions, over which ztfxr loops, come in front. `DN` is
the unit of the image that was measured: a variable in another one says so.
"""


def schema_page() -> str:
    """The page as Markdown: variables by section, bit planes by variable, attributes by what they tell of."""
    parts = [_HEAD, "## Variables and coordinates\n"]
    for title, rows in SECTIONS.items():
        parts += [f"### {title}\n", _table(("name", "dimensions", "dtype", "unit", "meaning"), map(_variable, rows))]
    parts.append("## Bit planes\n")
    for name, planes in FLAG_PLANES.items():
        parts += [f"### `{name}`\n", _table(("plane", "bit", "value", "meaning"), map(_plane, planes))]
    parts.append("## Attributes\n")
    attributes = [(f"`{a.name}`", a.about, a.type, a.meaning) for a in ATTRS.values()]
    parts.append(_table(("name", "tells of", "type", "meaning"), attributes))
    return "\n".join(parts)


def _variable(spec: Spec) -> tuple[str, ...]:
    note = "; tells how good an epoch is" if spec.epoch_quality else ""
    dims = " or ".join(f"`{form.strip()}`" for form in spec.dims.split("|")) if spec.dims else ""
    return (f"`{spec.name}`", dims, spec.dtype, spec.units, spec.meaning + note)


def _plane(plane: Plane) -> tuple[str, ...]:
    return (f"`{plane.name}`", str(plane.bit), str(plane.value), plane.meaning)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
