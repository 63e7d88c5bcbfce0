"""How the API reads: doctests are code, and pictures have the signature that they are called by."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?:^>>>.*\n?)(?:^(?!\s*$).*\n?)*", re.MULTILINE)


class Reading(griffe.Extension):
    """Changes what is read of the sources."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put fences around doctests."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = DOCTEST.sub(fence, obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Give a function that ``picture`` decorates what the decorator makes of it."""
        if any(str(each.value).startswith("picture(") for each in func.decorators):
            del func.parameters["ax"]
            only, rest = griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_keyword
            func.parameters.add(
                griffe.Parameter("ax", annotation="Axes | None", kind=only, default="None")
            )
            func.parameters.add(griffe.Parameter("common", annotation="Any", kind=rest))
            func.returns = "Axes | Figure"


def fence(doctest: re.Match[str]) -> str:
    return f"```pycon\n{doctest[0].rstrip()}\n```\n"
