"""What looks like a secret in a recipe or an address: known by its form, never by asking anybody."""

import re

USERINFO = re.compile(r"(?<=//)(?:[^/\s:@]*:\S*|[^/\s]*)@")
"""Of a URI: a name and a password, in which `/` and `@` may stand though they should not; or a name alone."""
SECRET_FIELD = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?P<word>password|passwd|pwd|secret)"
    r"|(?:[\w.-]*(?:token|signature|credential)|sig|api_?key|access_?key)|(?P<key>key))=)(?P<value>[^&\s;#]+)",
    re.IGNORECASE,
)
"""Of a URI's query."""
REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)
WITH_PASSWORD = re.compile(r"[\w+.-]+://[^/\s:@]*:(?!\d{1,5}/)[^\s@]\S*@")
TOKEN_ALONE = re.compile(r"(?:https?|git\+https|ssh)://(?=[^/\s@]*\d)[^/\s:@]{16,}:?@")
TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}|[prs]k_(?:live|test)_\w{10,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{40,}"
    r"|dapi[0-9a-f]{32}|r8_[A-Za-z0-9]{30,}|nvapi-[\w-]{20,}|xox[abeprs]-[\w-]{10,}|ya29\.[\w-]{20,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|(?i:bearer) (?=\S*\d)[A-Za-z0-9+/=_.~-]{16,}"
    r"|Basic (?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{16,}={0,2}$)"
)
"""Of Hugging Face, GitHub, GitLab, OpenAI, Stripe, npm, PyPI, Databricks, Replicate, NVIDIA, Slack, Google; JWT; headers."""
KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{35})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""Of AWS and Google; a private key."""
PASSWORD_NAME = re.compile(r"(?:^|_)(?:password|passwd|pwd|passphrase)$")
KEY_NAME = re.compile(r"(?:^|_)(?:secret|(?:api|access|secret|private|account)_?key(?:_id)?|client_secret)$")
TOKEN_NAME = re.compile(r"(?:^|_)(?:(?:auth|access|api|hf|bearer|refresh|session|github|gitlab)_?)token$|^token$")
"""Names of arguments. Not `pad_token`, which is a text, nor `key`, which may be a column."""


def without_password(text: str) -> str:
    """`text` with what URIs in it say of who asks left out: names, passwords, and secret fields of their queries."""
    return SECRET_FIELD.sub(r"\g<name>***", USERINFO.sub("", text))


def looks_like(text: str) -> str:
    """What secret a value looks like, or nothing: `a URI with a password`, `a token`, `a key`."""
    text = REFERENCE.sub("", text)
    if WITH_PASSWORD.search(text):
        return "a URI with a password"
    if TOKEN_ALONE.search(text) or TOKENS.search(text):
        return "a token"
    if KEYS.search(text):
        return "a key"
    return "a URI with a secret" if "://" in text and any(map(_is_secret, SECRET_FIELD.finditer(text))) else ""


def _is_secret(field: re.Match[str]) -> bool:
    """Not `key=rows` or `page_token=2`."""
    return len(field["value"]) >= (1 if field["word"] else 16 if field["key"] else 8)


def looks_like_by_name(name: str, text: str) -> str:
    """The same of an argument that is called `name`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    text = REFERENCE.sub("", text)
    if not text or re.search(r"\s", text):
        return ""
    if PASSWORD_NAME.search(name):
        return "a password"
    if KEY_NAME.search(name) and len(text) >= 8 and not text.startswith(("/", "~", ".")):
        return "a key"
    return "a token" if TOKEN_NAME.search(name) and len(text) >= 16 and re.search(r"\d", text) else ""
