"""What each variable, coordinate, attribute and bit plane is: one registry that annotates, checks and documents."""

from ztfxr.schema.annotate import annotate, annotate_all, fill_value
from ztfxr.schema.attributes import ATTRS, Attribute, Attrs, kept, plain
from ztfxr.schema.columns import COLUMN_ALIASES, find_columns
from ztfxr.schema.page import schema_page
from ztfxr.schema.planes import (
    CUT_PLANES,
    EXTRACTION_PLANES,
    FIT_PLANES,
    FLAG_PLANES,
    MASK_PLANES,
    NOT_MEASURED,
    RECOMMENDED_PLANES,
    SOURCE_PLANES,
    STATUS_PLANES,
    Plane,
    flag_attrs,
    plane_names,
    planes_to_bits,
    status_of,
)
from ztfxr.schema.specs import CORE_DIMS, Spec
from ztfxr.schema.variables import (
    EFFECTIVE_WAVELENGTHS,
    EPOCH_QUALITY,
    EXPOSURE,
    FILTERS,
    REGISTRATION,
    SECTIONS,
    SPECS,
)

__all__ = [
    "ATTRS",
    "COLUMN_ALIASES",
    "CORE_DIMS",
    "CUT_PLANES",
    "EFFECTIVE_WAVELENGTHS",
    "EPOCH_QUALITY",
    "EXPOSURE",
    "EXTRACTION_PLANES",
    "FILTERS",
    "FIT_PLANES",
    "FLAG_PLANES",
    "MASK_PLANES",
    "NOT_MEASURED",
    "RECOMMENDED_PLANES",
    "REGISTRATION",
    "SECTIONS",
    "SOURCE_PLANES",
    "SPECS",
    "STATUS_PLANES",
    "Attribute",
    "Attrs",
    "Plane",
    "Spec",
    "annotate",
    "annotate_all",
    "fill_value",
    "find_columns",
    "flag_attrs",
    "kept",
    "plain",
    "plane_names",
    "planes_to_bits",
    "schema_page",
    "status_of",
]
