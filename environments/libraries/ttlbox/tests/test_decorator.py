from ttlbox import ManualClock, TTLBox, cached


def test_results_are_kept_for_their_ttl():
    clock = ManualClock()
    calls = []

    @cached(TTLBox(ttl=100, clock=clock), ttl=10)
    def double(number):
        calls.append(number)
        return number * 2

    assert [double(2), double(2), double(3)] == [4, 4, 6]
    assert calls == [2, 3]
    clock.advance(50)
    assert double(2) == 4
    assert calls == [2, 3, 2]


def test_functions_share_a_box():
    box = TTLBox()

    @cached(box)
    def plus(number, step=1):
        return number + step

    @cached(box)
    def minus(number, step=1):
        return number - step

    assert (plus(1), minus(1), plus(1, step=2)) == (2, 0, 3)
    assert plus.__name__ == "plus"


def test_key_and_forget():
    box = TTLBox()
    calls = []

    @cached(box, key=lambda user: user["id"])
    def load(user):
        calls.append(user["id"])

    load({"id": 1, "name": "a"})
    load({"id": 1, "name": "b"})
    assert calls == [1]
    assert load.forget({"id": 1})
    load({"id": 1})
    assert calls == [1, 1]
