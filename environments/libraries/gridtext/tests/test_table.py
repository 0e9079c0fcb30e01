import pytest

from gridtext import BOX, PLAIN, Column, Table


def parts(**options):
    table = Table(["part", Column("qty", align="right")], **options)
    table.add_row("bolt", 120)
    table.add_row("Washer", 8)
    return table


def test_ascii():
    assert parts().render().splitlines() == [
        "+--------+-----+",
        "| part   | qty |",
        "+--------+-----+",
        "| bolt   | 120 |",
        "| Washer |   8 |",
        "+--------+-----+",
    ]


def test_box_and_plain():
    assert parts(style=BOX).render().splitlines()[0] == "┌────────┬─────┐"
    assert parts(style=PLAIN).render().splitlines()[1] == "------  ---"


def test_cells_that_are_too_wide():
    table = Table([Column("note", width=9), "n"], style=PLAIN)
    table.add_row("two words here", 1)
    assert table.render().splitlines()[2:] == ["two words  1", "here"]
    table = Table([Column("name", width=5, overflow="ellipsis")], style=PLAIN)
    table.add_row("gaskets")
    assert table.render().splitlines()[2] == "gask…"


def test_sort_numbers_and_text():
    table = parts()
    table.add_row("nut", "15")
    table.sort_by("qty")
    assert [row[0] for row in table.rows] == ["Washer", "nut", "bolt"]
    table.sort_by("part", reverse=True)
    assert [row[0] for row in table.rows] == ["Washer", "nut", "bolt"]


def test_sort_puts_blank_cells_last():
    table = parts()
    table.rows.insert(0, ["nut", None])
    table.sort_by("qty")
    assert [row[0] for row in table.rows] == ["Washer", "bolt", "nut"]


def test_short_and_long_rows():
    table = parts()
    table.add_row("nut")
    assert table.rows[-1] == ["nut", None]
    with pytest.raises(ValueError):
        table.add_row("nut", 1, 2)


def test_from_csv():
    table = Table.from_csv("part,qty\nbolt,120\n")
    assert [column.title for column in table.columns] == ["part", "qty"]
    assert table.rows == [["bolt", "120"]]
