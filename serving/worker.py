"""`python -m serving.worker SHARED SETTINGS FOLDER NAME PORT_FILE`: one worker process of a supervisor.

SHARED is the folder that is removed when the supervisor is gone; the others are as for `recsys serve`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from serving.endings import Parent


def main(shared: Path, settings: Path, folder: Path, name: str, port_file: Path) -> None:
    """Serve until SIGTERM, or until the supervisor is gone, which is watched from here on."""
    parent = Parent(shared)

    from recsys.cli import one_message
    from serving.bootstrap import serve
    from serving.settings import load

    with one_message():
        serve(folder, load(settings), name=name, port_file=port_file, parent=parent)


if __name__ == "__main__":
    shared, settings, folder, name, port_file = sys.argv[1:]
    main(Path(shared), Path(settings), Path(folder), name, Path(port_file))
