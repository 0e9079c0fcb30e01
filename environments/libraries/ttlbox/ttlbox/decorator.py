"""Keep the results of a function in a box."""

import functools

from .box import _DEFAULT


def cached(box, ttl=_DEFAULT, key=None):
    """Decorate a function so that its results are kept in ``box``.

    ``key`` makes the cache key from the arguments; without it the arguments
    themselves are used and must be hashable. Functions may share a box: the
    name of the function is part of the key.
    """

    def decorate(function):
        name = f"{function.__module__}.{function.__qualname__}"

        def full_key(args, kwargs):
            if key is not None:
                return name, key(*args, **kwargs)
            return name, args, tuple(sorted(kwargs.items()))

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return box.get_or_set(full_key(args, kwargs), lambda: function(*args, **kwargs), ttl)

        def forget(*args, **kwargs):
            """Drop the result for these arguments; False if there is none."""
            return box.delete(full_key(args, kwargs))

        wrapper.forget = forget
        return wrapper

    return decorate
