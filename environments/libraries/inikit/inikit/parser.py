"""Files and text into plain ``{section: {key: value}}`` mappings."""

from pathlib import Path

from .errors import ParseError
from .syntax import strip_comment, unquote

DEFAULTS = ""  # the name of the section above the first header


def parse_file(path, strict=False, encoding="utf-8", parents=()):
    """Parse the file at ``path`` together with the files it includes."""
    path = Path(path)
    text = path.read_text(encoding=encoding)
    return parse_text(text, path, strict=strict, encoding=encoding, parents=parents)


def parse_text(text, source=None, strict=False, encoding="utf-8", parents=()):
    """Parse ``text``; ``source`` is the path it came from, if any.

    ``parents`` are the files that are being read further out, to stop a file
    from including itself.
    """
    name = str(source or "<text>")
    folder = Path(source).parent if source else Path(".")
    sections = {DEFAULTS: {}}
    seen = set()
    current = DEFAULTS
    for lineno, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            header = strip_comment(line)
            current = header[1:-1].strip()
            if not header.endswith("]") or not current:
                raise ParseError("bad section header", name, lineno)
            sections.setdefault(current, {})
        elif line[0] == "@":
            word, _, rest = line.partition(" ")
            target = (folder / _plain(rest, name, lineno)).resolve()
            chain = parents + (Path(name).resolve(),)
            if word == "@include":
                if not target.is_file() or target in chain:
                    raise ParseError(f"cannot include {target}", name, lineno)
                found = parse_file(target, strict=strict, encoding=encoding, parents=chain)
                merge(sections, found)
            elif word == "@include-dir":
                for item in sorted(target.glob("*.ini")):
                    if item in chain:
                        raise ParseError(f"cannot include {item}", name, lineno)
                    found = parse_file(item, strict=strict, encoding=encoding, parents=chain)
                    merge(sections, found)
            else:
                raise ParseError(f"unknown directive {word}", name, lineno)
        else:
            key, equals, value = line.partition("=")
            key = key.strip()
            if not equals or not key:
                raise ParseError("expected key = value", name, lineno)
            if strict and (current, key) in seen:
                raise ParseError(f"{key} is set twice", name, lineno)
            seen.add((current, key))
            sections[current][key] = _plain(value, name, lineno)
    return sections


def _plain(text, name, lineno):
    try:
        return unquote(strip_comment(text))
    except ValueError as error:
        raise ParseError(str(error), name, lineno) from None


def merge(target, extra):
    """Put the values of ``extra`` over those of ``target``, in place."""
    for section, values in extra.items():
        target.setdefault(section, {}).update(values)
