"""The settings object: typed getters, interpolation and layers."""

import re

from .errors import InterpolationError, MissingError, ValueFormatError
from .parser import DEFAULTS, merge, parse_file, parse_text
from .syntax import quote

_REFERENCE = re.compile(r"\$(?:(\$)|\{(?:([^:}]*):)?([^}]*)\})")
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True}
_BOOLEANS.update({"no": False, "false": False, "off": False, "0": False})
_REQUIRED = object()


def load(path, strict=False, encoding="utf-8"):
    """Read settings from the file at ``path``."""
    return Settings(parse_file(path, strict=strict, encoding=encoding))


def loads(text, strict=False):
    """Read settings from a string."""
    return Settings(parse_text(text, strict=strict))


class Settings:
    """Values by section and key; the section ``""`` holds the defaults."""

    def __init__(self, sections=None):
        self._sections = {DEFAULTS: {}}
        merge(self._sections, sections or {})

    def sections(self):
        """The names of all sections, without the defaults."""
        return [name for name in self._sections if name != DEFAULTS]

    def keys(self, section):
        """The keys set in ``section`` itself."""
        return list(self._sections.get(section, {}))

    def set(self, section, key, value):
        """Set one value, as text."""
        self._sections.setdefault(section, {})[key] = str(value)

    def get(self, section, key, default=_REQUIRED):
        """The text of a setting, with its references replaced."""
        raw = self._raw(section, key)
        if raw is not None:
            return self._expand(raw, section, ((section, key),))
        if default is _REQUIRED:
            raise MissingError(f"no setting {key} in section [{section}]")
        return default

    def get_int(self, section, key, default=_REQUIRED):
        """A whole number; ``0x`` and ``0o`` prefixes are understood."""
        return self._convert(section, key, default, lambda text: int(text, 0), "a whole number")

    def get_bool(self, section, key, default=_REQUIRED):
        """yes/no, true/false, on/off or 1/0, in any case."""
        return self._convert(section, key, default, lambda t: _BOOLEANS[t.lower()], "a yes or no")

    def get_list(self, section, key, default=_REQUIRED, sep=","):
        """The parts between separators, without blanks and empty parts."""

        def parts(text):
            return [part.strip() for part in text.split(sep) if part.strip()]

        return self._convert(section, key, default, parts, "a list")

    def overlay(self, other):
        """New settings in which the values of ``other`` win."""
        merged = Settings(self._sections)
        merge(merged._sections, other._sections)
        return merged

    def dumps(self):
        """Text that `loads` reads back into equal settings."""
        lines = []
        for name, values in self._sections.items():
            if name != DEFAULTS:
                lines += ["", f"[{name}]"]
            lines += [f"{key} = {quote(value)}" for key, value in values.items()]
        return "\n".join(lines).lstrip("\n") + "\n"

    def _raw(self, section, key):
        for name in (section, DEFAULTS):
            if key in self._sections.get(name, {}):
                return self._sections[name][key]
        return None

    def _expand(self, text, section, trail):
        def replace(match):
            dollar, place, key = match.groups()
            if dollar:
                return "$"
            place = section if place is None else place
            raw = self._raw(place, key)
            if raw is None or (place, key) in trail:
                raise InterpolationError(f"cannot resolve {match.group(0)} in [{section}]")
            return self._expand(raw, place, trail + ((place, key),))

        return _REFERENCE.sub(replace, text)

    def _convert(self, section, key, default, convert, wanted):
        text = self.get(section, key, None)
        if text is None:
            return self.get(section, key, default)
        try:
            return convert(text)
        except (ValueError, KeyError):
            raise ValueFormatError(f"[{section}] {key}: {text!r} is not {wanted}") from None
