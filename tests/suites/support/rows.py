"""The instances of a running fleet, for the suites.

rows.py list API KEY [SERVICE…]   one line for each instance of the other services: name, state, pid, restarts
rows.py wait API KEY [SERVICE…]   waits until each instance of the other services runs
"""

import json
import sys
import time
import urllib.request

WAIT_SECONDS = 60


def rows(api, key, without):
    request = urllib.request.Request(api + "/api/orchestrator/instances", headers={"Authorization": "Bearer " + key})
    with urllib.request.urlopen(request, timeout=15) as answer:
        found = json.load(answer)
    return sorted((row for row in found if row["service"] not in without), key=lambda row: row["instance"])


def main(what, api, key, *without):
    deadline = time.monotonic() + WAIT_SECONDS
    found = rows(api, key, without)
    while what == "wait" and not (found and all(row["state"] == "running" for row in found)):
        if time.monotonic() > deadline:
            sys.exit(f"not all run after {WAIT_SECONDS} s: {found}")
        time.sleep(0.2)
        found = rows(api, key, without)
    if what == "list":
        for row in found:
            print(row["instance"], row["state"], row["pid"], row["restarts"])


if __name__ == "__main__":
    main(*sys.argv[1:])
