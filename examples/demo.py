"""The server is killed in the middle, and the link is cut a hundred times: `make demo`.

This repository's own text, line by line, in two acts. In the first one a server that writes down what it
takes is killed in the middle and started again; in the second one a proxy cuts the link between two living
processes at random bytes. What happens is shown as it comes; after each act a table compares what was sent
with what arrived.

Ends with status 1 if the library broke one of its promises: exactly once as long as both processes live, at
least once across a crash, and an account that is true.
"""

from __future__ import annotations

import argparse
import random
import sys

import crash
import cuts
from stage import Story, Text

try:
    from uvloop import run
except ImportError:
    from asyncio import run

# Enough to be a stream and not a moment.
MESSAGES = 600_000
CUTS = 100
FEWEST = 5_000


def main(arguments: list[str] | None = None) -> int:
    """Play both acts; return the exit status."""
    chosen = parse(arguments)
    text, story = Text.of_repository(), Story()
    kept = [
        run(crash.play(text, story, chosen.messages)),
        run(cuts.play(text, story, chosen.cuts, chosen.seed)),
    ]
    if not all(kept):
        return 1
    print("Nothing lost, and nothing twice but what a crash made the client redeliver.")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Kills a server, cuts links, and counts what arrived.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="before receipts, in the first act")
    parser.add_argument("--cuts", type=int, default=CUTS, help="of the link, in the second act")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the cuts; it is shown")
    chosen = parser.parse_args(arguments)
    # What is queued for the first server must be less than half.
    if chosen.messages <= FEWEST or chosen.cuts < 1:
        parser.error(f"a middle needs more than {FEWEST} messages, and a break at least 1 cut")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
