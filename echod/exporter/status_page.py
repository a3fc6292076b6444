"""The status page: one file that fetches /status.json and shows it.

Owns the file as it is sent, with the policy that lets a browser run only the script in it. Invariant: it is the same
for everybody; all information is fetched later, as data.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

from echod.metrics.http_server import Response

_TEXT: Final = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")


def _allowed(tag: str) -> str:
    """Return the source that the policy allows for the one element of this name: itself, by its hash (CSP level 2)."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", _TEXT, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        f"script-src {_allowed('script')}",
        f"style-src {_allowed('style')}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

PAGE: Final = Response(
    content_type="text/html; charset=utf-8",
    headers=(("Content-Security-Policy", _POLICY), ("Referrer-Policy", "no-referrer")),
    body=_TEXT.encode(),
)
