"""The process that is killed: eight threads commit memories and acknowledge each over a pipe.

    python writer.py DATABASE ROUND

A line on standard output is one key whose commit has returned. It is written with one `write` of
less than a pipe's atomic size, so that lines of several threads never mix.
"""

from __future__ import annotations

import os
import sys
import threading

from wafer_support import Memory, write_memory

THREADS = 8


def main() -> None:
    path, round_name = sys.argv[1:]
    db = Memory(path)
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(1_000_000):
                key = f"{round_name}/{thread}/{number:06}"
                with db.transaction() as tx:
                    write_memory(tx, key)
                os.write(1, f"{key}\n".encode())
        except BaseException as error:
            failures.append(error)
            os.write(1, f"!{error!r}\n".encode())
            raise

    os.write(1, b"ready\n")
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
