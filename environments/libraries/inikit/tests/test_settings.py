import pytest

from inikit import InterpolationError, MissingError, Settings, ValueFormatError, loads


def test_typed_getters():
    settings = loads("[a]\nn = 0x10\nflag = Off\nhosts = x, y,, z\n")
    assert settings.get_int("a", "n") == 16
    assert settings.get_bool("a", "flag") is False
    assert settings.get_list("a", "hosts") == ["x", "y", "z"]


def test_defaults_and_missing():
    settings = loads("[a]\n")
    assert settings.get_int("a", "n", 3) == 3
    assert settings.get_bool("nowhere", "n", None) is None
    with pytest.raises(MissingError):
        settings.get_int("a", "n")


def test_bad_value_names_the_setting():
    with pytest.raises(ValueFormatError, match=r"\[a\] n: 'many'"):
        loads("[a]\nn = many\n").get_int("a", "n")


def test_interpolation():
    settings = loads("root = /srv\n[a]\ndir = ${root}/a\n[b]\nlog = ${a:dir}/log\ncost = $$5\n")
    assert settings.get("b", "log") == "/srv/a/log"
    assert settings.get("b", "cost") == "$5"


@pytest.mark.parametrize(
    "text", ["x = ${y}", "x = ${x}", "x = ${z}\nz = ${x}"], ids=["unknown", "itself", "circle"]
)
def test_interpolation_errors(text):
    with pytest.raises(InterpolationError):
        loads(text).get("", "x")


def test_overlay_prefers_the_other():
    base = loads("[a]\nx = 1\ny = ${x}0\n")
    other = loads("[a]\nx = 2\n[b]\nz = 3\n")
    merged = base.overlay(other)
    assert merged.get_int("a", "y") == 20
    assert merged.sections() == ["a", "b"]
    assert other.keys("a") == ["x"]


def test_dumps_round_trip():
    settings = Settings()
    settings.set("", "root", "/srv")
    settings.set("a", "blank", " padded ")
    settings.set("a", "mark", "no # comment")
    settings.set("a", "said", '"yes" and\r\nno')
    again = loads(settings.dumps())
    assert again.dumps() == settings.dumps()
    assert again.get("a", "said") == '"yes" and\r\nno'
