"""What all HTML pages of this program share: their look, and figures as inline SVG."""

import pathlib
from typing import Any

import jinja2
from etils import epath

from cifar_jax import terminal
from cifar_jax.runtime import workdir as files

_SHARED = pathlib.Path(__file__).parent / "templates"


def write(path: epath.Path, template: pathlib.Path, **context: Any) -> epath.Path:
    """Renders a template, which may extend `base.html`, to `path`; returns `path`.

    Raises:
      UserError: the disk is full or not writable.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: terminal.printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": terminal.label, "share": terminal.percent}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, environment.get_template(template.name).render(context).encode())
    return path
