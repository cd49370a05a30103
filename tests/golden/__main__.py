"""`python -m tests.golden`: write the golden records anew. A commit that changes them says which numbers and why."""

from tests.golden.records import CASES, PATH, measure, write

if __name__ == "__main__":
    write(PATH, {case: measure(case) for case in CASES})
