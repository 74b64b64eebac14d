"""How near labelling comes to what an endpoint lets through, and whether answers are bought twice when it is killed.

    python benchmarks/endpoint.py [--rows 1000] [--latency-ms 50] [--limit 100] [--kills 10] [--record]

The last line is one JSON object. `rate_over_limit`: answers a second, from the first to the last, over the server's limit, with one row a
request; `rate_limit_unknown`: the same when the recipe does not say the limit, and 429 alone does; `paid_twice`: rows that were charged more than
once, and `bought_again`: rows that were asked about although their answers had come, in processes that were killed at random;
`replayed`: requests that a kill had left under way, which the server knew by their `Idempotency-Key`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.paid import CountingServer, fill, held, killed_and_filled, numbered, stores
from teachers.config.endpoint import EndpointTeacher
from teachers.transfer_set.transfer_set import TransferSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--limit", type=float, default=100, help="requests a second")
    parser.add_argument("--kills", type=int, default=10)
    record.with_record(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), given)
    record.finish("endpoint", {**figures, **record.settings(given)}, keep=given.record)


def measured(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    data = numbered(folder, given.rows)
    told = {"limits": {"requests_per_minute": 60 * given.limit}}
    rate, _ = labelled(folder / "told", data, given, told)
    unknown, busy = labelled(folder / "unknown", data, given, {})
    server = CountingServer(given.latency_ms / 1000, given.limit)
    with server.serving() as url:
        how = config(url, told)
        tasks = stores(folder / "killed", data, how)
        most_s = given.rows / given.limit / max(given.kills, 1)
        seconds = killed_and_filled(server, how, tasks, given.kills, most_s)
    if held(tasks) != set(range(given.rows)):
        raise RuntimeError("rows are missing")
    return {
        "rate_over_limit": round(rate / given.limit, 3),
        "rate_limit_unknown": round(unknown / given.limit, 3),
        "turned_away": busy,
        "kills": given.kills,
        "paid": sum(server.paid.values()),
        "paid_twice": sum(count > 1 for count in server.paid.values()),
        "bought_again": len(server.bought_again),
        "replayed": server.replayed,
        "killed_s": round(seconds, 1),
    }


def labelled(folder: Path, data: TransferSet, given: argparse.Namespace, about: dict[str, Any]) -> tuple[float, int]:
    """(answers a second, requests that were turned away) of labelling everything once."""
    server = CountingServer(given.latency_ms / 1000, given.limit)
    with server.serving() as url:
        how = config(url, about)
        begun = time.monotonic()
        fill(how, stores(folder, data, how))
        print(f"{given.rows} rows in {time.monotonic() - begun:.2f} s, {server.busy} requests turned away")
    return (len(server.at) - 1) / (server.at[-1] - server.at[0]), server.busy


def config(url: str, about: dict[str, Any]) -> EndpointTeacher:
    told = {"kind": "endpoint", "url": url, "version": "1", "rows_per_request": 1, **about}
    return EndpointTeacher.model_validate(told)


if __name__ == "__main__":
    main()
