"""aligned: a griffe extension: lists of names and meanings in docstrings, which are aligned by spaces, stay aligned."""

import re
from typing import Any

from griffe import Extension, Object

ALIGNED = re.compile(r"^ *\S[\S ,]{0,40}?  +\S", re.M)


class Aligned(Extension):
    """A paragraph with such a line becomes a block."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(f"```text\n{p}\n```" if ALIGNED.search(p) else p for p in paragraphs)
