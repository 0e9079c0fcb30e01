import pytest

from inikit import ParseError, load, loads


def test_sections_and_defaults():
    settings = loads("name = demo\n[web]\nport = 80\n[db]\n")
    assert settings.sections() == ["web", "db"]
    assert settings.keys("web") == ["port"]
    assert settings.get("web", "name") == "demo"


def test_comments_are_dropped():
    settings = loads("# top\n[a] ; header\nx = 1 # one\ny = a#b\n; end\n")
    assert settings.get("a", "x") == "1"
    assert settings.get("a", "y") == "a#b"


def test_quotes_keep_marks_and_blanks():
    settings = loads('x = "  a # b " # comment\ny = "say \\"hi\\""\n')
    assert settings.get("", "x") == "  a # b "
    assert settings.get("", "y") == 'say "hi"'


def test_unknown_escape_is_kept():
    assert loads('x = "\\d+"\n').get("", "x") == "\\d+"


@pytest.mark.parametrize(
    "text",
    ["[open", "[]", "word", "= 3", 'x = "a', "@nope x"],
    ids=["header", "empty-header", "word", "no-key", "quote", "directive"],
)
def test_bad_lines(text):
    with pytest.raises(ParseError) as caught:
        loads("ok = 1\n" + text)
    assert caught.value.lineno == 2


def test_strict_refuses_a_second_value():
    text = "[a]\nx = 1\n[b]\nx = 2\n[a]\nx = 3\n"
    assert loads(text).get("a", "x") == "3"
    with pytest.raises(ParseError, match="x is set twice"):
        loads(text, strict=True)


def test_include(tmp_path):
    (tmp_path / "extra.ini").write_text("[web]\nport = 81\n")
    (tmp_path / "main.ini").write_text("[web]\nport = 80\n@include extra.ini\n")
    assert load(tmp_path / "main.ini", strict=True).get_int("web", "port") == 81


def test_include_dir_reads_in_name_order(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "20.ini").write_text("x = late\n")
    (tmp_path / "conf.d" / "10.ini").write_text("x = early\ny = kept\n")
    (tmp_path / "main.ini").write_text("@include-dir conf.d\n")
    settings = load(tmp_path / "main.ini")
    assert (settings.get("", "x"), settings.get("", "y")) == ("late", "kept")


def test_included_files_share_the_encoding(tmp_path):
    (tmp_path / "extra.ini").write_bytes("x = caf\xe9\n".encode("latin-1"))
    (tmp_path / "main.ini").write_text("@include extra.ini\n")
    assert load(tmp_path / "main.ini", encoding="latin-1").get("", "x") == "caf\xe9"


def test_a_file_cannot_include_itself(tmp_path):
    (tmp_path / "main.ini").write_text("@include ./sub/../main.ini\n")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ParseError, match="cannot include"):
        load(tmp_path / "main.ini")
