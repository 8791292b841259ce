"""`python -m tests.simulator`: plays stories; a failing one is made short and told."""

from __future__ import annotations

import argparse
import sys
import time

from twisted.logger import globalLogBeginner

from tests.simulator.shrink import shrunk
from tests.simulator.stage import play
from tests.simulator.story import write


def main(words: list[str]) -> int:
    """Play the seeds asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--trace", action="store_true", help="tell all that happens")
    parser.add_argument("--whole", action="store_true", help="shorten no story")
    options = parser.parse_args(words)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    begun, failed, acks, reads = time.process_time(), 0, 0, 0
    for seed in range(options.first, options.first + options.seeds):
        story = write(seed)
        outcome = play(story, keep=options.trace)
        acks += outcome.acknowledged
        reads += outcome.reads
        if outcome.violations:
            failed += 1
            if not options.whole:
                story = shrunk(story)
                outcome = play(story, keep=options.trace)
            print(f"{story}\n=> {outcome.violations[0]}\n")
        if options.trace:
            print("\n".join(outcome.lines))
            print(f"trace {outcome.digest}")
    took = time.process_time() - begun
    print(
        f"{options.seeds} seeds, {failed} with violations; {acks} writes acknowledged, "
        f"{reads} reads; {took / max(1, options.seeds):.3f} s of CPU a seed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
