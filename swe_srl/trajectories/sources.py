"""Which sources an import reads: files, folders (recursively), glob patterns and `hf:OWNER/DATASET[:SPLIT]`, in a fixed order.

Invariant: the same files give the same sources in the same order, each file once, with a name unique where its path allows it.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swe_srl.errors import UserError
from swe_srl.trajectories.tables import HUB

SUFFIXES = (".traj.json", ".jsonl", ".json", ".traj", ".parquet")
"""What a file in a folder must end with to be a source; a file named outright may end with anything."""
COMPRESSED = (".gz", ".zst")
"""What may stand after any of them but `.parquet`."""

_ENDINGS = (*SUFFIXES, *(suffix + packed for suffix in SUFFIXES if suffix != ".parquet" for packed in COMPRESSED))


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read."""

    path: Path
    """The file; for a data set of the Hub its `hf:` name."""
    stem: str
    """Its name without suffix; parent folders go before it where another source has the same one."""


def iter_sources(paths: Iterable[str | Path], exclude: Iterable[Path] = ()) -> list[Source]:
    """The sources that `paths` name, without the files in `exclude`.

    Raises UserError for a path that does not exist, a pattern that matches nothing, or when no source is left.
    """
    given = [str(path) for path in paths]
    hub = [Source(Path(text), text.removeprefix(HUB).replace("/", "--").replace(":", "--")) for text in given if _on_hub(text)]
    files: dict[Path, Path] = {}
    for text in given:
        if _on_hub(text):
            continue
        for path in _matches(text):
            for file in _in_folder(path) if path.is_dir() else [path]:
                files.setdefault(file.resolve(), file)
    for path in exclude:
        files.pop(path.resolve(), None)
    if not files and not hub:
        raise UserError(f"no {', '.join('*' + suffix for suffix in SUFFIXES)} in {', '.join(given) or 'nothing'}")
    stems = _unique_stems(list(files))
    return [*(Source(files[path], stems[path]) for path in sorted(files)), *dict.fromkeys(hub)]


def _on_hub(text: str) -> bool:
    return text.startswith(HUB) and not Path(text).exists()


def _matches(text: str) -> list[Path]:
    if Path(text).exists():
        return [Path(text)]
    found = [Path(match) for match in glob.glob(text, recursive=True)] if glob.has_magic(text) else []
    if not found:
        raise UserError(f"{text}: no such file or folder")
    return found


def _in_folder(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(_ENDINGS) and path.is_file()]


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in sorted(_ENDINGS, key=len, reverse=True) if path.name.endswith(suffix)), path.suffix)
    return path.name.removesuffix(suffix) or path.name


def _unique_stems(paths: list[Path]) -> dict[Path, str]:
    """Runs of one task often share a file name: as many parent folders go before it as tell them apart."""
    stems = {path: _stem(path) for path in paths}
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        count = Counter(stems.values())
        shared = [path for path, stem in stems.items() if count[stem] > 1]
        if not shared:
            break
        for path in shared:
            stems[path] = "--".join([*path.parent.parts[1:][-depth:], _stem(path)])
    return stems
