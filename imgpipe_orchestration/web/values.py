"""Types of values in requests, with the words in which others are refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, WrapValidator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from imgpipe_orchestration.errors import NotFound


@dataclass(frozen=True, slots=True)
class Written:
    """Annotates a string that must match all of `pattern`; `told` is the error otherwise. Pydantic's own constraint
    shows the pattern, which only programmers can read; here OpenAPI has it."""

    pattern: str
    told: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(text: str) -> str:
            if re.fullmatch(self.pattern, text) is None:
                raise PydanticCustomError("written_otherwise", "{told}", {"told": self.told})
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}


def _plain(given: object) -> object:
    """`1_0` may be another worker's image; Python and pydantic read it as 10, and `true` as 1."""
    if isinstance(given, bool | float) or (isinstance(given, str) and not re.fullmatch("-?[1-9][0-9]*|0", given)):
        raise PydanticCustomError("int_parsing", "Input should be a whole number, such as 42")
    return given


Whole = Annotated[int, BeforeValidator(_plain)]
RowId = Annotated[Whole, Field(ge=1, lt=2**63)]
"""The id of a row, which PostgreSQL keeps as a bigint."""


def no_media(named: object, *, to_delete: bool = False) -> NotFound:
    """Of an id of another form than ours, which other workers choose for what they make."""
    hint = " DELETE /api/media/pending/{image_id} deletes any upload." if to_delete else ""
    return NotFound(f"There is no media {named} here.{hint}")


def _ours(named: object, handler: Callable[[object], int], *, to_delete: bool = False) -> int:
    try:
        return handler(named)
    except ValidationError as error:
        raise no_media(named, to_delete=to_delete) from error


MediaId = Annotated[RowId, WrapValidator(_ours)]
"""The id of an image in a path."""
MediaToDelete = Annotated[RowId, WrapValidator(partial(_ours, to_delete=True))]
Colour = Annotated[
    str, Written(r"^(#?[0-9a-fA-F]{6})?$", "a colour is six of the digits 0 to 9 and a to f, such as ff8800")
]
"""A colour, with or without #; empty for none."""
NoNul = Annotated[str, Written(r"^[^\x00]*$", "must not contain NUL")]
"""PostgreSQL holds no NUL in texts."""
