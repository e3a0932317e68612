"""Runs the parts in order and prints a table; exit code 1 if a check failed."""

import argparse
import os
import sys
import time
import traceback

import files
import kinds
import scalars
import words
from node import Node


class Report:
    """Collects checks and prints one line each."""

    def __init__(self):
        self.passed, self.failed = 0, 0
        self.since = time.monotonic()

    def check(self, name, ok, detail=""):
        """Notes a check; detail is a figure if it passed, else what is wrong."""
        now = time.monotonic()
        took, self.since = now - self.since, now
        if ok:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok  ' if ok else 'FAIL'} {took:6.2f}s  {name:<58} {detail}", flush=True)

    def right(self, name, wrong):
        """Notes a check that says what is wrong, "" if nothing is."""
        self.check(name, not wrong, wrong)


PARTS = {"words": words.run, "scalars": scalars.run, "kinds": kinds.run, "files": files.run}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--binary", required=True)
    p.add_argument("--scratch", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all if none is named")
    a = p.parse_args()
    report = Report()
    for name in a.parts or PARTS:
        node = Node(a.binary, os.path.join(a.scratch, name))
        try:
            node.start()
            PARTS[name](report, node, a.data)
            code = node.stop()
            report.check(f"{name}: the node stops", code == 0, f"exit code {code}")
        except Exception:  # the next part may say more
            report.check(f"{name}: runs to its end", False, traceback.format_exc())
            with open(node.log_path, "rb") as f:
                sys.stdout.write(f.read()[-4000:].decode(errors="replace"))
        finally:
            node.kill()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
