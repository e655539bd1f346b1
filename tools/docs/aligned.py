"""aligned: a griffe extension: lists of names and meanings in docstrings, which are aligned by spaces, stay aligned."""

from typing import Any

from griffe import Extension, Object

from tools.docs.sources import with_lists


class Aligned(Extension):
    """Of every object that the reference shows."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = with_lists(obj.docstring.value)
