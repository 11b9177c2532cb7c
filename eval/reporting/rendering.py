"""The templates of the report, filled. Markup lies in templates/ alone; every value that enters it is escaped."""

import re
from typing import Any

import jinja2

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("eval.reporting"),  # wherever it is installed and whatever folder one stands in
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def text(template: str, **values: Any) -> str:
    """A template of that file name, with these values. Raises jinja2.UndefinedError for one that it misses."""
    return ENVIRONMENT.get_template(template).render(**values)


def macro(template: str, name: str, *values: Any) -> str:
    """One macro of a template by itself."""
    made: str = getattr(ENVIRONMENT.get_template(template).module, name)(*values)
    return str(made)


def typeset(sentence: str) -> str:
    """With the quotes of print."""
    return re.sub(r'"(.*?)"', r"“\1”", sentence)


def percentage(share: float) -> str:
    """A length in an SVG: 0.5 -> 50.00%."""
    return f"{100 * share:.2f}%"


def pixels(number: float) -> str:
    return f"{number:.1f}"


ENVIRONMENT.filters |= {"typeset": typeset, "percentage": percentage, "pixels": pixels}
