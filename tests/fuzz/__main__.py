"""`make fuzz`: rounds over every method and data files with fresh seeds until the time is over, or one seed again."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from recsys import config, pipeline
from tests.fuzz.data_files import round_of_files
from tests.fuzz.rounds import round_of
from tests.fuzz.target import METHODS, Target
from tests.worlds import block_run, write_block_world


def main() -> None:
    """Train a release, serve it, send nonsense, then train on nonsense; the first fault ends it with exit code 1."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="one round with this seed")
    parser.add_argument("--examples", type=int, default=300, help="messages for each method and kind in one round")
    parser.add_argument("--files", type=int, default=30, help="data sets in one round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_block_world(folder)
        run = config.from_tables(block_run(folder))
        target = Target(pipeline.train(run, folder / "work", folder / "releases").folder)
        try:
            sys.exit(rounds(target, arguments.minutes * 60, arguments.seed, arguments.examples, arguments.files))
        finally:
            target.close()


def rounds(target: Target, seconds: float, only: int | None, examples: int, files: int) -> int:
    """Return the exit code of rounds over methods and data files: at least one, then more until the time is over."""
    ends = time.monotonic() + seconds
    codes: Counter[str] = Counter()
    ends_of_files: Counter[str] = Counter()
    while True:
        number = secrets.randbelow(2**32) if only is None else only
        print(f"seed {number}", flush=True)
        for method in METHODS:
            try:
                codes += round_of(target, method, number, examples)
                assert not target.failures(), target.failures()[0]
            except AssertionError as error:
                print(f"{method.full_name}, --seed {number}: {error}", *getattr(error, "__notes__", []), sep="\n")
                return 1
        try:
            ends_of_files += round_of_files(number, files)
        except Exception as error:  # whatever it is, it is a fault: deliberate errors do not get here
            traceback.print_exception(error)
            print(f"data files, --seed {number}")
            return 1
        if only is not None or time.monotonic() > ends:
            break
    print(f"{codes.total():,} calls: {', '.join(f'{code} {count:,}' for code, count in codes.most_common())}")
    print(f"{ends_of_files.total():,} data sets: {ends_of_files['trained']:,} trained on, the rest refused")
    return 0


if __name__ == "__main__":
    main()
