"""How values stand on a page. Knows nothing of reports."""

import re

from markupsafe import Markup, escape


def marked(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def count(rows: float) -> str:
    """Rows, which may be a mean over seeds: `1,204`, `3.3`."""
    return f"{rows:,.0f}" if rows == int(rows) or rows >= 100 else f"{rows:.1f}"


def seconds(value: float) -> str:
    if value < 90:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"
