"""Strings that try to leave the text that they are, and the places of a tree in which they can stand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from penzai import pz

RUN = "window.ran=(window.ran||0)+1"

STRINGS = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</template><script>{RUN}</script>",
    f"</script></template><img src=x onerror={RUN}>",
    f"<img src=x onerror={RUN}>",
    f'<img src=x onerror="{RUN}">',
    f"'><img src=x onerror={RUN}>",
    f'"><img src=x onerror={RUN}>',
    f'" onmouseover="{RUN}" x="',
    f"' onclick='{RUN}' x='",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<a href='javascript:{RUN}'>press</a>",
    f"javascript:{RUN}",
    f"<math><mtext></p><style><img src=x onerror={RUN}>",
    f"<!--><img src=x onerror={RUN}>-->",
    f"--><img src=x onerror={RUN}>",
    f"]]><img src=x onerror={RUN}>",
    f"</style><img src=x onerror={RUN}>",
    f"</textarea><img src=x onerror={RUN}>",
    f"</title><img src=x onerror={RUN}>",
    f"</div></div></div><img src=x onerror={RUN}>",
    f"</treescope-run-here><script>{RUN}</script>",
    f"<treescope-run-here><script type='application/octet-stream'>{RUN}</script></treescope-run-here>",
    f"&lt;img src=x onerror={RUN}&gt;",
    f"&#60;img src=x onerror={RUN}&#62;",
    f"\\u003cimg src=x onerror={RUN}\\u003e",
    f"${{{RUN}}}",
    f"`;{RUN};`",
    f"';{RUN};//",
    f'";{RUN};//',
    f"\\';{RUN};//",
    f"}};{RUN};{{",
    "x{}*{background:url(javascript:1)}",
    f"\u2028<img src=x onerror={RUN}>\u2029",
    f"\x00<img src=x onerror={RUN}>\x1b[31m",
)


class Bad:
    """An object whose repr is not what it seems."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pz.pytree_dataclass
class Noted(pz.Struct):
    """A node with words beside its children."""

    inside: Any
    words: Any = dataclasses.field(metadata={"pytree_node": False})


def places(text: str) -> dict[str, Any]:
    """A tree for each place in which a string can stand."""
    array = jnp.ones(2)
    kind = type("x", (pz.Struct,), {"__annotations__": {"inside": Any}})
    kind.__name__ = text.replace("\x00", "")
    named = pz.pytree_dataclass(kind)
    return {
        "a key": {text: array, "b": array},
        "a group of keys": {f"{text}/a": array, f"{text}/b": array},
        "a key that is no string": {Bad(text): array},
        "a string": {"a": text, "b": array},
        "a repr": {"a": Bad(text), "b": array},
        "a class": named(array),
        "a static field": Noted(array, text),
        "the name of an axis": {"a": pz.nx.wrap(jnp.ones((2, 2)), text, "other")},
        "a label": {"a": pz.Parameter(value=pz.nx.wrap(array, "x"), label=text), "b": array},
        "a label of a variable with several arrays": {
            "a": pz.StateVariable(value={text: array, "b": array}, label=text)
        },
        "a field of a Context": {"batch": {text: {text: array}}},
    }
