"""Values as text: comments, quotes and escapes."""

import re

ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_COMMENT = re.compile(r"(?:^|\s)[#;]")


def strip_comment(text):
    """Return ``text`` without a trailing comment and outer blanks.

    A comment mark inside a leading quoted string belongs to the value.
    """
    text = text.strip()
    quoted = _QUOTED.match(text)
    start = quoted.end() if quoted else 0
    mark = _COMMENT.search(text, start)
    return text[: mark.start()].rstrip() if mark else text


def unquote(text):
    """Return the plain value of ``text``, which may be in double quotes."""
    if not text.startswith('"'):
        return text
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise ValueError("the quotes of this value do not match")
    return _ESCAPE.sub(lambda m: ESCAPES.get(m.group(1), m.group(0)), match.group(1))


def quote(text):
    """Write ``text`` so that `unquote` gives it back; quotes only if needed."""
    plain = text == strip_comment(text) and not text.startswith('"')
    if plain and "\n" not in text and "\r" not in text:
        return text
    for code, char in ESCAPES.items():  # the backslash comes first
        text = text.replace(char, "\\" + code)
    return f'"{text}"'
